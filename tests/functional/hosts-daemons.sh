# hosts-daemons.sh, with ENGINE=zookeeper or corosync: daemons of three hosts are killed and restarted, the engine's and
# the sheep, under verified I/O through two gateways. What is open goes on without the engine; after all
# were killed any order of starts will do.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/hosts.sh"
. "${top_srcdir:?}/tests/functional/load.sh"

# The log takes commands again, through every sheep.
log_goes_on() {
	local i
	for i in 1 2 3; do wait_until 30 collie $i --timeout 5 vdi create "v$((made += 1))" 10M; done
}

# The engine's daemon of one host alone.
one_engine() { # HOST
	load_begin "$1" $(($1 % 3 + 1))
	engine_kill "$1"
	goes_on "$1"
	goes_on $(($1 % 3 + 1))
	engine_start "$1"
	wait_until 60 engine_up "$1"
	log_goes_on
	healthy_again 3 "engine of $1 killed"
	load_end
}

# Commands that wait for the log until their time is over exit with 6, as the table in collie(8) says.
log_waits_in_vain() {
	local command
	# Harmless ones: what was on its way when the last server died may happen later.
	for command in "vdi create w$((made += 1)) 10M" "vdi set disk iops 0" "cluster set recovery_rate 1G" "node undrain 1"; do
		# shellcheck disable=SC2086 # words
		expect_exit 6 collie 1 --timeout 2 $command
		grep -q "no quorum" "$work/err" || fail "$command: $(cat "$work/err")"
	done
}

# All engine daemons: nothing can change, and what is open goes on.
all_engines() {
	local i
	load_begin 1 2 3
	for i in 1 2 3; do engine_kill $i; done
	for i in 1 2 3; do goes_on $i; done
	log_waits_in_vain
	for i in 1 2 3; do goes_on $i; done
	shuffle 1 2 3
	for i in "${shuffled[@]}"; do engine_start "$i"; done
	for i in 1 2 3; do wait_until 60 engine_up $i; done
	log_goes_on
	healthy_again 3 "all engines killed"
	load_end
}

shuffle() { # WORD...
	local all=("$@") at
	shuffled=()
	while [ ${#all[@]} -gt 0 ]; do
		at=$((RANDOM % ${#all[@]}))
		shuffled+=("${all[$at]}")
		unset "all[$at]"
		all=("${all[@]}")
	done
}

# Everything at once, and started in any order, some later than others.
everything() {
	local what i
	load_begin 1 3
	host_kill 1 2 3
	shuffle e1 e2 e3 s1 s2 s3
	for what in "${shuffled[@]}"; do
		case $what in
		e*) engine_start "${what#e}" ;;
		s*) start_sheep "${what#s}" ;;
		esac
		sleep "0.$((RANDOM % 6))"
	done
	for i in 1 2 3; do wait_until 60 sheep_is_up $i; done
	log_goes_on
	healthy_again 3 "all killed, started as ${shuffled[*]}"
	load_end
}

# One host after the other is stopped cleanly and comes back.
rolling() {
	local i
	load_begin 1 2
	for i in 1 2 3; do
		kill -TERM "${sheep_pid[$i]}"
		wait_gone $i
		[ "$sheep_rc" = 0 ] || fail "sheep $i exits with $sheep_rc"
		engine_kill $i TERM
		engine_start $i
		start_sheep $i
		wait_until 60 sheep_is_up $i
		wait_healthy 3 >"$work/out"
	done
	healthy_again 3 "a rolling restart"
	load_end
}

seed=${SEED:-$RANDOM}
echo "seed $seed"
RANDOM=$((seed % 32768))
made=0
hosts_up 3 "${ENGINE:?}"
start_cluster 3 --pgs 32 >"$work/out"
collie 1 vdi create disk 130M --set access=shared >"$work/out"

rounds=${SHEEPFOLD_LONG:+5}
for ((round = 1; round <= ${rounds:-1}; round++)); do
	one_engine $((RANDOM % 3 + 1))
	all_engines
	everything
	rolling
done
