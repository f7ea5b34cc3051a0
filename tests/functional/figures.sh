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

# What volumes use, one copy, at any sheep.
is_used() # SHEEP NAME BYTES, in both forms of the document
{
	[ "$(collie $1 --json vdi info $2 | jq .used)" = "$3" ] &&
		collie $1 --json vdi list | jq -e --arg name $2 --argjson used "$3" \
			'.[] | select(.name == $name) | .used == $used'
}
expect_used() # NAME BYTES
{
	local i
	for i in "${!sheep_pid[@]}"; do
		is_used "$i" "$1" "$2" >/dev/null || fail "sheep $i: $(collie $i --json vdi list)"
	done
}
collie 2 vdi create other 1T
expect_used disk 16777216
expect_used other 0
# Twice the same, some of it new, holes of a whole object and of a few blocks.
"$python" - "$(uri 2 disk)" "$(uri 3 other)" <<'EOF'
import sys
import nbd

MIB = 1 << 20
disk, other = nbd.NBD(), nbd.NBD()
disk.connect_uri(sys.argv[1])
other.connect_uri(sys.argv[2])
disk.pwrite(b"x" * MIB, 3 * MIB)
disk.trim(8 * MIB, 8 * MIB)
disk.zero(4096, 4096)
disk.flush()
for at in (0, 500 << 30, (1 << 40) - MIB):
    other.pwrite(b"y" * MIB, at)
other.pwrite(b"z", 100 * MIB + 5000)
other.flush()
disk.shutdown()
other.shutdown()
EOF
expect_used disk 8384512 # 8 MiB less a block
expect_used other 3149824 # 3 MiB and a block
[[ $(collie 1 vdi list | sed -n 's/^disk  *[0-9]*  *64 MiB  //p') == 8.0\ MiB* ]] ||
	fail "$(collie 1 vdi list)"

# One is silent, and the cluster takes it for up.
id=$(collie 2 --json node list | jq '.[] | select(.is_self) | .id')
kill -STOP "${sheep_pid[2]}"
# What its PGs hold is unknown, or told by who has taken them over by now; never left out.
for i in 1 2 3 4 5; do
	collie 1 --json vdi list >"$work/volumes"
	jq -e 'all(.[]; .used == null or .used == {disk: 8384512, other: 3149824}[.name])' \
		"$work/volumes" || fail "$(cat "$work/volumes")"
done
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
wait_healthy 3
expect_used disk 8384512

# One is gone: others lead its PGs, and nothing was lost. A deleted volume has no figure, its blocks go.
kill_sheep 2
wait_until 20 is_used 1 disk 8384512
expect_used other 3149824
start_sheep 2
wait_until 20 sheep_is_up 2
wait_healthy 3
expect_used disk 8384512
collie 3 vdi delete disk
collie 1 vdi create disk 64M
expect_used disk 0
expect_used other 3149824
collie 1 cluster shutdown
for i in 1 2 3; do wait_gone $i; done
