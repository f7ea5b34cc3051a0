#!/bin/bash
# What an operator sees and does: a node that stays away, PGs that need a store, loss that he accepts.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq nbdcopy

health() { collie "$1" cluster health >"$work/health"; cat "$work/health"; }
says() { health "$1" | tr -s '\n ' ' ' | grep -qF -- "$2"; }
expect_says() { says "$1" "$2" || fail "health does not say '$2': $(cat "$work/health")"; }
id_of() { collie "$1" --json node list | jq '.[] | select(.is_self) | .id'; }
store_of() { collie "$1" --json node list | jq -r '.[] | select(.is_self) | .stores[0]'; }
# start_again N: and wait until the cluster has it.
start_again() {
	start_sheep "$1"
	wait_until 20 sheep_is_up "$1"
	wait_until 20 eval "collie $1 --json node list | jq -e '.[] | select(.is_self) | .status == \"up\"'"
}
copies_of() { collie 1 --json node list | jq ".[] | select(.id == $1) | .copies"; }

start_sheep 1
wait_until 20 sheep_is_up 1
expect_says 1 "there is no cluster yet"
for i in 2 3 4; do start_sheep $i; done
for i in 2 3 4; do wait_until 20 sheep_is_up $i; done
collie 1 cluster format --wait-nodes 4 --pgs 32 --copies 2 >/dev/null
wait_healthy 4
expect_says 1 "nothing to report"
collie 1 vdi create disk 24M >/dev/null
head -c 24M /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "$(uri 1 disk)"
second=$(id_of 2)

# Away, shortly: nothing moves. Away for long: its share is made elsewhere.
collie 1 cluster set down_out_interval 4s
before=$(copies_of "$second")
kill_sheep 2
wait_until 20 says 1 "node $second (127.0.0.1"
expect_says 1 "are not kept up"
[ "$(collie 1 --json node list | jq ".[] | select(.id == $second) | .share")" = "$before" ] ||
	fail "its share went at once"
expect_exit 6 collie 1 --timeout 0.5 cluster wait
is_out() { collie 1 --json node list | jq -e ".[] | select(.id == $second) | .status == \"out\" and .share == 0"; }
wait_until 30 is_out
wait_healthy 3
expect_says 1 "its share has been given to other stores"
collie 1 --json pg list | jq -e 'all(.[]; (.isr | length) == 2)' >/dev/null || fail "a copy is missing"
expect_same disk "$work/image"

# It returns: it gets a fair share again, as a new node would.
collie 1 cluster set down_out_interval default
start_again 2
has_share() { [ "$(copies_of "$second")" -ge 12 ]; }
wait_until 60 has_share
wait_healthy 4
expect_same disk "$work/image"

# A node that is down and drained gives up its share without waiting, and can be forgotten.
kill_sheep 2
wait_until 20 says 1 "node $second"
collie 1 node drain "$second" >/dev/null
wait_until 30 is_out
wait_healthy 3
collie 1 node remove "$second" >/dev/null
expect_says 1 "nothing to report"
start_again 2
second=$(id_of 2)
wait_until 60 has_share
wait_healthy 4

# Both copies of some PGs go, one after the other, and only the one that lacks writes comes back.
third=$(id_of 3) third_store=$(store_of 3) second_store=$(store_of 2)
pg=$(collie 1 --json pg list | jq --arg a "$second_store" --arg b "$third_store" \
	'[.[] | select((.isr | index($a)) and (.isr | index($b)))][0].id')
[ "$pg" != null ] || fail "no placement group is on both"
kill_sheep 2
wait_until 20 says 1 "node $second"
expect_exit 6 collie 1 cluster force-recover "$pg"
grep -q "it serves" "$work/err" || fail "$(cat "$work/err")"
head -c 24M /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "$(uri 1 disk)"
kill_sheep 3
wait_until 20 says 1 "waiting for store ${third_store:0:8} on node $third"
collie 1 --json cluster health | jq -e --arg s "$third_store" --argjson pg "$pg" '.problems |
	any(.severity == "error" and .stores == [$s] and (.pgs | index($pg) != null))' >/dev/null ||
	fail "$(collie 1 --json cluster health)"
expect_exit 6 collie 1 cluster force-recover "$pg" --yes-lose-data
grep -q "no store that is up has anything of it" "$work/err" || fail "$(cat "$work/err")"
start_again 2
[ "$(collie 1 --json pg list | jq -r ".[] | select(.id == $pg) | .status")" = down ] ||
	fail "pg $pg serves what may be old"
expect_exit 1 collie 1 cluster force-recover "$pg"
grep -q "store ${third_store:0:8} (node $third, down) may still have all" "$work/err" || fail "$(cat "$work/err")"
grep -q "Believing store ${second_store:0:8}" "$work/err" || fail "$(cat "$work/err")"
expect_exit 5 collie 1 cluster force-recover 4000
expect_exit 6 collie 1 cluster force-recover "$pg" "${third_store:0:8}" --yes-lose-data

# The store that is needed comes back: nothing was lost.
start_again 3
wait_healthy 4
expect_same disk "$work/image"
expect_says 1 "nothing to report"

# Again, and this time it is given up for ever.
kill_sheep 2
wait_until 20 says 1 "node $second"
nbdcopy --flush "$work/image" "$(uri 1 disk)"
kill_sheep 3
wait_until 20 says 1 "waiting for store ${third_store:0:8}"
start_again 2
for i in $(collie 1 --json pg list | jq '.[] | select(.status == "down") | .id'); do
	collie 4 cluster force-recover "$i" --yes-lose-data
done
serves_all() { collie 1 --json cluster info | jq -e '.pgs.down == 0'; }
wait_until 30 serves_all
timeout 30 nbdcopy "$(uri 1 disk)" "$work/copy" || fail "what is left cannot be read"
expect_says 1 "for the record: an operator accepted loss"
[ "$(collie 1 --json pg list | jq ".[] | select(.id == $pg) | .forced")" = 1 ] || fail "forced"

# What was given up comes back: it is not believed, and all copies become what is served.
start_again 3
wait_healthy 4
nbdcopy "$(uri 1 disk)" "$work/image"
expect_same disk "$work/image"
expect_says 3 "for the record: an operator accepted loss"
collie 1 cluster shutdown
for i in 1 2 3 4; do wait_gone $i; done
