#!/bin/bash
# What an operator sets: the cluster, volumes, stores; with its exit codes, and what it does.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq nbdcopy nbdinfo

start_cluster 3

# Settings.
collie 1 --json cluster settings >"$work/settings"
jq -e 'all(.[]; .key and .value and .default and .meaning) and
	(map(.key) | contains(["lease", "grace", "down_out_interval", "copies", "min_insync"]))' \
	"$work/settings" >/dev/null || fail "settings: $(cat "$work/settings")"
setting() { collie "$1" --json cluster settings | jq -r --arg key "$2" '.[] | select(.key == $key) | .value'; }
collie 1 cluster set down_out_interval 90s
comes_to 90s setting 2 down_out_interval
collie 2 cluster set down_out_interval default
comes_to 600s setting 3 down_out_interval
expect_exit 5 collie 1 cluster set no_such_thing 1
expect_exit 1 collie 1 cluster set lease 5h
grep -q "lease must be from" "$work/err" || fail "$(cat "$work/err")"
expect_exit 1 collie 1 cluster set lease soon
expect_exit 1 collie 1 cluster set grace 100ms
grep -q "grace must be at least" "$work/err" || fail "$(cat "$work/err")"
expect_exit 64 collie 1 cluster set lease
collie 1 cluster set min_insync 1
of_info() { collie 2 --json cluster info | jq "$1"; }
comes_to 1 of_info .min_insync
comes_to 3 of_info .copies
expect_exit 1 collie 1 cluster set min_insync 4
expect_exit 1 collie 1 cluster set copies 0
collie 1 cluster set copies 2
wait_healthy 3
[ "$(collie 1 --json pg list | jq 'map(.isr | length) | max')" = 2 ] || fail "a third copy is left"
collie 1 cluster set copies 3
wait_healthy 3
[ "$(collie 1 --json pg list | jq 'map(.isr | length) | min')" = 3 ] || fail "a copy is missing"

# Recovery.
collie 1 recovery pause
comes_to yes setting 2 recovery_paused
collie 2 cluster health | grep -q "recovery is paused" || fail "health does not say that it is paused"
collie 1 recovery resume
comes_to no setting 2 recovery_paused
collie 1 recovery throttle 10M
throttle() { collie 2 --json recovery info | jq .throttle; }
comes_to $((10 << 20)) throttle
collie 1 recovery throttle 0
comes_to null throttle

# Volumes.
collie 1 vdi create disk 64M
collie 1 vdi set disk access shared
collie 1 vdi set disk durability always
collie 1 vdi set disk team storage
collie 1 --json vdi info disk | jq -e '.access == "shared" and .durability == "always" and
	.properties.team == "storage"' >/dev/null || fail "$(collie 1 --json vdi info disk)"
collie 1 vdi set disk team ""
collie 1 --json vdi info disk | jq -e '.properties | has("team") | not' >/dev/null || fail "team stays"
expect_exit 1 collie 1 vdi set disk access both
expect_exit 5 collie 1 vdi set nothing access single
collie 1 vdi create other 10M
expect_exit 3 collie 1 vdi rename disk other
expect_exit 1 collie 1 vdi rename disk 'a/b'
expect_exit 5 collie 1 vdi rename nothing x

# Renamed and grown while it is open: the connection goes on, the next one sees it.
"$python" - "$(uri 2 disk)" >"$work/open.out" 2>&1 <<'PY' &
import nbd, os, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
print("open", flush=True)
while not os.path.exists(os.path.dirname(sys.argv[1].split("socket=")[1]) + "/go"):
    time.sleep(0.02)
h.pwrite(b"x" * 4096, 8192)
h.flush()
print(h.get_size(), h.pread(4096, 8192) == b"x" * 4096, flush=True)
PY
holder=$!
background+=($holder)
wait_until 20 grep -q open "$work/open.out"
collie 1 vdi rename disk data
collie 1 vdi resize data 100M
expect_exit 1 collie 1 vdi resize data 50M
grep -q "would shrink" "$work/err" || fail "$(cat "$work/err")"
expect_exit 6 collie 1 vdi resize data 50M --shrink
touch "$work/go"
wait $holder || fail "the connection: $(cat "$work/open.out")"
grep -q "67108864 True" "$work/open.out" || fail "$(cat "$work/open.out")"
for i in 1 2 3; do
	comes_to $((100 << 20)) nbdinfo --size "$(uri $i data)"
done
expect_exit 1 nbdinfo --size "$(uri 1 disk)"
collie 1 --json vdi info data | jq -e '.created | startswith("20") and endswith("Z")' >/dev/null ||
	fail "created: $(collie 1 --json vdi info data)"

# Shrunk: what was behind the end is gone, and its space comes back.
collie 1 vdi create big 200M
head -c 200M /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "$(uri 1 big)"
used() { collie 1 --json store list | jq 'map(.used) | add'; }
full=$(used)
wait_until 30 collie 1 vdi resize big 10M --shrink
truncate -s 10M "$work/image"
expect_same big "$work/image"
is_freed() { [ "$(used)" -lt $((full - 3 * 180 * 1024 * 1024)) ]; }
wait_until 30 is_freed
expect_exit 1 collie 1 vdi resize big 20M
grep -q "was shrunk" "$work/err" || fail "$(cat "$work/err")"
expect_same big "$work/image"

# Stores.
uuid=$(collie 1 --json store list | jq -r '.[0].uuid')
collie 1 store set "${uuid:0:8}" weight 0
wait_until 20 sh -c "$collie_bin -s unix:$work/admin1 --json store list | jq -e '.[0].status == \"draining\"'"
collie 1 store set "$uuid" weight default
expect_exit 1 collie 1 store set "$uuid" weight many
expect_exit 5 collie 1 store set 00000000-0000-4000-8000-000000000000 weight 1
wait_healthy 3
collie 1 cluster shutdown
for i in 1 2 3; do wait_gone $i; done
