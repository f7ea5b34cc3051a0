#!/bin/bash
# A sheep without a store serves every volume, keeps nothing, and is missed by nobody when it dies.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy jq

start_gateway() {
	"$sheep_bin" --gateway --state "$work/state" -c "local:$work/engine" -p 127.0.0.1:0 \
		-n "unix:$work/nbd4" -a "unix:$work/admin4" --runtime-dir "$work/run4" \
		>>"$work/sheep4.log" 2>&1 </dev/null &
	sheep_pid[4]=$!
	wait_until 20 sheep_is_up 4
}

start_cluster 3
collie 1 vdi create disk 64M
start_gateway
head -c 64M /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "$(uri 4 disk)"
expect_same disk "$work/image"
collie 4 --json node list | jq -e 'map(select(.is_self)) | .[0].stores == [] and .[0].status == "up"' \
	>/dev/null || fail "the gateway is not listed as one"
[ "$(collie 4 --json store list | jq length)" = 3 ] || fail "it has stores"

# Its death changes no PG; it comes back as the same node.
id=$(collie 4 --json node list | jq '.[] | select(.is_self) | .id')
epochs=$(collie 1 --json pg list | jq -c 'map(.epoch)')
kill_sheep 4
wait_until 20 eval "collie 1 --json node list | jq -e '.[] | select(.id == $id) | .status == \"down\"'"
[ "$(collie 1 --json pg list | jq -c 'map(.epoch)')" = "$epochs" ] || fail "PGs changed"
[ "$(collie 1 --json cluster info | jq -r .status)" = healthy ] || fail "not healthy"
start_gateway
[ "$(collie 4 --json node list | jq '.[] | select(.is_self) | .id')" = "$id" ] || fail "another id"
expect_same disk "$work/image"
