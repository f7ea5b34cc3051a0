#!/bin/bash
# The conformance tables of docs/protocol/nbd.md: every row names a test, and the test exists.
set -eu
cd "${top_srcdir:-$(dirname "$0")/../..}"
bad=0 n=0
while read -r line; do
	name=$(sed -n 's/.*`\([a-z0-9_]*\)` |$/\1/p' <<<"$line")
	if [ -z "$name" ]; then
		echo "no test: $line"
		bad=1
	elif ! grep -qE "cmocka_unit_test\(\s*$name\)" tests/unit/test_nbd_*.c &&
		! grep -qE -A1 'cmocka_unit_test\($' tests/unit/test_nbd_*.c | grep -q "$name" &&
		[ ! -e "tests/fuzz/$name.c" ]; then
		echo "no such test: $name"
		bad=1
	fi
	n=$((n + 1))
done < <(grep '^|' docs/protocol/nbd.md | grep -vE '^\|(---|.* (Shown by) \|$)')
[ $n -gt 30 ] || { echo "only $n rows seen: the check is broken"; exit 1; }
# What a client can ask for is a row, not a case.
if grep -nw switch lib/nbd/*.c; then
	echo "lib/nbd dispatches by tables"
	bad=1
fi
exit $bad
