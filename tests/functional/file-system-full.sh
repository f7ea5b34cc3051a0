#!/bin/bash
# File systems that have less room than their stores were told to use: the stores are as large as what they got,
# and no error comes of it but ENOSPC.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy jq
[ "$(id -u)" = 0 ] || skip "only root can mount file systems"
client="timeout 300 $python ${top_srcdir:?}/tests/functional/full.py"

# fill_and_empty VOLUME: through gateway 1, checked through all.
fill_and_empty() {
	local i sockets=()
	for i in "${!sheep_pid[@]}"; do sockets+=("$work/nbd$i"); done
	$client "$1" "${sockets[@]}" || fail "$what"
}

unmount_all() {
	local i
	for i in 1 2 3; do umount -l "$work/small$i" 2>/dev/null; done
}
after_kills+=(unmount_all)
# The file system has less than the store was told it may use. It is no error to find that out: the store is as large as
# what it could get.
what="a tmpfs that is smaller than its store"
for i in 1 2 3; do
	mkdir -p "$work/small$i"
	mount -t tmpfs -o size=900M tmpfs "$work/small$i"
	ln -sfn "small$i" "$work/store$i"
done
store_size=4G
start_cluster 3 >"$work/out"
collie 1 vdi create disk 4G --set access=shared >"$work/out"
fill_and_empty disk

# Somebody else's file takes the rest, and goes away again.
what="a file system that another fills"
head -c 1G /dev/zero >"$work/small2/other" 2>/dev/null || true
fill_and_empty disk
for i in 1 2 3; do kill_sheep $i; done
for i in 1 2 3; do start_sheep $i; done
for i in 1 2 3; do wait_until 60 sheep_is_up $i; done
wait_healthy 3 >"$work/out"
fill_and_empty disk
rm -f "$work/small2/other"
fill_and_empty disk
! grep -h "error:" "$work"/sheep?.log | grep -v "No space left" || fail "errors"
