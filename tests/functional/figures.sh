#!/bin/bash
# What only the other sheep know is known at any of them; who is silent is named, and waited for
# only shortly.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy jq

for i in 1 2 3; do start_sheep $i --loops 2; done
for i in 1 2 3; do wait_until 20 sheep_is_up $i; done
collie 1 cluster format --wait-nodes 3
wait_healthy 3
collie 1 vdi create disk 64M
head -c 16M /dev/urandom >"$work/data"
truncate -s 64M "$work/data"
nbdcopy --flush "$work/data" "$(uri 1 disk)"
for i in 1 2 3; do
	collie $i --json store list >"$work/stores"
	jq -e 'length == 3 and all(.[]; .used >= 16777216 and .allocated >= .used)' "$work/stores" ||
		fail "sheep $i: $(cat "$work/stores")"
	collie $i --json cluster info >"$work/info"
	jq -e '.unknown_nodes == [] and .space.used >= 3 * 16777216' "$work/info" ||
		fail "sheep $i: $(cat "$work/info")"
done

# One is silent, and the cluster takes it for up.
id=$(collie 2 --json node list | jq '.[] | select(.is_self) | .id')
kill -STOP "${sheep_pid[2]}"
began=$SECONDS
collie 1 --json cluster info >"$work/info"
(( SECONDS - began <= 3 )) || fail "waited $((SECONDS - began)) s"
jq -e --argjson id "$id" '.unknown_nodes == [$id] and .space.used == null' "$work/info" ||
	fail "$(cat "$work/info")"
collie 1 --json recovery info >"$work/info"
jq -e --argjson id "$id" '.unknown_nodes == [$id]' "$work/info" || fail "$(cat "$work/info")"
collie 1 --json store list >"$work/stores"
jq -e '[.[] | select(.used == null)] | length == 1' "$work/stores" || fail "$(cat "$work/stores")"
kill -CONT "${sheep_pid[2]}"
is_known()
{
	collie 1 --json cluster info | jq -e '.unknown_nodes == []' >/dev/null
}
wait_until 20 is_known
collie 1 cluster shutdown
for i in 1 2 3; do wait_gone $i; done
