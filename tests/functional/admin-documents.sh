#!/bin/bash
# What a sheep answers is what docs/protocol/admin.md promises, before and after the format.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq "$python"

page=$top_srcdir/docs/protocol/admin.md
conforms() { # NOUN VERB [ARG]...
	collie 1 --json "$@" >"$work/document" || fail "$* exits with $?"
	"$python" "$top_srcdir/tests/functional/admin_documents.py" "$page" "$1" "$2" \
		<"$work/document" || fail "$*: $(cat "$work/document")"
}

# The checker itself: it sees a key that is missing and one of the wrong type.
check() { "$python" "$top_srcdir/tests/functional/admin_documents.py" "$page" "$@"; }
good='{"id":1,"address":"a","zone":"z","status":"up","stores":[],"copies":1,"share":null,"version":null,"is_self":true}'
echo "[$good]" | check node list >/dev/null || fail "a good document is refused"
! echo "[$good, {\"id\":1}]" | check node list >/dev/null || fail "a missing key is not seen"
! echo "[${good/\"up\"/7}]" | check node list >/dev/null || fail "a wrong type is not seen"
! echo "$good" | check node list >/dev/null || fail "a missing list is not seen"

start_sheep 1
wait_until 20 sheep_is_up 1
conforms cluster info
[ "$(jq -r .status "$work/document")" = unformatted ] || fail "status before the format"
conforms node list
conforms store list
conforms vdi list
conforms pg list

# So many PGs that their list does not fit in one reply.
conforms cluster format --copies 1 --wait-nodes 1 --pgs 4096
wait_healthy 1
for command in "cluster info" "node list" "store list" "pg list" "recovery info" \
	"vdi create disk 64M" "vdi create other 1T" "vdi list" "vdi info disk" \
	"cluster settings" "cluster set recovery_parallel 9" "cluster health" "node drain 1" \
	"node undrain 1" "recovery pause" "recovery resume" "recovery throttle 1M" \
	"vdi set disk team x" "vdi resize disk 128M" "vdi rename disk disk2" "vdi rename disk2 disk" \
	"store set $(collie 1 --json store list | jq -r '.[0].uuid') weight 77"; do
	# shellcheck disable=SC2086 # words
	conforms $command
done
collie 1 --json pg list | jq -e 'map(.id) == [range(4096)]' >/dev/null || fail "the list of PGs"
[ "$(collie 1 --json pg list --not-clean | jq length)" = 0 ] || fail "PGs that are not clean"
[ "$(collie 1 --json vdi delete other | jq -r .name)" = other ] || fail "vdi delete"
[ "$(collie 1 --json vdi list | jq -r 'map(.name) | join(" ")')" = disk ] || fail "vdi list"

# Errors have both forms.
expect_exit 5 "$collie_bin" -s "unix:$work/admin1" --json vdi info nothing
jq -e '.code == "not_found" and (.error | length > 0)' "$work/out" >/dev/null || fail "error document"
grep -q '^collie: vdi info: ' "$work/err" || fail "error line"
