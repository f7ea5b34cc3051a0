#!/bin/bash
# docs/protocol/cluster-log.md has a row for every type of include/proto/log.h, with its number, and
# says of each what the code's table says.
set -eu
cd "${top_srcdir:-$(dirname "$0")/../..}"
bad=0 n=0
# The table of apply.c as "NAME: text", one line each.
rows=$(tr -d '\n\t' <sheep/cluster/apply.c | sed 's/ROW(/\nROW(/g; s/""//g' |
	sed -nE 's/^ROW\(([A-Z_]+),[^"]*"([^"]*)"( *"([^"]*)")?.*/\1: \2\4/p')
while read -r name number; do
	row=$(grep -F "| $number | \`$name\` |" docs/protocol/cluster-log.md || true)
	when=$(sed -n "s/^$name: //p" <<<"$rows")
	if [ -z "$row" ] || [ -z "$when" ] || [[ $row != *"| $when |" ]]; then
		echo "$name ($number): no row that says '$when'"
		bad=1
	fi
	n=$((n + 1))
done < <(sed -nE 's/^\s*X\(([A-Z_]+), ([0-9]+)\).*/\1 \2/p' include/proto/log.h)
[ $n -gt 25 ] || { echo "only $n types seen: the check is broken"; exit 1; }
exit $bad
