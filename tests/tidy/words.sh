#!/bin/bash
# Words that do not reach main, each with what to use instead.
set -eu
cd "${top_srcdir:-$(dirname "$0")/../..}"
bad=0
ban() { # PATTERN, REPLACEMENT, FOLDER...
	local pattern=$1 instead=$2 found
	shift 2
	if found=$(grep -rnE --include='*.[ch]' "$pattern" "$@"); then
		printf '%s\n  use %s\n' "$found" "$instead"
		bad=1
	fi
}
ban '\b(sprintf|strcpy|strcat|gets|atoi|strtok)\(' 'text_append(), text_copy(), text_parse_u64()' \
	lib sheep collie
ban '\b(time|gettimeofday|clock_gettime)\(' 'loop_now()' lib/wire lib/nbd lib/net sheep
ban '\b(rand|random|srand)\(' 'loop_random()' lib sheep
ban '\b(XXX|TODO|FIXME)\b' 'an issue' include lib sheep collie tests
ban '\b(pread|pwrite|fsync|fdatasync|socket|connect|accept)\(' 'lib/loop' lib/wire lib/nbd lib/net \
	sheep/cluster sheep/store sheep/pg sheep/gateway
exit $bad
