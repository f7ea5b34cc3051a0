#!/bin/bash
# The power of all sheep is cut at once under load, with their disks' caches: first of a cluster of one copy, then
# of three. What was flushed is there, and what is there was written, whole; gateways agree about it, and it
# stays. NOTES: 0 all of the notes on --runtime-dir are lost, 2 none, 3 by chance; else it differs from round to round.
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
export BLOCKS=256
types=(ext4 xfs)
hows=(random random none random all)
flushes=(10 40 100)

# The notes of some sheep are lost with the power: of all, of none, or of those that chance says.
lose_notes() { # SHEEP...
	local i
	notes=${NOTES:-$((RANDOM % 4))}
	for i; do
		case $notes in
		0 | 1) rm -f "$work/run$i"/*.note ;;
		2) ;;
		3) [ $((RANDOM % 2)) = 0 ] || rm -f "$work/run$i"/*.note ;;
		esac
	done
}

power_off_all() { # SHEEP...
	local i how cuts=()
	# One after the other within some milliseconds; who is killed later cannot acknowledge anything, as
	# its peers' disks do not answer.
	for i; do
		how=${hows[$((RANDOM % ${#hows[@]}))]}
		faulty "$i" cut "$how" $RANDOM "$work/survived$i" >"$work/cut$i" &
		cuts+=($!)
	done
	wait "${cuts[@]}" || fail "a disk is not cut"
	for i; do kill -KILL "${sheep_pid[$i]}"; done
	for i; do end_disk "$i"; done
}

# Each of them has what all of them served.
each_alone() { # SHEEP...
	local i other
	for i; do
		for other; do [ "$other" = "$i" ] || kill_sheep "$other"; done
		wait_until 30 serves_all "$i"
		timeout 300 $history sweep "$work/history.next" disk "$work/nbd$i" || fail "a sweep of sheep $i alone"
		timeout 300 $history check "$work/history.next" "$work/history.next.swept" || fail "sheep $i has something else"
		for other; do [ "$other" = "$i" ] || start_sheep "$other"; done
		for other; do wait_until 60 sheep_is_up "$other"; done
		wait_healthy $# >/dev/null
	done
}

round() { # SHEEP...
	local i sockets=("${@/#/$work/nbd}")
	rm -f "$work/stop" "$work/history.progress"
	unset INITIAL
	! mv "$work/history.next" "$work/history.initial" 2>/dev/null || export INITIAL=$work/history.initial
	FLUSH_EVERY=${flushes[$((RANDOM % 3))]} $history load "$work/history" "$work/stop" disk "${sockets[@]}" \
		>"$work/load.out" 2>&1 &
	load=$!
	background=($load)
	wait_until 30 has_acknowledged $((500 + RANDOM % 1500))
	power_off_all "$@"
	touch "$work/stop"
	wait $load || { cat "$work/load.out"; fail "the load"; }
	background=()
	for i; do power_on "$i"; done
	lose_notes "$@"
	for i; do start_sheep "$i"; done
	for i; do wait_until 60 sheep_is_up "$i"; done
	wait_healthy $# >/dev/null
	timeout 300 $history sweep "$work/history" disk "${sockets[@]}" || fail "a sweep"
	timeout 300 $history check "$work/history" || fail "not linearizable before the cut"
	timeout 300 $history survived "$work/history" "$work/history.next" || fail "what survived is wrong"
	[ $# = 1 ] || each_alone "$@"
	echo "round $round of $#: notes $notes: $(cat "$work"/cut? | tr '\n' ' ')"
	cat "$work/load.out"
}

rounds=$([ -n "${SHEEPFOLD_LONG:-}" ] && echo 50 || echo 3)
for copies in 1 3; do
	sheep=($(seq $copies))
	for i in "${sheep[@]}"; do make_disk "$i" "${types[$((i % 2))]}"; done
	start_cluster $copies --copies $copies --min-insync 1
	collie 1 vdi create disk 130M --set access=shared
	for ((round = 1; round <= rounds; round++)); do round "${sheep[@]}"; done
	for i in "${sheep[@]}"; do kill_sheep "$i"; done
	for i in "${sheep[@]}"; do remove_disk "$i"; done
	rm -rf "$work"/engine "$work"/run? "$work"/history*
done
