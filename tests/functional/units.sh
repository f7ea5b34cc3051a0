#!/bin/bash
# What a packager installs is right: systemd takes sheep.service as it is made here, and a sheep takes the sample
# sheep.conf (its addresses and directories are replaced on the command line; every line is read all the same).
. "${top_srcdir:?}/tests/functional/functions.sh"
requires systemd-analyze

unit=$top_builddir/etc/sheep.service
[ -e "$unit" ] || fail "$unit is missing"
! grep '@' "$unit" || fail "something was not replaced"
program=$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' "$unit")
sed "s|^ExecStart=[^ ]*|ExecStart=$(realpath "$sheep_bin")|" "$unit" >"$work/sheep.service"
[ "$program" ] && ! cmp -s "$unit" "$work/sheep.service" || fail "ExecStart"
# It also complains about units of this machine that have nothing to do with ours.
SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$work/sheep.service" >"$work/verify" 2>&1 || true
! grep -F sheep.service "$work/verify" || fail "systemd does not like it"
# That verify does find mistakes:
sed 's/^TimeoutStopSec=.*/TimeoutStopSec=never/' "$work/sheep.service" >"$work/wrong.service"
systemd-analyze verify --man=no "$work/wrong.service" 2>&1 | grep -q wrong.service || fail "verify finds nothing"

start_sheep 1 --config "$top_srcdir/etc/sheep.conf"
wait_until 20 sheep_is_up 1
collie 1 cluster format --copies 1
wait_healthy 1
kill_sheep 1 TERM
[ "$sheep_rc" = 0 ] || fail "exit $sheep_rc"
{ cat "$top_srcdir/etc/sheep.conf" && echo "colour = green"; } >"$work/wrong.conf"
expect_exit 64 "$sheep_bin" --config "$work/wrong.conf"
grep -q colour "$work/err" || fail "$(cat "$work/err")"
