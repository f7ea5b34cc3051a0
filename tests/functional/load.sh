# Verified I/O through several gateways while something happens to the cluster (history.py). Source it after
# functions.sh:
#
#	load_begin 1 3			# clients of sheep 1 and 3 read and write the volume "disk"
#	...; goes_on 1; is_silent 3	# judged by what is answered
#	load_end			# no error, nothing unanswered, linearizable; swept through all sheep
history="$python ${top_srcdir:?}/tests/functional/history.py"
export BLOCKS=${BLOCKS:-256}

load_begin() { # GATEWAY...
	local i sockets=()
	gateways=("$@")
	for i; do sockets+=("$work/nbd$i"); done
	rm -f "$work/stop" "$work/history.progress" "$work/history.answered"
	unset INITIAL
	! mv "$work/history.next" "$work/history.initial" 2>/dev/null || export INITIAL=$work/history.initial
	DEPTH=4 RATE=${RATE:-150} FLUSH_EVERY=50 DEADLINE=$((30 * patience)) \
		$history load "$work/history" "$work/stop" disk "${sockets[@]}" >"$work/load.out" 2>&1 &
	load=$!
	background=($load)
	for i; do goes_on "$i"; done
}

# answered GATEWAY: how many requests; the clients of a gateway that answers send up to RATE a second each.
answered() {
	sed -n "s/^nbd$1 //p" "$work/history.answered" 2>/dev/null || true
}
has_answered() { # GATEWAY COUNT
	local now
	now=$(answered "$1")
	[ "${now:-0}" -ge "$2" ]
}

# goes_on GATEWAY [SECONDS]: what it has been asked for up to now is answered, and much more.
goes_on() {
	local before
	before=$(answered "$1")
	wait_until "${2:-30}" has_answered "$1" $((${before:-0} + 150))
}

# healthy_again HOSTS WHAT: it comes back by itself, for every gateway of the load.
healthy_again() {
	local i
	wait_healthy "$1" >"$work/out"
	for i in "${gateways[@]}"; do goes_on "$i"; done
	echo "$SECONDS s: $2: well again"
}

# is_silent GATEWAY: nothing is answered there for a second. Silence has no event that could be waited for: it is time
# in which nothing comes, and what is answered is written down ten times a second.
is_silent() {
	local before
	before=$(answered "$1")
	sleep 1.2
	[ "$(answered "$1")" = "$before" ]
}

load_end() {
	touch "$work/stop"
	wait $load || { cat "$work/load.out"; fail "the load"; }
	background=()
	cat "$work/load.out"
	load_check
}

# Everything is read once more through every sheep that runs, and judged with the rest.
load_check() {
	local i sockets=()
	for i in "${!sheep_pid[@]}"; do sockets+=("$work/nbd$i"); done
	timeout $((120 * patience)) $history sweep "$work/history" disk "${sockets[@]}" || fail "a sweep"
	timeout $((120 * patience)) $history check "$work/history" "$work/history.swept" ||
		fail "not linearizable"
	timeout $((120 * patience)) $history next "$work/history" "$work/history.next"
}
