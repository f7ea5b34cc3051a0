#!/bin/bash
# A sheep with several stores, alone and beside others: copies on different stores, more stores
# put in front of the old ones, and primaries that move between stores of one process.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy jq

# start_with STORE...: the only sheep, with these stores.
start_with() {
	local stores=("$@")
	"$sheep_bin" -c "local:$work/engine" -p 127.0.0.1:0 -n "unix:$work/nbd1" \
		-a "unix:$work/admin1" --store-size 2G --runtime-dir "$work/run1" ${loops:-} \
		"${stores[@]/#/$work/}" >>"$work/sheep1.log" 2>&1 </dev/null &
	sheep_pid[1]=$!
	wait_until 20 sheep_is_up 1
}
for loops in "" "--loops 2"; do
	start_with s1 s2
	collie 1 cluster format --copies 2 --pgs 64
	wait_healthy 1
	collie 1 vdi create disk 64M
	head -c 64M /dev/urandom >"$work/image"
	nbdcopy --flush "$work/image" "$(uri 1 disk)"
	collie 1 --json pg list | jq -e 'all(.[]; (.isr | unique | length) == 2)' >/dev/null ||
		fail "two copies on one store"
	collie 1 cluster shutdown
	wait_gone 1
	[ "$sheep_rc" = 0 ] || fail "exit $sheep_rc"

	# Two more, in front: what moves to them is led by another store of the same process.
	start_with s3 s4 s1 s2
	wait_healthy 1 90
	wait_until 60 eval "collie 1 --json pg list | jq -e '[.[].isr[]] | unique | length == 4'"
	expect_same disk "$work/image"
	kill_sheep 1
	start_with s4 s2 s1 s3
	wait_healthy 1
	expect_same disk "$work/image"
	kill_sheep 1 TERM
	rm -rf "$work"/s? "$work/engine" "$work/run1"
done
