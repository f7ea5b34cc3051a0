#!/bin/bash
# All three are killed with -9 at once under random writes and started again: every
# acknowledged write is read back through every gateway.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"

start_cluster 3
rounds=$(rounds 10)
for ((round = 1; round <= rounds; round++)); do
	collie 1 vdi create "disk$round" 16M
	rm -f "$work/stop" "$work/state.progress"
	DEADLINE=$((60 * patience)) $blocks write "$work/state" "$work/stop" "disk$round" \
		"$work/nbd$((round % 3 + 1))" >"$work/writer.out" 2>&1 &
	writer=$!
	background=($writer)
	wait_until 20 has_written 1000
	kill -KILL "${sheep_pid[1]}" "${sheep_pid[2]}" "${sheep_pid[3]}"
	for i in 1 2 3; do wait_gone $i; done
	for i in 1 2 3; do start_sheep $i; done
	for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
	wait_healthy 3
	touch "$work/stop"
	wait $writer || { cat "$work/writer.out"; fail "round $round: the writer"; }
	background=()
	$blocks check "$work/state" "disk$round" "$work"/nbd[123] || fail "round $round: writes were lost"
	echo "round $round: $(cat "$work/writer.out")"
done
