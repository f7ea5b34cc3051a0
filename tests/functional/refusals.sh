#!/bin/bash
# What is wrong gets a clear word and loses nobody anything; the daemons go on.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq nbdcopy

sheep() {
	timeout $((20 * patience)) "$sheep_bin" "$@"
}
expect_exit 64 sheep
expect_exit 64 sheep "$work/x"
expect_exit 64 sheep -c local:"$work/engine"
expect_exit 64 sheep -c nonsense:1 "$work/x"
expect_exit 64 sheep -c local:"$work/engine" --loops 0 "$work/x"
expect_exit 64 sheep -c local:"$work/engine" --peer 0.0.0.0:7000 "$work/x"
expect_exit 64 sheep -c local:"$work/engine" -n "unix:$work/$(printf 'x%.0s' {1..120})" "$work/x"
expect_exit 0 sheep --version
expect_exit 0 sheep --help

start_cluster 3 --copies 2
collie 1 vdi create disk 32M
head -c 32M /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "$(uri 1 disk)"

# A second sheep on the same store.
expect_exit 1 sheep -c "local:$work/engine" -p 127.0.0.1:0 -n "unix:$work/n" -a "unix:$work/a" \
	"$work/store1"
grep -q "$work/store1" "$work/err" || { cat "$work/err"; fail "the store is not named"; }

# A store of another cluster: the message names both.
start_other() {
	"$sheep_bin" -c "local:$work/engine-other" -p 127.0.0.1:0 -n "unix:$work/nbd9" \
		-a "unix:$work/admin9" --store-size 1G "$work/store9" >>"$work/sheep9.log" 2>&1 &
	sheep_pid[9]=$!
}
start_other
wait_until 20 sheep_is_up 9
collie 9 cluster format --copies 1
mine=$(collie 1 --json cluster info | jq -r .uuid)
other=$(collie 9 --json cluster info | jq -r .uuid)
collie 9 cluster shutdown
wait_gone 9
expect_exit 1 sheep -c "local:$work/engine" -p 127.0.0.1:0 -n "unix:$work/n" -a "unix:$work/a" \
	"$work/store9"
grep -q "$mine" "$work/err" && grep -q "$other" "$work/err" ||
	{ cat "$work/err"; fail "it does not name both clusters"; }
# The right directory without its log: it makes no other one.
mv "$work/engine-other/log" "$work/log-other"
expect_exit 1 sheep -c "local:$work/engine-other" -p 127.0.0.1:0 -n "unix:$work/n" -a "unix:$work/a" \
	"$work/store9"
grep -q "there is no log in '$work/engine-other', and this node belongs to" "$work/err" ||
	{ cat "$work/err"; fail "it does not say that the log is gone"; }
[ ! -e "$work/engine-other/log" ] || fail "it made another log"
# Before that was remembered it was found by the cluster's stamp, which still counts.
rm "$work/store9/log"
expect_exit 1 sheep -c "local:$work/engine" -p 127.0.0.1:0 -n "unix:$work/n" -a "unix:$work/a" \
	"$work/store9"
grep -q "$mine" "$work/err" && grep -q "$other" "$work/err" ||
	{ cat "$work/err"; fail "not both UUIDs are named"; }

# A directory with other files is not taken for a store.
mkdir "$work/mine"
echo precious >"$work/mine/file"
expect_exit 1 sheep -c "local:$work/engine" -p 127.0.0.1:0 -n "unix:$work/n" -a "unix:$work/a" \
	"$work/mine"
[ "$(cat "$work/mine/file")" = precious ] || fail "foreign files were touched"

# Garbage on every door.
"$python" "${top_srcdir:?}/tests/functional/garbage.py" "$work/nbd1" "$work/admin1" \
	"$(collie 1 --json node list | jq -r '.[0].address')"
for i in 1 2 3; do sheep_is_up $i || fail "sheep $i did not survive"; done
expect_same disk "$work/image"
