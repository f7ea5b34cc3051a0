#!/bin/bash
# What faults cost, with real daemons on this machine:
#
#	top_srcdir=. top_builddir=build tests/bench/failover.sh [JSON-FILE]
#
# Random 4 KiB writes, 16 in flight, through the gateway of one sheep of three, local engine, default settings, while
# another one is killed with -9, or stopped for 5 s (the primary of all placement groups, or a replica). The longest wait
# of any single write counts; a client error ends the run. Then a node is away under 2,000 writes a second, and what its
# return moves is compared with the distinct blocks that were written. SHEEPFOLD_LONG=1: 10 rounds of each and 60 s; else 3 and 6 s.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/bench/writes.sh"
requires jq nbdcopy
json=${1:-}
store_size=4G
seconds=$([ -n "${SHEEPFOLD_LONG:-}" ] && echo 60 || echo 6)
results=$work/results
: >"$results"

# note NAME UNIT LIMIT VALUE...: a row of the table.
note() {
	local name=$1 unit=$2 limit=$3
	shift 3
	printf '%s\n' "$@" | jq -s --arg name "$name" --arg unit "$unit" --arg limit "$limit" \
		'sort | {name: $name, unit: $unit, limit: $limit, rounds: length, median: .[(length - 1) / 2 | floor], max: last}' \
		>>"$results"
}

# The sheep that leads the only placement group.
leader() {
	local i primary
	primary=$(collie 1 --json pg list | jq -r '.[0].primary')
	for i in 1 2 3; do
		if collie 1 --json store list | jq -e --arg primary "$primary" --arg path "$work/store$i" \
			'any(.[]; .path == $path and .uuid == $primary)' >/dev/null; then
			echo $i
		fi
	done
}

strike() { # kill|stop VICTIM
	if [ "$1" = kill ]; then
		kill_sheep "$2"
		writes_go_on
		start_sheep "$2"
	else
		kill -STOP "${sheep_pid[$2]}"
		sleep 5 # the fault is that it does nothing for so long
		kill -CONT "${sheep_pid[$2]}"
		writes_go_on
	fi
}

# 256 placement groups: everybody leads some.
start_cluster 3 >"$work/out"
collie 1 vdi create disk 64M >"$work/out"
values=()
for ((round = 1; round <= rounds; round++)); do
	begin_writes $((round % 3 + 1))
	writes_go_on
	writes_go_on
	end_writes
	values+=($longest)
done
note "no fault: longest write" ms - "${values[@]}"
fault="kill -9"
values=()
for ((round = 1; round <= rounds; round++)); do
	begin_writes $((round % 3 + 1))
	strike kill $(((round + 1 + round / 3 % 2) % 3 + 1))
	end_writes
	values+=($longest)
	wait_whole
done
note "kill -9 of a sheep: longest write" ms "median < 1000" "${values[@]}"

moved() {
	collie 1 --json recovery info | jq -e '.bytes_moved'
}
fault="away"
# Far more blocks than are written meanwhile: a full copy would move several times as much.
collie 1 vdi create wide 1G >"$work/out"
head -c 1G /dev/urandom >"$work/image"
nbdcopy --flush "$work/image" "nbd+unix:///wide?socket=$work/nbd1"
rm "$work/image"
kill_sheep 2
before=$(moved)
BLOCKS=262144 RATE=2000 COUNT=$((2000 * seconds)) $blocks write "$work/state" /nonexistent wide "$work/nbd1" \
	>"$work/writer.out" || { cat "$work/writer.out"; fail "$fault: the writer"; }
written=$(jq '.acked | length' "$work/state")
start_sheep 2
BLOCKS=262144 wait_whole wide
note "away for $seconds s under 2,000 writes/s: bytes moved / bytes of $written distinct blocks" ratio "<= 1.2" \
	"$(jq -n "($(moved) - $before) / ($written * 4096) * 1000 | round / 1000")"
for i in 1 2 3; do kill_sheep $i; done
rm -rf "$work"/engine "$work"/store? "$work"/run?

# One placement group: who leads it is known.
start_cluster 3 --pgs 1 >"$work/out"
collie 1 vdi create disk 64M >"$work/out"
for who in primary replica; do
	fault="stopped $who"
	values=()
	for ((round = 1; round <= rounds; round++)); do
		leads=$(leader)
		[ -n "$leads" ] || fail "nobody leads"
		others=($((leads % 3 + 1)) $(((leads + 1) % 3 + 1)))
		begin_writes "${others[0]}"
		if [ $who = primary ]; then strike stop "$leads"; else strike stop "${others[1]}"; fi
		end_writes
		values+=($longest)
		wait_whole
	done
	note "SIGSTOP of $([ $who = primary ] && echo the primary || echo a replica) for 5 s: longest write" ms "< 3000" \
		"${values[@]}"
done

jq -s . "$results" >"$work/all"
[ -z "$json" ] || cp "$work/all" "$json"
echo "| what | rounds | median | worst | wanted |"
echo "|---|--:|--:|--:|---|"
jq -r '.[] | "| \(.name) | \(.rounds) | \(.median) \(.unit) | \(.max) \(.unit) | \(.limit) |"' "$work/all"
