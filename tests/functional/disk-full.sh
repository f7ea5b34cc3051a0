#!/bin/bash
# Stores that are full: writes get ENOSPC and nothing else happens, the rest works, and what is given back can
# be written again.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy jq
client="timeout 300 $python ${top_srcdir:?}/tests/functional/full.py"

# fill_and_empty VOLUME: through gateway 1, checked through all.
fill_and_empty() {
	local i sockets=()
	for i in "${!sheep_pid[@]}"; do sockets+=("$work/nbd$i"); done
	$client "$1" "${sockets[@]}" || fail "$what"
}

what="the smallest stores"
store_size=800M
start_cluster 3 >"$work/out"
collie 1 vdi create disk 4G --set access=shared >"$work/out"
fill_and_empty disk
# All of it is there after a crash of all, and one that was away is filled though others are full.
for i in 1 2 3; do kill_sheep $i; done
for i in 1 2 3; do start_sheep $i; done
for i in 1 2 3; do wait_until 60 sheep_is_up $i; done
wait_healthy 3 >"$work/out"
fill_and_empty disk
# Deleting gives everything back.
wait_until 30 collie 1 vdi delete disk
collie 1 vdi create disk 4G --set access=shared >"$work/out"
has_room() {
	collie 1 --json store list | jq -e 'all(.[]; .used < 16777216)'
}
wait_until 60 has_room
fill_and_empty disk
for i in 1 2 3; do kill_sheep $i; done
