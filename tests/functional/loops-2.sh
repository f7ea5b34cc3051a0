#!/bin/bash
# The same with two loops in each sheep, and then with another number of loops on the same stores.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires fio nbdcopy jq
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"

for i in 1 2 3; do start_sheep $i --loops 2; done
for i in 1 2 3; do wait_until 20 sheep_is_up $i; done
collie 1 cluster format --wait-nodes 3
wait_healthy 3
collie 1 vdi create disk 64M
collie 1 vdi create other 64M
fio --name=verified --ioengine=nbd --uri="$(uri 1 disk)" --rw=randwrite --bs=4k --iodepth=32 \
	--size=64M --numjobs=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output="$work/fio.out" &
fio=$!
background=($fio)
rm -f "$work/stop"
$blocks write "$work/state" "$work/stop" other "$work/nbd3" >"$work/writer.out" 2>&1 &
writer=$!
background+=($writer)
wait_until 20 has_written 1000
kill_sheep 2
start_sheep 2 --loops 2
touch "$work/stop"
wait $writer || { cat "$work/writer.out"; fail "the writer"; }
wait $fio || { cat "$work/fio.out"; fail fio; }
background=()
wait_until 30 sheep_is_up 2
wait_healthy 3
$blocks check "$work/state" other "$work"/nbd[123]
nbdcopy "$(uri 1 disk)" "$work/image"
expect_same disk "$work/image"
collie 1 cluster shutdown
for i in 1 2 3; do wait_gone $i; done
for i in 1 2 3; do start_sheep $i --loops 1; done
for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
wait_healthy 3
expect_same disk "$work/image"
