#!/bin/bash
# The power of one sheep of three is cut under load, with its disk's cache: what it had not synced is gone, in
# part and torn. The others go on, no client of theirs sees an error, and when it is back it holds
# what everybody else does: in the end of each round it serves alone.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/disks.sh"
requires jq
requires_disks ext4
requires_disks xfs
history="$python ${top_srcdir:?}/tests/functional/history.py"
seed=${SEED:-$RANDOM}
echo "seed $seed"
RANDOM=$((seed % 32768))

store_size=800M
types=(ext4 xfs ext4 xfs)
for i in 1 2 3; do make_disk $i "${types[$i]}"; done
start_cluster 3 --min-insync 1
collie 1 vdi create disk 130M --set access=shared
export BLOCKS=256
flushes=(10 1000 100)
hows=(random random none random all random)

# Everything through one gateway, and is it what the history allows?
judge() { # SOCKET...
	timeout 300 $history sweep "$work/history" disk "$@" || fail "round $round: a sweep"
	timeout 300 $history check "$work/history" "$work/history.swept" || fail "round $round: not linearizable"
}

rounds=$([ -n "${SHEEPFOLD_LONG:-}" ] && echo 50 || echo 3)
unset INITIAL
for ((round = 1; round <= rounds; round++)); do
	victim=$((round % 3 + 1))
	note=$([ $((RANDOM % 2)) = 0 ] && echo kept || echo lost)
	[ "$rounds" -gt 3 ] || note=$([ $round = 2 ] && echo kept || echo lost)
	rm -f "$work/stop" "$work/history.progress"
	mv "$work/history.next" "$work/history.initial" 2>/dev/null && export INITIAL=$work/history.initial
	FLUSH_EVERY=${flushes[$((RANDOM % 3))]} $history load "$work/history" "$work/stop" disk "$work"/nbd[123] >"$work/load.out" 2>&1 &
	load=$!
	background=($load)
	wait_until 30 has_acknowledged $((200 + RANDOM % 1500))
	cut_disk $victim "${hows[$((round % ${#hows[@]}))]}" $RANDOM >"$work/cut.out"
	[ $note = kept ] || rm -f "$work/run$victim"/*.note
	lines=$(wc -l <"$work/sheep$victim.log")
	start_sheep $victim
	wait_until 60 sheep_is_up $victim
	verdict=$(tail -n +$((lines + 1)) "$work/sheep$victim.log" | sed -n "s/.*store$victim': \(.*\): its copies.*/\1/p")
	# A kept note is of this boot: only a log that does not reach it shows what was lost.
	case "$note: $verdict" in
	kept:\ | "kept: its log does not reach"* | "lost: was not stopped cleanly, and no note"*) ;;
	*) fail "round $round: note $note, and the store says '$verdict'" ;;
	esac
	wait_until 30 has_acknowledged $(($(cat "$work/history.progress") + 300))
	touch "$work/stop"
	wait $load || { cat "$work/load.out"; fail "round $round: the load"; }
	background=()
	wait_healthy 3 >/dev/null
	judge "$work"/nbd[123]
	# It alone, from what is on its disk.
	for i in 1 2 3; do [ $i = $victim ] || kill_sheep $i; done
	wait_until 30 serves_all $victim
	judge "$work/nbd$victim"
	for i in 1 2 3; do [ $i = $victim ] || start_sheep $i; done
	for i in 1 2 3; do wait_until 60 sheep_is_up $i; done
	wait_healthy 3 >/dev/null
	echo "round $round: sheep $victim (${disk_type[$victim]}), ${hows[$((round % ${#hows[@]}))]} survives, note $note: $(cat "$work/cut.out"); ${verdict:-clean}"
	cat "$work/load.out"
	timeout 300 $history next "$work/history" "$work/history.next"
done
