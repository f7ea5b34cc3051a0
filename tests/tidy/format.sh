#!/bin/bash
# .clang-format decides.
set -eu
cd "${top_srcdir:-$(dirname "$0")/../..}"
command -v clang-format >/dev/null || { echo "clang-format is missing"; exit 77; }
find lib sheep collie tests include -name '*.[ch]' ! -path 'include/proto/*' -print0 |
	xargs -0 clang-format --dry-run -Werror
