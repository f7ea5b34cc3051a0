#!/bin/bash
# Three sheep whose log is in a real ZooKeeper: a sheep is killed under load (nobody knows for certain that it
# is dead: its members take over after `grace`), the server is killed and comes back under load, and all restart.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires java jq
[ -r /usr/share/java/zookeeper.jar ] || skip "no ZooKeeper server is installed"
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/zoo.cfg" <<EOF
tickTime=250
dataDir=$work/zookeeper
clientPortAddress=127.0.0.1
clientPort=$port
admin.enableServer=false
4lw.commands.whitelist=ruok
EOF
start_server() {
	java -Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp /usr/share/java/zookeeper.jar \
		org.apache.zookeeper.server.quorum.QuorumPeerMain "$work/zoo.cfg" \
		>>"$work/zookeeper.log" 2>&1 </dev/null &
	server=$!
	background+=($server)
	wait_until 60 server_is_ok
}
server_is_ok() {
	"$python" -c '
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)
s.settimeout(1)
s.sendall(b"ruok")
sys.exit(s.recv(4) != b"imok")' "$port"
}
engine=zookeeper:127.0.0.1:$port/sheep/one

# A sheep that finds no server waits, and says so.
start_sheep 1
wait_until 20 grep -q "waiting for ZooKeeper" "$work/sheep1.log"
start_server
for i in 2 3; do start_sheep $i; done
for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
collie 1 cluster format --wait-nodes 3
wait_healthy 3
collie 1 vdi create disk 64M

rm -f "$work/stop"
$blocks write "$work/state" "$work/stop" disk "$work/nbd1" >"$work/writer.out" 2>&1 &
writer=$!
background+=($writer)
wait_until 20 has_written 1000

# kill -9 of one: its session goes after a while, and proves nothing.
kill_sheep 2
wait_until 30 has_written $(($(cat "$work/state.progress") + 2000))
start_sheep 2
wait_until 30 sheep_is_up 2
wait_healthy 3

# The server: without the log nothing can be changed, and I/O goes on.
kill -KILL $server
wait $server 2>/dev/null || true
wait_until 30 has_written $(($(cat "$work/state.progress") + 2000))
start_server
wait_until 30 collie 3 vdi create after 10M
touch "$work/stop"
wait $writer || { cat "$work/writer.out"; fail "the writer"; }
cat "$work/writer.out"
$blocks check "$work/state" disk "$work"/nbd[123]

# Data of others under the root is refused with a word about it.
engine=zookeeper:127.0.0.1:$port/sheep
start_sheep 9
wait_gone 9
[ "$sheep_rc" = 1 ] || fail "a sheep goes on with data of others: $sheep_rc"
grep -q "holds other data" "$work/sheep9.log" || fail "$(tail -3 "$work/sheep9.log")"
expect_exit 64 "$sheep_bin" -c zookeeper:nowhere "$work/store9"
engine=zookeeper:127.0.0.1:$port/sheep/one

# A clean stop and a start of all.
collie 2 cluster shutdown
for i in 1 2 3; do
	wait_gone $i
	[ "$sheep_rc" = 0 ] || fail "sheep $i exited with $sheep_rc"
done
for i in 1 2 3; do start_sheep $i; done
for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
wait_healthy 3
$blocks check "$work/state" disk "$work"/nbd[123]
collie 1 vdi info after >/dev/null
# Another root, or an ensemble that has lost its data: a sheep that had a log waits for it, and makes no other.
kill_sheep 2 TERM
engine=zookeeper:127.0.0.1:$port/sheep/lost
start_sheep 2
wait_until 20 grep -q "waiting: there is no log at /sheep/lost" "$work/sheep2.log"
expect_exit 6 collie 2 --timeout 2 vdi create nowhere 10M
kill_sheep 2 TERM
[ "$sheep_rc" = 0 ] || fail "stopped while it waited: exit $sheep_rc"
engine=zookeeper:127.0.0.1:$port/sheep/one
start_sheep 2
wait_until 30 sheep_is_up 2
wait_healthy 3
# The same by a signal, which none of the client library's threads may take.
kill_sheep 1 TERM
[ "$sheep_rc" = 0 ] || fail "SIGTERM: sheep 1 exited with $sheep_rc"
