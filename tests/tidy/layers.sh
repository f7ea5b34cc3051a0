#!/bin/bash
# Who includes whom: every include of ours is checked against docs/LAYERS.
set -eu
cd "${top_srcdir:-$(dirname "$0")/../..}"

awk '
FNR == NR {
	if ($0 ~ /^#/ || NF == 0)
		next
	if ($1 == "+") {
		public[$2] = 1
		next
	}
	line[$2] = $1
	limit[$2] = $3 == "only" ? $4 : $1 - 1
	next
}
function folder_of(path,    f) {
	f = path
	while (f ~ /\//) {
		sub(/\/[^\/]*$/, "", f)
		if (f in line)
			return f
	}
	return ""
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
	match($0, /"[^"]*"/)
	target = substr($0, RSTART + 1, RLENGTH - 2)
	from = folder_of(FILENAME)
	to = folder_of(target)
	if (from == "") {
		print FILENAME ": its folder has no line in docs/LAYERS"; bad = 1; next
	}
	if (to == "") {
		print FILENAME ": include of \"" target "\" is not by full path from the top"; bad = 1; next
	}
	if (to != from && line[to] > limit[from]) {
		print FILENAME ": " from " may not include " target; bad = 1
	}
	# One public header a folder, named after it; include/proto and lib/base are sets of headers.
	if (to != from && from != "tests" && to != "include/proto" && to != "lib/base") {
		base = to; sub(/.*\//, "", base)
		if (target != to "/" base ".h" && !(target in public)) {
			print FILENAME ": " target " is private to " to; bad = 1
		}
	}
	checked++
}
END {
	if (checked < 20) { print "only " checked + 0 " includes seen: the check is broken"; bad = 1 }
	exit bad
}' docs/LAYERS $(find include lib sheep collie tests -name '*.[ch]' | sort)
