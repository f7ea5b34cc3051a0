# hosts-split.sh, with ENGINE=zookeeper or corosync: links between three hosts are cut and heal, under verified I/O
# through two gateways or all three. Who still belongs to the majority is answered, who does not is not,
# nobody sees an error, and when the links are whole again everything comes back by itself.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/hosts.sh"
. "${top_srcdir:?}/tests/functional/load.sh"

# One host hears nobody: writers on both sides; whoever led is replaced, and who is alone is not answered.
alone() { # HOST isolate|unplug
	local other=$(($1 % 3 + 1))
	load_begin "$1" "$other"
	if [ "$2" = unplug ]; then unplug "$1"; else isolate "$1"; fi
	goes_on "$other" 60
	wait_until 20 is_silent "$1"
	goes_on "$other"
	is_silent "$1" || fail "host $1 is alone, and is answered"
	if [ "$2" = unplug ]; then plug "$1"; else heal; fi
	healthy_again 3 "$2 $1"
	load_end
}

# A does not reach B, B reaches A, and the third reaches both. Clients of A and B wait for placement groups that the
# other one leads, until the link is whole. The third is answered where the engine can agree: corosync forms no
# ring that lasts among members of which not all reach each other.
one_way() { # A B
	local third=$((6 - $1 - $2)) rings
	load_begin "$1" "$2" $third
	cut_way "$1" "$2"
	if [ "$ENGINE" = corosync ]; then
		rings=$(corosync_rings)
		wait_until 60 has_formed_rings $((rings + 4))
	else
		goes_on $third 60
		goes_on $third
	fi
	heal
	healthy_again 3 "$1 does not reach $2"
	load_end
}

# A link that comes and goes: the times are the test.
flapping() { # HOST TIMES
	local other=$(($1 % 3 + 1)) n
	load_begin "$1" "$other"
	for ((n = 0; n < $2; n++)); do
		isolate "$1"
		sleep "0.$((RANDOM % 9 + 1))"
		heal
		sleep "0.$((RANDOM % 9 + 1))"
	done
	healthy_again 3 "$2 flaps of $1"
	load_end
}

# Everybody is alone, and nobody is answered.
all_alone() {
	local i
	load_begin 1 2 3
	part 1 2 3
	for i in 1 2 3; do wait_until 20 is_silent $i; done
	for i in 1 2 3; do is_silent $i || fail "host $i is alone, and is answered"; done
	heal
	healthy_again 3 "all alone"
	load_end
}

seed=${SEED:-$RANDOM}
echo "seed $seed"
RANDOM=$((seed % 32768))
hosts_up 3 "${ENGINE:?}"
start_cluster 3 --pgs 32 >"$work/out"
collie 1 vdi create disk 130M --set access=shared >"$work/out"

rounds=${SHEEPFOLD_LONG:+10}
victim=$((RANDOM % 3 + 1))
for ((round = 1; round <= ${rounds:-1}; round++)); do
	alone $victim isolate
	one_way $victim $((victim % 3 + 1))
	victim=$((victim % 3 + 1))
	flapping $victim 4
	alone $victim unplug
	all_alone
done
