#!/bin/bash
# Each sheep in turn is stopped (SIGSTOP) for 5 s under writes through another gateway: it is the primary of some
# groups and a member of the rest. No error, and the moment it goes on nothing old is read through it. Prints the
# longest stalls; they are bounded in the simulator (test_pg_lease), where time is not shared with others.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq

victim=0
resume() { [ "$victim" = 0 ] || kill -CONT "${sheep_pid[$victim]:-0}" 2>/dev/null || true; }
before_kills+=(resume)

start_cluster 3
collie 1 vdi create disk 64M

rounds=$(rounds 3)
for ((round = 1; round <= rounds; round++)); do
	victim=$(((round - 1) % 3 + 1))
	other=$((victim % 3 + 1))
	timeout $((90 * patience)) "$python" "${top_srcdir:?}/tests/functional/pause.py" disk \
		"${sheep_pid[$victim]}" 5 "$work/nbd$victim" "$work/nbd$other" >"$work/pause.out" 2>&1 || {
		cat "$work/pause.out"
		fail "round $round: sheep $victim was stopped"
	}
	echo "round $round: sheep $victim stopped for 5 s: $(cat "$work/pause.out")"
	wait_healthy 3
done
