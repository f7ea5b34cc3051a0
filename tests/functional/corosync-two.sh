#!/bin/bash
# Two hosts on corosync, with two_node as corosync recommends it: it gives each of them corosync's quorum alone, and the log
# needs both all the same. While one is away nothing is decided, and nothing is promised twice.
ENGINE=corosync
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/hosts.sh"
. "${top_srcdir:?}/tests/functional/load.sh"
says() { # SHEEP TEXT
	grep -q "$2" "$work/sheep$1.log"
}
is_refused() { # SHEEP: a change waits in vain
	expect_exit 6 collie "$1" --timeout 2 vdi create "alone$1" 10M
}

hosts_up 2 corosync
start_cluster 2 --copies 2 --min-insync 1 --pgs 16 >"$work/out"
collie 1 vdi create disk 130M --set access=shared >"$work/out"

# Cut apart: corosync says that each of them has quorum.
load_begin 1 2
isolate 2
wait_until 20 is_silent 1
wait_until 20 is_silent 2
for i in 1 2; do
	wait_until 20 engine_up $i
	wait_until 30 says $i "1 of 2 voters are not here"
	is_refused $i
done
heal
# What was asked for meanwhile is decided first: else it is healthy before somebody is left out, and again after.
for i in 1 2; do wait_until 30 collie $i --timeout 5 vdi create "v$i" 10M; done
healthy_again 2 "cut apart"

# One is killed with its corosync.
host_kill 2
wait_until 20 is_silent 1
is_refused 1
engine_start 2
wait_until 60 engine_up 2
start_sheep 2
wait_until 60 sheep_is_up 2
healthy_again 2 "one killed"
load_end
