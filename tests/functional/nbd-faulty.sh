#!/bin/bash
# The tools of the fault tests do what those tests trust them to do: the disk that fails on command, and the
# judge of histories.
. "${top_srcdir:?}/tests/functional/functions.sh"
"$python" -c 'import nbd' 2>/dev/null || skip "python3 has no libnbd"
server=${top_builddir:?}/tests/functional/nbd_faulty
here=${top_srcdir:?}/tests/functional

timeout $((60 * patience)) "$python" "$here/history.py" selftest
"$server" "unix:$work/medium" "$work/control" 4M >"$work/server" 2>"$work/sheep-nbd.log" &
pid=$!
background=("$pid")
wait_until 10 grep -q '^listening' "$work/server"
timeout $((60 * patience)) "$python" "$here/faulty_disk.py" "$work/medium" "$work/control" "$server" "$work" ||
	fail "the disk that fails on command"
kill -TERM "$pid"
wait "$pid" || fail "the server ended with $?"

# It begins with what an image holds.
"$server" "unix:$work/medium" "$work/control" 4M "$work/image" >"$work/server" 2>"$work/sheep-nbd.log" &
background=("$!")
wait_until 10 grep -q '^listening' "$work/server"
nbdcopy "nbd+unix:///disk?socket=$work/medium" "$work/back"
cmp "$work/image" "$work/back" || fail "the image has changed"
