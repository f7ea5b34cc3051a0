# Helpers for tests of real daemons. Source it first:
#
#	. "${top_srcdir:?}/tests/functional/functions.sh"
#
# Every test has its own directory ($work), unix sockets in it, free ports, and a trap that
# kills what it started. Waits have deadlines; nothing sleeps for a fixed time to be "sure".
set -eu

PATH=$PATH:/sbin:/usr/sbin
sheep_bin=${top_builddir:?}/sheep/sheep
collie_bin=${top_builddir:?}/collie/collie
python=/usr/bin/python3

# Sanitized programs are several times slower.
patience=1
[ -z "${SHEEPFOLD_SANITIZED:-}" ] || patience=4

work=$(mktemp -d "${TMPDIR:-/tmp}/sheepfold.XXXXXX")
declare -A sheep_pid=() sheep_args=() sheep_enter=() sheep_network=()
background=()
# What else a test has to take down: functions that run before and after everything is killed.
before_kills=() after_kills=()

cleanup() {
	local rc=$? i pid
	trap - EXIT INT TERM
	set +e
	for i in "${before_kills[@]+"${before_kills[@]}"}"; do "$i"; done
	for pid in "${background[@]+"${background[@]}"}"; do
		kill -KILL "$pid" 2>/dev/null || true
	done
	for i in "${!sheep_pid[@]}"; do
		kill -CONT "${sheep_pid[$i]}" 2>/dev/null || true
		kill -KILL "${sheep_pid[$i]}" 2>/dev/null || true
	done
	for pid in "${background[@]+"${background[@]}"}" "${sheep_pid[@]+"${sheep_pid[@]}"}"; do
		wait "$pid" 2>/dev/null || true
	done
	for i in "${after_kills[@]+"${after_kills[@]}"}"; do "$i"; done
	if [ $rc != 0 ] && [ $rc != 77 ]; then
		for i in "$work"/sheep*.log; do
			[ -f "$i" ] || continue
			echo "--- ${i##*/}"
			tail -25 "$i"
		done
	fi
	# A sanitizer's report fails the test, whichever daemon made it and however well the rest went.
	if grep -lE 'ERROR: (Address|Leak)Sanitizer|runtime error:|Assertion .* failed' \
		"$work"/sheep*.log 2>/dev/null; then
		grep -hE -A25 'ERROR: (Address|Leak)Sanitizer|runtime error:|Assertion .* failed' \
			"$work"/sheep*.log | head -60
		[ $rc != 0 ] || rc=1
	fi
	if [ -z "${KEEP:-}" ]; then rm -rf --one-file-system "$work"; else echo "kept: $work"; fi
	exit $rc
}
trap cleanup EXIT INT TERM

fail() {
	reason="$*"
	echo "FAIL: $*" >&2
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

requires() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "$program is not installed"
	done
}

# How many rounds: LONG for tools/check --long, else a tenth, 2 at least.
rounds() {
	local n=$1
	[ -n "${SHEEPFOLD_LONG:-}" ] || n=$(($1 / 10))
	[ "$n" -ge 2 ] || n=2
	echo "$n"
}

# wait_until SECONDS COMMAND...: until it succeeds.
wait_until() {
	local end=$((SECONDS + $1 * patience))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "not within the deadline: $*"
		sleep 0.05
	done
}

# comes_to VALUE COMMAND...: it prints that soon: what one sheep changed another one shows a little later.
comes_to() {
	wait_until 10 prints "$@"
}
prints() {
	[ "$("${@:2}")" = "$1" ]
}

# expect_exit CODE COMMAND...: it exits with that code; its output is in $work/out and $work/err.
expect_exit() {
	local want=$1 rc=0
	shift
	"$@" >"$work/out" 2>"$work/err" || rc=$?
	[ $rc = "$want" ] || {
		cat "$work/out" "$work/err"
		fail "exit $rc, not $want: $*"
	}
}

# start_sheep N [OPTION...]: the Nth sheep, with one store of its own. Started again it keeps its options.
# sheep_enter[N] is a command that it is started by, sheep_network[N] where it listens for others (hosts.sh).
start_sheep() {
	local i=$1
	shift
	[ $# = 0 ] || sheep_args[$i]="$*"
	# shellcheck disable=SC2086 # options are words
	${sheep_enter[$i]:-} "$sheep_bin" -c "${engine:-local:$work/engine}" \
		${sheep_network[$i]:--p 127.0.0.1:0} -n "unix:$work/nbd$i" \
		-a "unix:$work/admin$i" -z "zone$i" --store-size "${store_size:-2G}" \
		--runtime-dir "$work/run$i" --io "${SHEEPFOLD_IO:-auto}" ${sheep_args[$i]:-} "$work/store$i" \
		>>"$work/sheep$i.log" 2>&1 </dev/null &
	sheep_pid[$i]=$!
}

sheep_is_up() {
	kill -0 "${sheep_pid[$1]}" 2>/dev/null && collie "$1" cluster info
}

# kill_sheep N [SIGNAL]: and wait until it has gone.
kill_sheep() {
	kill -"${2:-KILL}" "${sheep_pid[$1]}"
	wait_gone "$1"
}

wait_gone() {
	local end=$((SECONDS + 30 * patience)) pid=${sheep_pid[$1]}
	while kill -0 "$pid" 2>/dev/null; do
		[ $SECONDS -lt $end ] || fail "sheep $1 does not stop"
		sleep 0.02
	done
	sheep_rc=0
	wait "$pid" 2>/dev/null || sheep_rc=$?
	unset "sheep_pid[$1]"
}

# collie N ARG...: through the Nth sheep.
collie() {
	local i=$1
	shift
	"$collie_bin" -s "unix:$work/admin$i" "$@"
}

# start_cluster N [FORMAT-OPTION...]: N sheep, formatted and healthy.
start_cluster() {
	local n=$1 i
	shift
	for ((i = 1; i <= n; i++)); do start_sheep "$i"; done
	for ((i = 1; i <= n; i++)); do wait_until 20 sheep_is_up "$i"; done
	collie 1 cluster format --wait-nodes "$n" "$@"
	wait_healthy "$n"
}

# wait_healthy NODES [SECONDS]
wait_healthy() {
	local i
	for i in "${!sheep_pid[@]}"; do
		collie "$i" --timeout $((${2:-60} * patience)) cluster wait --status healthy --nodes "$1" || {
			collie "$i" cluster info || true
			collie "$i" pg list --not-clean | head -20 || true
			fail "not healthy as sheep $i sees it"
		}
	done
}

# serves_all N: every placement group has a primary, as sheep N sees it.
serves_all() {
	collie "$1" --json cluster info | jq -e '.pgs.down == 0'
}

# uri N EXPORT
uri() {
	echo "nbd+unix:///$2?socket=$work/nbd$1"
}

# volume_digest N EXPORT: the SHA-256 of all its bytes.
volume_digest() {
	nbdcopy "$(uri "$1" "$2")" - | sha256sum | cut -d' ' -f1
}

# expect_same EXPORT FILE: it reads the same through every running sheep.
expect_same() {
	local want i got
	want=$(sha256sum <"$2" | cut -d' ' -f1)
	for i in "${!sheep_pid[@]}"; do
		got=$(volume_digest "$i" "$1")
		[ "$got" = "$want" ] || fail "'$1' differs through sheep $i"
	done
}

# has_written COUNT: the writer of blocks.py with $work/state has so many acknowledged.
has_written() {
	[ "$(cat "$work/state.progress" 2>/dev/null || echo 0)" -ge "$1" ]
}

# has_acknowledged COUNT: the same of history.py with $work/history.
has_acknowledged() {
	[ "$(cat "$work/history.progress" 2>/dev/null || echo 0)" -ge "$1" ]
}
