#!/bin/bash
# Three sheep whose log they keep themselves, on three corosyncs: what is missing is waited for, with a word about it; a sheep is
# killed under load (its death is certain, its members take over at once); a copy of the log is lost, or damaged; a sheep of another
# cluster; all restart.
ENGINE=corosync
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/hosts.sh"
. "${top_srcdir:?}/tests/functional/load.sh"
says() { # SHEEP TEXT
	grep -q "$2" "$work/sheep$1.log"
}

# Without a corosync a sheep waits, also without quorum; and can be stopped.
hosts_up 3 corosync
for i in 1 2 3; do engine_kill $i; done
start_sheep 1
wait_until 20 says 1 "waiting for corosync: it does not run on this host"
kill_sheep 1 TERM
[ "$sheep_rc" = 0 ] || fail "stopped while it waited: exit $sheep_rc"
start_sheep 1
engine_start 1
wait_until 30 says 1 "corosync has no quorum"
for i in 2 3; do engine_start $i; done
for i in 1 2 3; do wait_until 60 engine_up $i; done
for i in 2 3; do start_sheep $i; done
for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
collie 1 cluster format --wait-nodes 3 >"$work/out"
wait_healthy 3 >"$work/out"
collie 1 vdi create disk 130M --set access=shared >"$work/out"

# kill -9 of each: what it led goes on at once. The time is told, not asserted.
for victim in 1 2 3; do
	other=$((victim % 3 + 1))
	load_begin $other
	kill_sheep $victim
	goes_on $other
	start_sheep $victim
	wait_until 30 sheep_is_up $victim
	healthy_again 3 "sheep $victim killed"
	load_end
done

# The disk of its log is lost: the node gets another copy, and counts with it.
kill_sheep 2 TERM
[ -e "$work/store2/engine/lock" ] || fail "the log is not where it should be"
rm -rf "$work/store2/engine"
start_sheep 2
wait_until 30 sheep_is_up 2
wait_healthy 3 >"$work/out"
kill_sheep 1 TERM
wait_until 30 collie 2 vdi create with-two 10M
start_sheep 1
wait_until 30 sheep_is_up 1
wait_healthy 3 >"$work/out"

# Damage in the middle is named, with what to do.
kill_sheep 3 TERM
log=$(ls "$work"/store3/engine/log.* | tail -1)
printf 'xxxxxxxx' | dd of="$log" bs=1 seek=60 conv=notrunc status=none
start_sheep 3
wait_gone 3
[ "$sheep_rc" = 1 ] || fail "a damaged log is started with: exit $sheep_rc"
says 3 "empty the directory" || fail "$(tail -3 "$work/sheep3.log")"
rm -rf "$work/store3/engine"
start_sheep 3
wait_until 30 sheep_is_up 3
wait_healthy 3 >"$work/out"

# All copies are gone, or so it looks: a node that had a log waits for it, says so, and founds no other.
for i in 1 2 3; do kill_sheep $i TERM; done
for i in 1 2 3; do mv "$work/store$i/engine" "$work/engine$i"; done
for i in 1 2 3; do : >"$work/sheep$i.log"; done
for i in 1 2 3; do start_sheep $i; done
for i in 1 2 3; do wait_until 30 says $i "waiting: this node's copy of the log is gone"; done
sleep 8
for i in 1 2 3; do
	expect_exit 6 collie $i --timeout 1 vdi create "nowhere$i" 10M
	! says $i "this one makes it" || fail "a second log was founded"
	[ "$(grep -c "copy of the log is gone" "$work/sheep$i.log")" -le 2 ] || fail "it says so too often"
	kill_sheep $i TERM
	[ "$sheep_rc" = 0 ] || fail "stopped while it waited: exit $sheep_rc"
done
for i in 1 2 3; do
	rm -rf "$work/store$i/engine"
	mv "$work/engine$i" "$work/store$i/engine"
	start_sheep $i
done
for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
wait_healthy 3 >"$work/out"

# A gateway keeps a copy of the log, too, and stays itself.
start_gateway() {
	# shellcheck disable=SC2086 # it is words
	${sheep_enter[2]} "$sheep_bin" --gateway --state "$work/gateway" -c "$engine" -p 10.77.0.2:7004 --insecure \
		-n "unix:$work/nbd4" -a "unix:$work/admin4" --runtime-dir "$work/run4" >>"$work/sheep4.log" 2>&1 </dev/null &
	sheep_pid[4]=$!
	wait_until 30 sheep_is_up 4
}
start_gateway
[ -e "$work/gateway/engine/lock" ] || fail "the log of the gateway is not where it should be"
kill_sheep 4
start_gateway
collie 4 vdi create by-gateway 10M
collie 4 vdi info disk >"$work/out"
[ "$(collie 4 --json node list | jq length)" = 4 ] || fail "$(collie 4 node list)"
kill_sheep 4 TERM
[ "$sheep_rc" = 0 ] || fail "SIGTERM: the gateway exited with $sheep_rc"

# A sheep of another cluster, on a channel of its own and then on ours.
engine=corosync:blue
sheep_enter[9]=${sheep_enter[1]}
sheep_network[9]="-p 10.77.0.1:7009 --insecure"
start_sheep 9
wait_until 30 sheep_is_up 9
collie 9 cluster format --copies 1 >"$work/out"
kill_sheep 9 TERM
[ "$sheep_rc" = 0 ] || fail "SIGTERM: exit $sheep_rc"
engine=corosync:flock
start_sheep 9
wait_gone 9
[ "$sheep_rc" = 1 ] || fail "a sheep of another cluster goes on: exit $sheep_rc"
says 9 "another" || fail "$(tail -3 "$work/sheep9.log")"
expect_exit 64 "$sheep_bin" -c corosync: "$work/store8"

# A clean stop and a start of all.
collie 2 cluster shutdown
for i in 1 2 3; do
	wait_gone $i
	[ "$sheep_rc" = 0 ] || fail "sheep $i exited with $sheep_rc"
done
for i in 3 1 2; do start_sheep $i; done
for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
wait_healthy 3 >"$work/out"
collie 1 vdi info with-two >/dev/null
