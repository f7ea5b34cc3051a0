#!/bin/bash
# A fourth sheep is added, the second drained and removed, all under load: data moves, little more than
# the share that has to, nothing is lost, and what may not be removed is not.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq nbdcopy
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"

id_of() { collie "$1" --json node list | jq '.[] | select(.is_self) | .id'; }
# join_sheep N: start it, and wait until the cluster has it.
join_sheep() {
	start_sheep "$1"
	wait_until 20 sheep_is_up "$1"
	wait_until 20 eval "collie $1 --json node list | jq -e '.[] | select(.is_self) | .status == \"up\"'"
}
copies_of() { collie 1 --json node list | jq ".[] | select(.id == $1) | .copies"; }
has_copies() { [ "$(copies_of "$1")" "$2" "$3" ]; }

start_cluster 3 --pgs 64
second=$(id_of 2)
collie 1 vdi create disk 64M
rm -f "$work/stop"
BLOCKS=16384 RATE=2000 $blocks write "$work/state" "$work/stop" disk "$work/nbd1" "$work/nbd3" \
	>"$work/writer.out" 2>&1 &
writer=$!
background=($writer)
wait_until 20 has_written 1000

# Removal is refused, with the reason, while it is up.
expect_exit 6 collie 1 node remove "$second"
grep -q "is up" "$work/err" || fail "$(cat "$work/err")"
expect_exit 5 collie 1 node remove 77
expect_exit 5 collie 1 node drain 77

# With three nodes for three copies a drain cannot end, and health says so.
collie 1 node drain "$second" >/dev/null
wait_until 20 eval "collie 1 cluster health | grep -q 'there is no other store'"
has_copies "$second" -eq 64 || fail "a drain without room took copies away"

# A fourth takes its place. Until the last copy is complete elsewhere the drained one stays in sync.
join_sheep 4
fourth=$(id_of 4)
fewest() { collie 1 --json pg list | jq 'map(.isr | length) | min'; }
end=$((SECONDS + 60 * patience))
until has_copies "$second" -eq 0; do
	[ $SECONDS -lt $end ] || fail "the drain does not end: $(copies_of "$second") are left"
	[ "$(fewest)" -ge 3 ] || fail "a placement group has fewer copies than before"
	sleep 0.1
done
has_copies "$fourth" -eq 64 || fail "the fourth has $(copies_of "$fourth") of 64"
collie 1 cluster health | grep -q "nothing is left on it" || fail "$(collie 1 cluster health)"
expect_exit 6 collie 1 node remove "$second"
[ "$(collie 1 --json node list | jq -r ".[] | select(.id == $second) | .status")" = draining ] ||
	fail "its status"
kill_sheep 2 TERM
[ "$sheep_rc" = 0 ] || fail "the drained sheep exits with $sheep_rc"
collie 1 node remove "$second"
listed() { collie 3 --json "$1" list | jq length; }
comes_to 3 listed node
comes_to 3 listed store
expect_exit 5 collie 1 node undrain "$second"

# One more: it takes its fair share of the 192 copies, 48, and nothing else moves.
collie 1 --json pg list >"$work/before"
join_sheep 5
fifth=$(id_of 5)
wait_until 20 eval "[ \"\$(collie 1 --json node list | jq '.[] | select(.id == $fifth) | .share')\" -ge 42 ]"
wait_healthy 4
collie 1 --json pg list >"$work/after"
moved=$(jq -s '[.[0], .[1]] | transpose | map((.[1].isr - .[0].isr) | length) | add' \
	"$work/before" "$work/after")
echo "a new node: $moved copies moved, it has $(copies_of "$fifth")"
[ "$moved" = "$(copies_of "$fifth")" ] && [ "$moved" -le 58 ] || fail "$moved copies moved"

# Back and forth: undrain while the drain is under way.
collie 1 node drain "$fifth" >/dev/null
collie 1 node undrain "$fifth" >/dev/null
wait_until 60 eval "has_copies $fifth -ge 42"
wait_healthy 4

touch "$work/stop"
wait $writer || { cat "$work/writer.out"; fail "the writer saw an error"; }
background=()
cat "$work/writer.out"
$blocks check "$work/state" disk "$work"/nbd[1345] || fail "writes were lost"

# The forgotten sheep comes back as a new one, with its old directory: nothing of it is believed.
join_sheep 2
wait_healthy 5
$blocks check "$work/state" disk "$work"/nbd[12345] || fail "the forgotten one brought old data back"
collie 1 cluster shutdown
for i in 1 2 3 4 5; do wait_gone $i; done
