#!/bin/bash
# The disk under one store of three fails in all the ways that disks do, under load through three gateways: no
# client sees an error, or anything else than what was written.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/disks.sh"
requires jq filefrag
requires_disks ext4
requires_disks xfs
history="$python ${top_srcdir:?}/tests/functional/history.py"
store_size=800M
export BLOCKS=256 FLUSH_EVERY=50
victim=2

begin_load() {
	rm -f "$work/stop" "$work/history.progress"
	unset INITIAL
	! mv "$work/history.next" "$work/history.initial" 2>/dev/null || export INITIAL=$work/history.initial
	$history load "$work/history" "$work/stop" disk "$work"/nbd[123] >"$work/load.out" 2>&1 &
	load=$!
	background=($load)
	wait_until 30 has_acknowledged 500
}

# Some more is written, whatever has happened.
load_goes_on() {
	wait_until 30 has_acknowledged $(($(cat "$work/history.progress") + ${1:-1000}))
}

end_load() {
	touch "$work/stop"
	wait $load || { cat "$work/load.out"; fail "$fault: the load"; }
	background=()
	sed "s/^seed/$type, $fault: &/" "$work/load.out"
}

judge() {
	timeout 300 $history sweep "$work/history" disk "$work"/nbd[123] || fail "$fault: a sweep"
	timeout 300 $history check "$work/history" "$work/history.swept" || fail "$fault: not linearizable"
	timeout 300 $history next "$work/history" "$work/history.next"
}

store_has_failed() {
	collie 1 --json store list | jq -e --arg path "$(readlink -f "$work/store$victim")" \
		'any(.[]; .status == "failed")'
}

victim_returns() {
	local i
	faulty $victim release >/dev/null
	faulty $victim heal >/dev/null
	kill_sheep $victim
	remount_disk $victim
	start_sheep $victim
	for i in 1 2 3; do wait_until 60 sheep_is_up $i; done
	wait_healthy 3 >/dev/null
}

# What stops the store: its placement groups go on elsewhere, and it is filled again when it returns.
store_stops() { # COMMAND...
	fault="$*"
	begin_load
	faulty $victim "$@" >/dev/null
	wait_until 20 store_has_failed
	load_goes_on
	end_load
	victim_returns
	judge
}

# What reading finds: the store goes on, and what it cannot read comes from its peers.
reading_fails() { # COMMAND...
	local other before
	fault="$*"
	before=$(heals)
	begin_load
	"$@"
	load_goes_on 2000
	# It leads other placement groups, too.
	for other in 1 3; do
		kill_sheep $other
		load_goes_on 1000
		faulty $victim heal >/dev/null
		start_sheep $other
		wait_until 60 sheep_is_up $other
		wait_healthy 3 >/dev/null
	done
	end_load
	judge
	[ "$(heals)" -gt "$before" ] || fail "$fault: nothing was healed"
	victim_returns
	judge
}

heals() {
	grep -c 'checksum\|cannot be read\|damaged' "$work/sheep$victim.log" || true
}

# Its log so far, where the load's blocks are.
rot_everything() {
	local segment at length
	for segment in "$work/store$victim"/segment.*; do
		while read -r at length; do
			faulty $victim rot "$at" "$length" >/dev/null
		done < <(extents $victim "${segment##*/}")
	done
}

# Sectors that cannot be read any more, as a disk reports them: some of what was written last, and all of that is
# read before the load, which stands still meanwhile, writes it again. The segments of a new store are used in their order.
late_reads_fail() {
	local segment= each end at length
	kill -STOP $load
	for each in "$work/store$victim"/segment.*; do
		! cmp -s -n 4096 "$each" /dev/zero || break
		segment=$each
	done
	end=$($python -c "import sys; print(len(open(sys.argv[1], 'rb').read().rstrip(bytes(1))))" "$segment")
	[ "$end" -gt 1000000 ] || fail "the log has $end bytes only"
	read -r at length < <(extents $victim "${segment##*/}")
	[ "$length" -gt "$end" ] || fail "the log's segment is in pieces"
	faulty $victim fail read EIO $(((at + end - 320000) / 4096 * 4096)) 256K >/dev/null
	nbdcopy "$(uri 1 disk)" null: || fail "reading what one copy cannot read"
	kill -CONT $load
}

for type in ext4 ${SHEEPFOLD_LONG:+xfs}; do
	make_disk $victim $type
	start_cluster 3
	collie 1 vdi create disk 130M --set access=shared
	rm -f "$work"/history*
	reading_fails late_reads_fail
	reading_fails rot_everything
	for fault in "fail read EIO" "fail write EIO" "fail flush EIO" "fail write ENOSPC"; do
		store_stops $fault
	done
	for fault in "hang" "hang write" "hang flush"; do
		store_stops $fault
	done
	fault=slow
	begin_load
	faulty $victim delay 30000 >/dev/null
	load_goes_on
	faulty $victim heal >/dev/null
	load_goes_on
	end_load
	wait_healthy 3 >/dev/null
	judge
	for i in 1 2 3; do kill_sheep $i; done
	remove_disk $victim
	rm -rf "$work"/engine "$work"/run? "$work"/store?
done
