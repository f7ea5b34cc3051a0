#!/bin/bash
# A sheep that was away gets what it missed, and little more: at most 1.2 times the bytes of
# the distinct blocks that were written meanwhile, by the cluster's own counters.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq nbdcopy
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"

start_cluster 3
collie 1 vdi create disk 256M
head -c 256M /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "$(uri 1 disk)"
wait_healthy 3

# bytes that all sheep that are up have pushed since they started; not while one of them does not answer
ask_moved() {
	collie $other --json recovery info | jq -e 'select(.unknown_nodes == []) | .bytes_moved' >"$work/moved"
}
moved() {
	wait_until 20 ask_moved
	cat "$work/moved"
}
for victim in 2 3; do
	other=$((victim % 3 + 1))
	kill_sheep $victim
	before=$(moved)
	seconds=$([ -n "${SHEEPFOLD_LONG:-}" ] && echo 60 || echo 6)
	BLOCKS=65536 RATE=2000 COUNT=$((2000 * seconds)) $blocks write "$work/state" /nonexistent disk \
		"$work/nbd$other"
	written=$(jq '.acked | length' "$work/state")
	start_sheep $victim
	wait_until 30 sheep_is_up $victim
	wait_healthy 3
	after=$(moved)
	echo "sheep $victim: $written distinct blocks, $((after - before)) bytes pushed:" \
		"ratio $(((after - before) * 100 / (written * 4096))) %"
	[ $((after - before)) -gt 0 ] || fail "nothing was pushed: the counter does not count"
	[ $((after - before)) -le $((written * 4096 * 6 / 5)) ] || fail "too much was pushed"
	$blocks check "$work/state" disk "$work"/nbd[123]
done
