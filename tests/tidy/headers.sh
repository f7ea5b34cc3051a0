#!/bin/bash
# Each header compiles alone.
set -eu
src=$(cd "${top_srcdir:-$(dirname "$0")/../..}" && pwd)
cd "${top_builddir:?}"
n=0
while read -r header; do
	printf '#include "%s"\n' "$header" |
		${CC:-cc} -std=gnu11 -D_GNU_SOURCE -Wall -Werror -Wno-unused-function \
			-I"$src" -I. -include config.h \
			-fsyntax-only -x c - || { echo "$header does not compile alone"; exit 1; }
	n=$((n + 1))
done < <(cd "$src" && find include lib sheep collie tests -name '*.h' | sort)
[ "$n" -gt 10 ] || { echo "only $n headers seen: the check is broken"; exit 1; }
