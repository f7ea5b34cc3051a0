# Several hosts on this machine: sheep, ZooKeeper servers and corosyncs that see each other only over links that can
# be cut. Source it after functions.sh:
#
#	. "${top_srcdir:?}/tests/functional/hosts.sh"
#	hosts_up 3 zookeeper		# three hosts, their engine runs; $engine is its spec
#	start_cluster 3
#	part "1 2" "3"; ... heal
#
# A host is a network namespace and a mount namespace (its own /run) without a name: they live as long as the
# process that holds them, which ends with the test, however that ends. All hosts hang on one bridge, which is
# in a namespace of its own, too. Links are cut there, for one direction or both: nftables drops what goes
# from one port to another. Host N is 10.77.0.N; its NBD and admin sockets are in $work, on the file system that
# all share, so that clients reach a host that is cut off from the others.
#
# The engine (ENGINE=zookeeper|corosync) is hidden behind engine_start, engine_kill and engine_up.

declare -A host_pid=() engine_pid=()
hosts=0
sheep_bin=$(realpath "$sheep_bin")
switch_pid=
zookeeper_jar=/usr/share/java/zookeeper.jar

hosts_down() {
	local pid
	for pid in "${engine_pid[@]+"${engine_pid[@]}"}" "${host_pid[@]+"${host_pid[@]}"}" $switch_pid; do
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	host_pid=() engine_pid=() switch_pid='' hosts=0
}
after_kills+=(hosts_down)

# ---- what has to be there ----

# requires_hosts zookeeper|corosync: else the test is skipped, with the reason.
requires_hosts() {
	[ "$(id -u)" = 0 ] || skip "hosts need root, for network namespaces"
	requires ip nft nsenter unshare setpriv jq
	case $1 in
	zookeeper)
		requires java
		[ -r $zookeeper_jar ] || skip "no ZooKeeper server is installed"
		;;
	corosync) requires corosync corosync-quorumtool ;;
	*) fail "no engine of this name: $1" ;;
	esac
	unshare --net --mount true 2>/dev/null || skip "network namespaces are not allowed here"
	unshare --net sh -c 'ip link add name br type bridge && ip link add name va type veth peer name vb' 2>/dev/null ||
		skip "this kernel has no bridges or no veth"
	unshare --net sh -c 'nft add table bridge t && nft add chain bridge t c "{ type filter hook forward priority 0; }"' \
		2>/dev/null || skip "this kernel has no nftables for bridges"
}

# ---- hosts and links ----

# A process that holds new namespaces; its number is in $held. A killed corosync leaves files in /dev/shm.
hold() {
	setpriv --pdeathsig KILL unshare --net --mount --propagation private sh -c "
		mount -t tmpfs -o size=16m tmpfs /run && mount -t tmpfs tmpfs /dev/shm && ip link set dev lo up && echo >'$work/held' && exec sleep infinity" \
		</dev/null >/dev/null 2>>"$work/hosts.log" &
	held=$!
	wait_until 10 test -e "$work/held"
	rm "$work/held"
}

# on HOST COMMAND...: run there. on_switch COMMAND...
on() {
	local pid=${host_pid[$1]}
	shift
	nsenter -t "$pid" --net --mount -- "$@"
}
on_switch() {
	nsenter -t "$switch_pid" --net -- "$@"
}

# add_host N: with its link; a further one may come at any time.
add_host() {
	local i=$1
	hold
	host_pid[$i]=$held
	on_switch ip link add name "h$i" type veth peer name eth0 netns "$held"
	on_switch ip link set dev "h$i" master br up
	on "$i" ip address add "10.77.0.$i/24" dev eth0
	on "$i" ip link set dev eth0 up
	sheep_enter[$i]="setpriv --pdeathsig KILL nsenter -t $held --net --mount --"
	sheep_network[$i]="-p 10.77.0.$i:7000 --insecure"
	hosts=$((i > hosts ? i : hosts))
}

# hosts_up N zookeeper|corosync: hosts 1 to N, and the engine on them (ZooKeeper on three at most).
hosts_up() {
	local i
	engine_kind=$2
	requires_hosts "$engine_kind"
	hold
	switch_pid=$held
	on_switch ip link add name br type bridge
	on_switch ip link set dev br up
	on_switch nft -f - <<-END
		table bridge cuts {
			set drops { type ifname . ifname; }
			chain forward { type filter hook forward priority 0; iifname . oifname @drops drop; }
		}
	END
	for ((i = 1; i <= $1; i++)); do add_host "$i"; done
	"${engine_kind}_setup" "$1"
	for ((i = 1; i <= $1; i++)); do engine_start "$i"; done
	for ((i = 1; i <= $1; i++)); do wait_until 60 engine_up "$i"; done
}

# cut_way A B: what A sends does not reach B any more. Nobody is told.
cut_way() {
	on_switch nft add element bridge cuts drops "{ h$1 . h$2 }"
}

# cut_link A B: neither hears the other.
cut_link() {
	on_switch nft add element bridge cuts drops "{ h$1 . h$2, h$2 . h$1 }"
}

# part "HOST..." "HOST..." ...: these groups do not hear each other; at once.
part() {
	local elements='' a b i j
	for ((i = 1; i <= $#; i++)); do
		for ((j = 1; j <= $#; j++)); do
			[ $i != $j ] || continue
			for a in ${!i}; do
				for b in ${!j}; do elements="$elements${elements:+, }h$a . h$b"; done
			done
		done
	done
	on_switch nft add element bridge cuts drops "{ $elements }"
}

others_of() {
	local i
	for ((i = 1; i <= hosts; i++)); do
		[ "$i" = "$1" ] || [ -z "${host_pid[$i]:-}" ] || echo -n "$i "
	done
}

# isolate HOST: from all others, both ways.
isolate() {
	part "$1" "$(others_of "$1")"
}

# All links are whole again, but for unplugged ones.
heal() {
	on_switch nft flush set bridge cuts drops
}

# unplug HOST, plug HOST: the cable; the host sees its link go down.
unplug() {
	on_switch ip link set dev "h$1" down
}
plug() {
	on_switch ip link set dev "h$1" up
}

# ---- engines ----

# engine_start HOST; engine_kill HOST [SIGNAL]; engine_up HOST: is it ready to serve?
engine_start() {
	"${engine_kind}_start" "$1"
}

engine_kill() {
	local pid=${engine_pid[$1]:-}
	[ -n "$pid" ] || return 0
	kill -"${2:-KILL}" "$pid"
	wait "$pid" 2>/dev/null || true
	unset "engine_pid[$1]"
}

engine_up() {
	[ -z "${engine_pid[$1]:-}" ] || "${engine_kind}_up" "$1"
}

# engine_add HOST, engine_remove HOST: the members of the engine change while it runs. ZooKeeper's servers stay on
# the first three hosts: there it is a start and an end only.
engine_add() {
	"${engine_kind}_add" "$1"
	engine_start "$1"
	wait_until 60 engine_up "$1"
}
engine_remove() {
	engine_kill "$1" TERM
	"${engine_kind}_remove" "$1"
}

# All of a host at once, as when its power goes, and again. What its links do is not touched.
host_kill() { # HOST...
	local i
	for i; do kill -KILL ${engine_pid[$i]:-} "${sheep_pid[$i]}"; done
	for i; do
		wait "${engine_pid[$i]:-}" 2>/dev/null || true
		unset "engine_pid[$i]"
		wait_gone "$i"
	done
}

# ZooKeeper: servers on the first three hosts (one, if there are fewer). zoo.cfg as docs/engines.md recommends;
# ZOOKEEPER_CONFIG has lines that replace them.
zookeeper_setup() {
	local i
	zookeeper_servers=$(($1 >= 3 ? 3 : 1))
	zookeeper_lines=
	engine=
	for ((i = 1; i <= zookeeper_servers; i++)); do
		zookeeper_lines="${zookeeper_lines}server.$i=10.77.0.$i:2888:3888"$'\n'
		engine="$engine${engine:+,}10.77.0.$i:2181"
	done
	engine=zookeeper:$engine/flock
	for ((i = 1; i <= zookeeper_servers; i++)); do
		mkdir -p "$work/zookeeper$i"
		echo "$i" >"$work/zookeeper$i/myid"
		cat >"$work/zoo$i.cfg" <<-END
			${ZOOKEEPER_CONFIG:-$(zookeeper_recommended)}
			dataDir=$work/zookeeper$i
			clientPort=2181
			admin.enableServer=false
			4lw.commands.whitelist=srvr
			$zookeeper_lines
		END
	done
}

zookeeper_add() { :; }
zookeeper_remove() { :; }

zookeeper_recommended() {
	sed -n '/^```zoo.cfg/,/^```$/p' "${top_srcdir:?}/docs/engines.md" | grep -E '^(tickTime|initLimit|syncLimit)='
}

zookeeper_start() {
	[ "$1" -le "$zookeeper_servers" ] || return 0
	${sheep_enter[$1]} java -Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dzookeeper.preAllocSize=4096 \
		-Dorg.slf4j.simpleLogger.showDateTime=true "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS" \
		-cp $zookeeper_jar:/usr/share/java/slf4j-simple.jar org.apache.zookeeper.server.quorum.QuorumPeerMain "$work/zoo$1.cfg" \
		>>"$work/zookeeper$1.log" 2>&1 </dev/null &
	engine_pid[$1]=$!
}

# zookeeper_mode HOST: leader, follower, standalone; nothing while it is none of them.
zookeeper_mode() {
	on "$1" timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/2181 && echo srvr >&3 && cat <&3' 2>/dev/null |
		sed -n 's/^Mode: //p'
}
zookeeper_up() {
	[ -n "$(zookeeper_mode "$1")" ]
}

# corosync: one on each host. corosync.conf as docs/engines.md recommends, or COROSYNC_TOTEM for its times.
corosync_setup() {
	local i
	corosync_hosts=()
	for ((i = 1; i <= $1; i++)); do corosync_hosts+=($i); done
	corosync_configure
	engine=corosync:flock
}

# The list of hosts has changed: all that run read it again.
corosync_reload() {
	local i
	corosync_configure
	for i in "${corosync_hosts[@]}"; do
		if [ -n "${engine_pid[$i]:-}" ]; then
			on "$i" corosync-cfgtool -R >>"$work/hosts.log"
			return
		fi
	done
}
corosync_add() {
	corosync_hosts+=("$1")
	corosync_reload
}
corosync_remove() {
	local i left=()
	for i in "${corosync_hosts[@]}"; do [ "$i" = "$1" ] || left+=("$i"); done
	corosync_hosts=("${left[@]}")
	rm -f "$work/corosync$1.conf"
	corosync_reload
}

corosync_recommended() {
	sed -n '/^```corosync.conf/,/^```$/p' "${top_srcdir:?}/docs/engines.md" |
		grep -E '^[[:space:]]*(token|token_coefficient|consensus): '
}

corosync_configure() {
	local i
	for i in "${corosync_hosts[@]}"; do corosync_conf "$i"; done
}

corosync_conf() {
	local i
	mkdir -p "$work/corosync$1"
	{
		cat <<-END
			totem {
				version: 2
				cluster_name: flock
				transport: knet
				crypto_cipher: none
				crypto_hash: none
				${COROSYNC_TOTEM:-$(corosync_recommended)}
			}
			system {
				state_dir: $work/corosync$1
			}
			logging {
				to_logfile: yes
				logfile: $work/corosync$1.log
				to_syslog: no
				timestamp: hires
			}
			quorum {
				provider: corosync_votequorum
				$([ ${#corosync_hosts[@]} != 2 ] || echo "two_node: 1")
			}
			nodelist {
		END
		for i in "${corosync_hosts[@]}"; do
			printf 'node {\n\tring0_addr: 10.77.0.%d\n\tname: host%d\n\tnodeid: %d\n}\n' "$i" "$i" "$i"
		done
		echo "}"
	} >"$work/corosync$1.conf"
}

corosync_start() {
	[ -e "$work/corosync$1.conf" ] || return 0
	${sheep_enter[$1]} corosync -f -c "$work/corosync$1.conf" >>"$work/corosync$1.out" 2>&1 </dev/null &
	engine_pid[$1]=$!
}

corosync_up() {
	on "$1" corosync-quorumtool -s | grep -q '^Quorate: *Yes'
}

# corosync_rings: how many memberships the corosyncs of all hosts have formed up to now.
corosync_rings() {
	cat "$work"/corosync*.log | grep -c 'A new membership' || true
}
has_formed_rings() { # COUNT
	[ "$(corosync_rings)" -ge "$1" ]
}
