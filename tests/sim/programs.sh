#!/bin/bash
# The simulator's programs: some seeds are well, a seed replays exactly, and what is broken is found.
#
# The more seeds the better: SIM_SEEDS (200, or 2000 with SHEEPFOLD_LONG: then soak fails, too, when a kind of fault, a move of
# a state machine, a refusal, a counter or a point was never hit). Further mutations: tests/sim/mutations.
set -u
run=${top_builddir:?}/tests/sim/run
soak=$top_builddir/tests/sim/soak
fail() {
	echo "$*"
	exit 1
}

# Twice the same, with and without a trace on the way, and another seed is another run.
a=$(timeout 300 "$run" 3 2>/dev/null) || fail "seed 3 failed"
b=$(timeout 300 "$run" --trace 3 2>/dev/null) || fail "seed 3 failed with a trace"
[ "$a" = "$b" ] || fail "seed 3 is not the same twice: $a; $b"
c=$(timeout 300 "$run" 4 2>/dev/null) || fail "seed 4 failed"
[ "${a#*trace}" != "${c#*trace}" ] || fail "seeds 3 and 4 are the same run"

# A failure is told, with its seed first and last.
first=${MUTANT_SEED:-1}
out=$(timeout 900 "$soak" --mutate W3_ALL_ACKNOWLEDGE --seeds "$first" 200 --until-failure --quiet) &&
	fail "nothing noticed that writes were acknowledged too early"
seed=$(sed -n 's/.*seeds failed: //p' <<<"$out")
out=$(timeout 300 "$run" --mutate W3_ALL_ACKNOWLEDGE "$seed" 2>&1) && fail "seed $seed failed in soak only"
[ "$(head -1 <<<"$out")" = "seed $seed" ] || fail "the seed does not come first: $out"
[[ $(tail -1 <<<"$out") == "seed $seed FAILED:"* ]] || [[ $out == *assert* ]] ||
	fail "the seed does not come last: $out"

many=${SHEEPFOLD_LONG:+2000}
timeout 5400 "$soak" --seeds 1 "${SIM_SEEDS:-${many:-200}}" || exit 1

# The whole table takes an hour where the seeds have to tell.
[ -z "${SHEEPFOLD_LONG:-}" ] || bash "${0%/*}/mutations" --seeds "${MUTANT_SEEDS:-300}"
