#!/bin/bash
# Who may write: a volume with access=single moves with its writer from gateway to gateway, old connections
# are refused and closed, and a volume that is shared is written through both at once.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq
owner="$python ${top_srcdir:?}/tests/functional/ownership.py"

# begin WHAT: in the background; say() goes on behind its next word.
begin() {
	rm -f "$work/say"
	mkfifo "$work/say"
	timeout $((120 * patience)) $owner "$1" "$work/nbd1" "$work/nbd2" ${2:-disk} <"$work/say" \
		>"$work/said" 2>&1 &
	client=$!
	background=($client)
	exec 9>"$work/say"
}
said() { wait_until 40 grep -q "$1" "$work/said"; }
say() { echo >&9; }
finish() {
	exec 9>&-
	wait $client || { cat "$work/said"; fail "$1"; }
	background=()
	tail -1 "$work/said"
}

start_cluster 3 --min-insync 2
collie 1 vdi create disk 16M
[ "$(collie 1 --json vdi info disk | jq -r .access)" = single ] || fail "not single by default"
timeout $((60 * patience)) $owner migrate "$work/nbd1" "$work/nbd2"
timeout $((60 * patience)) $owner ping_pong "$work/nbd1" "$work/nbd2"

collie 3 vdi set disk access shared >/dev/null
begin shared
said "both write"
collie 3 vdi set disk access single >/dev/null
say
finish "shared, then single"

# A gateway in use keeps a volume from being deleted, and is named.
begin fail_over
said owned
expect_exit 6 collie 1 vdi delete disk
grep -q "open at [1-9] gateways, one is 127.0.0.1:" "$work/out" "$work/err" || {
	cat "$work/out" "$work/err"
	fail "it does not say who has it open"
}
kill_sheep 2
say
finish "fail-over"
start_sheep 2
wait_until 30 sheep_is_up 2
wait_healthy 3

# With one copy of three nothing is acknowledged; the client need not wait for ever.
collie 1 cluster set request_timeout 2s
begin timeout
said ready
kill_sheep 2
kill_sheep 3
say
said EIO
start_sheep 2
start_sheep 3
say
finish "request_timeout"
wait_healthy 3
