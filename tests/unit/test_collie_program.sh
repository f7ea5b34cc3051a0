#!/bin/bash
# The program as it is built, with its exit codes and streams, and completion in a real bash: words
# with ":" and "=" in them.
set -u
collie_dir=${top_builddir:?}/collie
. "${top_srcdir:?}/collie/completion/collie"
PATH=$collie_dir:$PATH
failed=0
# Not a sheep that happens to run on this machine.
export COLLIE_SHEEP=unix:/nobody/here

expect() { # LINE WORD...
	COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
	shift
	_collie
	[ "${COMPREPLY[*]}" = "$*" ] || {
		echo "'$COMP_LINE' gives '${COMPREPLY[*]}', not '$*'"
		failed=1
	}
}
expect "collie " cluster node store pg vdi recovery help
expect "collie v" vdi
expect "collie -s unix:/nobody/here vdi d" delete
expect "collie --timeout=5 cluster wait --status he" healthy
expect "collie cluster format --w" --wait-nodes
expect "collie help pg " list
expect "collie vdi info " # nobody to ask

exits() { # CODE COMMAND...
	local want=$1 rc=0
	shift
	"$@" >/dev/null 2>&1 || rc=$?
	[ $rc = "$want" ] || {
		echo "exit $rc, not $want: $*"
		failed=1
	}
}
exits 0 collie help
exits 64 collie
exits 64 collie vdi create x
exits 2 collie -s unix:/nobody/here vdi list
exits 2 env COLLIE_SHEEP=unix:/nobody/here collie vdi list
exits 64 env COLLIE_SHEEP=nonsense collie vdi list
exits 2 bash -c 'collie help >/dev/full'

# A reader that goes away is no error, and no signal.
collie help | true
[ "${PIPESTATUS[0]}" = 0 ] || { echo "a closed pipe gives ${PIPESTATUS[0]}"; failed=1; }

# Nothing but the one line on standard error.
lines=$(collie -s unix:/nobody/here vdi list 2>&1 >/dev/null | wc -l)
[ "$lines" = 1 ] || { echo "$lines lines on standard error"; failed=1; }
exit $failed
