#!/bin/bash
# Storms: sheep are killed, stopped and continued, and restarted, one, two or all at once and at random, under the
# load of many clients of three gateways. Whatever they saw is explained by one order of all they did.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/disks.sh"
requires jq
history="$python ${top_srcdir:?}/tests/functional/history.py"
seed=${SEED:-$RANDOM}
echo "seed $seed"
RANDOM=$((seed % 32768))
export BLOCKS=256

random() { # BELOW
	echo $((RANDOM % $1))
}

# Some of the three, in any order.
pick() { # COUNT
	local all=(1 2 3) at
	who=()
	while [ ${#who[@]} -lt "$1" ]; do
		at=$(random ${#all[@]})
		who+=("${all[$at]}")
		unset "all[$at]"
		all=("${all[@]}")
	done
}

# Milliseconds in which something may happen.
pass() {
	sleep "$(printf '0.%03d' "$1")"
}

restart() { # SHEEP...
	local i
	for i; do start_sheep "$i"; done
	for i; do wait_until 60 sheep_is_up "$i"; done
}

kill_some() { # SHEEP...
	local i
	for i; do kill -KILL "${sheep_pid[$i]}"; done
	for i; do wait_gone "$i"; done
	pass "$(random 400)"
	restart "$@"
}

stop_some() { # SHEEP...
	local i
	for i; do kill -STOP "${sheep_pid[$i]}"; done
	pass "$(random 1000)"
	for i; do kill -CONT "${sheep_pid[$i]}"; done
}

# Stopped for so long that others take over, and back while they do.
stop_long() { # SHEEP...
	local i
	for i; do kill -STOP "${sheep_pid[$i]}"; done
	sleep "$((1 + RANDOM % 3)).$(random 10)"
	for i; do kill -CONT "${sheep_pid[$i]}"; done
}

restart_some() { # SHEEP...
	local i
	for i; do kill -TERM "${sheep_pid[$i]}"; done
	for i; do wait_gone "$i"; done
	restart "$@"
}

# Stopped, and killed before it could see what it missed.
stop_and_kill() { # SHEEP...
	local i
	for i; do kill -STOP "${sheep_pid[$i]}"; done
	pass "$(random 1000)"
	for i; do kill -KILL "${sheep_pid[$i]}"; done
	for i; do wait_gone "$i"; done
	restart "$@"
}

kinds=(kill_some kill_some kill_some stop_some stop_long restart_some stop_and_kill)
# One store on a disk that is slower than the others': what it has in flight when somebody dies is then much.
store_size=800M
slow=
if (requires_disks ext4) >/dev/null; then
	slow=2
	make_disk $slow ext4
fi
start_cluster 3 >"$work/out"
collie 1 vdi create disk 130M --set access=shared >"$work/out"
rounds=$(rounds 60)
for ((round = 1; round <= rounds; round++)); do
	rm -f "$work/stop" "$work/history.progress"
	unset INITIAL
	! mv "$work/history.next" "$work/history.initial" 2>/dev/null || export INITIAL=$work/history.initial
	DEPTH=$((1 + RANDOM % 8)) READS=$((20 + RANDOM % 60)) FLUSH_EVERY=$((RANDOM % 3 * 50)) DEADLINE=$((30 * patience)) \
		$history load "$work/history" "$work/stop" disk "$work"/nbd[123] >"$work/load.out" 2>&1 &
	load=$!
	background=($load)
	[ -z "$slow" ] || faulty $slow delay $((RANDOM % 3 * RANDOM % 4000)) >"$work/out"
	wait_until 30 has_acknowledged 100
	events=
	for ((event = 0; event < 4; event++)); do
		kind=${kinds[$(random ${#kinds[@]})]}
		pick $((1 + $(random 6) / 4 + $(random 6) / 5))
		events="$events $kind ${who[*]},"
		$kind "${who[@]}"
		pass "$(random 500)"
	done
	wait_until 60 has_acknowledged $(($(cat "$work/history.progress") + 200))
	touch "$work/stop"
	wait $load || { cat "$work/load.out"; fail "round $round:$events the load"; }
	background=()
	wait_healthy 3 >/dev/null
	timeout 300 $history sweep "$work/history" disk "$work"/nbd[123] || fail "round $round:$events a sweep"
	timeout 300 $history check "$work/history" "$work/history.swept" || fail "round $round:$events not linearizable"
	timeout 300 $history next "$work/history" "$work/history.next"
	echo "round $round:$events"
	cat "$work/load.out"
done
