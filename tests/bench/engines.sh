#!/bin/bash
# What the engines of several machines cost, on hosts of network namespaces:
#
#	top_srcdir=. top_builddir=build tests/bench/engines.sh [ENGINE]... >TABLE
#
# For zookeeper and corosync (or those that are named), on three hosts: commands per second, one and 32 at a time; then random 4 KiB
# writes, 16 in flight, through the gateway of a host that lives, while another one loses its power (cut off without a word,
# its processes killed): any host, and for ZooKeeper one of a follower and that of the leader; while only its sheep is killed; and while only the
# engine's daemon there is. With the settings of docs/engines.md, and power also with the engine's own defaults. The longest wait of any write
# counts; a client error ends the run. SHEEPFOLD_LONG=1: 10 rounds of each, else 3.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/hosts.sh"
. "${top_srcdir:?}/tests/bench/writes.sh"
requires jq
bench=$(realpath "${top_builddir:?}/tests/bench/bench_engine")

row() { # ENGINE SETTINGS WHAT VALUE...
	local head="| $1 | $2 | $3 |"
	shift 3
	printf '%s\n' "$@" | sort -n | awk -v head="$head" \
		'{ v[NR] = $1 } END { print head, NR, "|", v[int((NR + 1) / 2)], "|", v[NR], "|" }'
}

in_mode() { # leader|follower: the first host whose ZooKeeper server is that
	local i
	for i in 1 2 3; do
		if [ "$(zookeeper_mode $i)" = "$1" ]; then
			echo $i
			return
		fi
	done
}

# power KIND SETTINGS: of hosts; of the leader's last, when a round costs most.
power() {
	if [ "$1" = zookeeper ]; then
		faults "$1" "$2" "power of a follower's host" power 'in_mode follower'
		faults "$1" "$2" "power of the leader's host" power 'in_mode leader'
	else
		faults "$1" "$2" "power of a host" power 'echo $((round % 3 + 1))'
	fi
}

# ---- commands ----

commands() { # KIND
	local i members=()
	for i in 2 3; do
		${sheep_enter[$i]} "$bench" "$(bench_spec)" "$work/bench$i" >"$work/member$i.out" 2>&1 </dev/null &
		members+=($!)
		background+=($!)
	done
	for i in 2 3; do wait_until 30 grep -q ready "$work/member$i.out"; done
	on 1 timeout 60 "$bench" "$(bench_spec)" "$work/bench1" 5 200 1 32 >"$work/commands" 2>"$work/commands.log" ||
		fail "bench_engine"
	jq -r '"| \(.engine) | \(.window) | \(.per_second) | \(.mean_ms) | \(.max_ms) |"' "$work/commands" >>"$work/rates"
	kill "${members[@]}"
	wait "${members[@]}" || true
}

bench_spec() {
	case $engine_kind in
	zookeeper) echo "${engine%/*}/bench" ;;
	corosync) echo corosync:bench ;;
	esac
}

# ---- faults ----

well_again() {
	local i
	for i in 1 2 3; do wait_until 60 engine_up $i; done
	wait_whole
}

strike() { # power|sheep|engine HOST
	case $1 in
	power)
		isolate "$2"
		host_kill "$2"
		writes_go_on
		heal
		engine_start "$2"
		start_sheep "$2"
		;;
	sheep)
		kill_sheep "$2"
		writes_go_on
		start_sheep "$2"
		;;
	engine)
		engine_kill "$2"
		writes_go_on
		engine_start "$2"
		;;
	esac
}

# faults KIND SETTINGS WHAT power|sheep|engine VICTIM-EXPRESSION
faults() {
	local round victim values=()
	fault=$3
	for ((round = 1; round <= rounds; round++)); do
		victim=$(eval "$5")
		begin_writes $((victim % 3 + 1))
		strike "$4" "$victim"
		end_writes
		values+=($longest)
		well_again
	done
	row "$1" "$2" "$3" "${values[@]}" >>"$work/waits"
}

cluster() { # KIND
	hosts_up 3 "$1"
	start_cluster 3 >"$work/out"
	collie 1 vdi create disk 64M >"$work/out"
}

all_down() {
	local i
	for i in "${!sheep_pid[@]}"; do kill_sheep "$i"; done
	hosts_down
	rm -rf "$work"/store? "$work"/run? "$work"/zookeeper? "$work"/corosync? "$work"/state* "$work"/bench*
}

measure() { # KIND
	cluster "$1"
	commands "$1"
	power "$1" recommended
	faults "$1" recommended "kill -9 of a sheep" sheep 'echo $((round % 3 + 1))'
	faults "$1" recommended "kill -9 of the engine's daemon of a host" engine 'echo $((round % 3 + 1))'
	all_down
	export ZOOKEEPER_CONFIG=$'tickTime=2000\ninitLimit=10\nsyncLimit=5' COROSYNC_TOTEM='# its own times'
	cluster "$1"
	power "$1" defaults
	unset ZOOKEEPER_CONFIG COROSYNC_TOTEM
	all_down
}

[ $# -gt 0 ] || set -- zookeeper corosync
for kind; do measure "$kind"; done
echo "| engine | under way | commands/s | mean ms | worst ms |"
echo "|---|--:|--:|--:|--:|"
cat "$work/rates"
echo
echo "| engine | settings | fault | rounds | longest write, median ms | worst ms |"
echo "|---|---|---|--:|--:|--:|"
cat "$work/waits"
