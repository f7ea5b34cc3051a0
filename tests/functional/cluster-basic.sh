#!/bin/bash
# The whole way once: format, volumes, real NBD clients, exit codes, clean stop, restart.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy nbdinfo jq

# A change that comes before the sheep is registered waits for that.
start_sheep 1
wait_until 20 test -S "$work/admin1"
expect_exit 1 collie 1 cluster format # one store for three copies; not "not registered"
grep -q "store" "$work/err" || fail "$(cat "$work/err")"
kill_sheep 1 TERM
start_cluster 3
[ "$(collie 1 --json cluster info | jq -r .status)" = healthy ] || fail "status"
[ "$(collie 2 --json node list | jq '[.[] | select(.status == "up")] | length')" = 3 ] || fail "nodes"
[ "$(collie 3 --json store list | jq length)" = 3 ] || fail "stores"
collie 1 --json pg list | jq -e 'all(.[]; (.isr | length) == 3 and .primary != null)' >/dev/null ||
	fail "PGs"

# Volumes and what is refused.
collie 1 vdi create disk 96M
expect_exit 3 collie 2 vdi create disk 1G
expect_exit 64 collie 2 vdi create
expect_exit 1 collie 2 vdi create bad 1000
expect_exit 1 collie 2 vdi create 'a@b' 1G
expect_exit 5 collie 2 vdi info nothing
expect_exit 5 collie 2 vdi delete nothing
expect_exit 2 "$collie_bin" -s "unix:$work/nobody" cluster info
expect_exit 3 collie 1 cluster format
[ "$(collie 3 --json vdi list | jq -r '.[0].name')" = disk ] || fail "vdi list"
[ "$(collie 3 --json vdi info disk | jq -r .size)" = $((96 << 20)) ] || fail "vdi info"

# Bytes in through one gateway, out through each.
head -c 96M /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "$(uri 1 disk)"
expect_same disk "$work/image"
nbdinfo --list "$(uri 2 '')" | grep -q 'export="disk"' || fail "the export is not listed"
expect_exit 1 nbdinfo "$(uri 2 nothing)"

# Odd offsets and lengths, zeroes and trims, against a plain file.
"$python" "${top_srcdir:?}/tests/functional/odd-requests.py" "nbd+unix:///disk?socket=$work/nbd2" \
	"$work/image" "${SHEEPFOLD_SANITIZED:+200}"
expect_same disk "$work/image"

# A volume in use is not deleted; one that is not is.
collie 1 vdi create other 10M
mkfifo "$work/hold"
"$python" -c '
import nbd, sys
h = nbd.NBD(); h.connect_uri(sys.argv[1]); print("open", flush=True); sys.stdin.read()
' "$(uri 3 other)" <"$work/hold" >"$work/held" &
background+=($!)
exec 9>"$work/hold"
wait_until 10 grep -q open "$work/held"
expect_exit 6 collie 1 vdi delete other
collie 2 --json vdi info other | jq -e '.opened_by | length == 1' >/dev/null || fail "opened_by"
exec 9>&-
wait_until 30 collie 1 vdi delete other
expect_exit 5 collie 2 vdi info other

# A clean stop of all, and a start again: everything is there.
collie 2 cluster shutdown
for i in 1 2 3; do
	wait_gone $i
	[ "$sheep_rc" = 0 ] || fail "sheep $i exited with $sheep_rc"
done
for i in 1 2 3; do start_sheep $i; done
for i in 1 2 3; do wait_until 20 sheep_is_up $i; done
wait_healthy 3
expect_same disk "$work/image"
