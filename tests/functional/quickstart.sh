#!/bin/bash
# The demonstration of the README, twice: the second run finds the first one's cluster running.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy qemu-nbd mke2fs

export SHEEPFOLD_BUILD=$top_builddir SHEEPFOLD_DEMO=$work/demo
quickstart=$top_srcdir/tools/quickstart
trap '"$quickstart" stop >/dev/null 2>&1 || true; cleanup' EXIT INT TERM
for round in 1 2; do
	timeout $((300 * patience)) "$quickstart" >"$work/out" 2>&1 </dev/null || {
		cat "$work/out"
		fail "round $round"
	}
	[ "$(grep -c 'the same bit for bit, e2fsck -f finds nothing' "$work/out")" = 3 ] ||
		fail "not all gateways were compared"
	# It is left running, as it says.
	"$collie_bin" -s "unix:$work/demo/admin2" --json cluster info | jq -e '.status == "healthy"' \
		>/dev/null || fail "not left running"
done
"$quickstart" stop
[ ! -e "$work/demo" ] || fail "something is left after stop"
