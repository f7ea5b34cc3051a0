# hosts-four.sh, with ENGINE=zookeeper or corosync: a fourth host is added and the first removed under verified I/O; four hosts are split
# in halves. Nobody in a half without the engine's majority is answered, nor anybody who would need a copy there.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/hosts.sh"
. "${top_srcdir:?}/tests/functional/load.sh"

id_of() { collie "$1" --json node list | jq '.[] | select(.is_self) | .id'; }
copies_of() { collie 2 --json node list | jq ".[] | select(.id == $1) | .copies"; }
is_known() { collie "$1" --json node list | jq -e '.[] | select(.is_self) | .status == "up"'; }

start_host() {
	start_sheep "$1"
	wait_until 30 sheep_is_up "$1"
	wait_until 30 is_known "$1"
}

# served_by_two: every placement group with copies on hosts 1 and 2 is served by these alone.
served_by_two() {
	local here
	here=$(collie 1 --json store list | jq -c --arg work "$work/store" '[.[] | select(.path == $work + "1" or .path == $work + "2") | .uuid]')
	collie 1 --json pg list | jq -e --argjson here "$here" '
		[.[] | select(.target | inside($here) or (. - $here | length) == 1)] |
		length > 0 and all(.[]; (.isr - $here) == [] and .status != "down")'
}

hosts_up 3 "${ENGINE:?}"
start_cluster 3 --pgs 32 >"$work/out"
collie 1 vdi create disk 130M --set access=shared >"$work/out"

# Drain the first while the fourth fills; then it is forgotten, and its machine switched off.
load_begin 2 3
add_host 4
engine_add 4
start_host 4
first=$(id_of 1)
collie 2 node drain "$first" >"$work/out"
wait_until 60 prints 0 copies_of "$first"
kill -TERM "${sheep_pid[1]}"
wait_gone 1
[ "$sheep_rc" = 0 ] || fail "the drained sheep exits with $sheep_rc"
wait_until 30 collie 2 node remove "$first"
engine_remove 1
healthy_again 3 "4 came, 1 went"
load_end

# It comes back as a new one.
engine_add 1
rm -rf "$work/store1"
start_host 1
wait_healthy 4 >"$work/out"

load_begin 1 2 3 4
rounds=${SHEEPFOLD_LONG:+6}
for ((round = 1; round <= ${rounds:-1}; round++)); do
	part "1 2" "3 4"
	for i in 3 4; do wait_until 20 is_silent $i; done
	# What has no copy, or no majority, over there is served here: by ZooKeeper's two servers of three.
	if [ "$ENGINE" = zookeeper ]; then wait_until 30 served_by_two; else is_silent 1 && is_silent 2; fi
	for i in 3 4; do is_silent $i || fail "host $i is in a minority, and is answered"; done
	heal
	healthy_again 4 "two and two"
done
# Nobody has a majority.
part "1 2" 3 4
for i in 1 2 3 4; do wait_until 20 is_silent $i; done
for i in 1 2 3 4; do is_silent $i || fail "host $i is in a minority, and is answered"; done
heal
healthy_again 4 "two and one and one"
load_end
