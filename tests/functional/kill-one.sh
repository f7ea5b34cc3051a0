#!/bin/bash
# Each sheep in turn is killed with -9 under verified random writes, and returns. The client on
# another gateway sees no error; the one on the killed gateway goes on elsewhere and loses nothing.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires fio nbdcopy jq
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"

start_cluster 3
collie 1 vdi create disk 64M
collie 1 vdi create other 64M

rounds=$(rounds 20)
for ((round = 1; round <= rounds; round++)); do
	victim=$(((round - 1) % 3 + 1))
	other=$((victim % 3 + 1))
	third=$((other % 3 + 1))
	rm -f "$work/stop" "$work/state.progress"
	fio --name=verified --ioengine=nbd --uri="$(uri $other disk)" --rw=randwrite --bs=4k \
		--iodepth=16 --size=64M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --do_verify=1 \
		--rate_iops=4000 --randseed=$round --output="$work/fio.out" &
	fio=$!
	$blocks write "$work/state" "$work/stop" other "$work/nbd$victim" "$work/nbd$other" \
		"$work/nbd$third" >"$work/writer.out" 2>&1 &
	writer=$!
	background=($fio $writer)
	# Kill when I/O really runs; away until others have written what it will miss.
	wait_until 20 has_written 500
	kill_sheep $victim
	before=$(cat "$work/state.progress")
	wait_until 20 has_written $((before + 2000))
	start_sheep $victim
	wait_until 30 sheep_is_up $victim
	touch "$work/stop"
	wait $writer || { cat "$work/writer.out"; fail "round $round: the writer"; }
	wait $fio || { cat "$work/fio.out"; fail "round $round: fio"; }
	background=()
	wait_healthy 3
	$blocks check "$work/state" other "$work"/nbd[123] || fail "round $round: writes were lost"
	collie 1 vdi delete other 2>/dev/null || wait_until 20 collie 1 vdi delete other
	collie 1 vdi create other 64M
	echo "round $round: sheep $victim: $(cat "$work/writer.out")"
done
