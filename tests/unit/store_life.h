/*
 * A random life of a store for the tests that cut its power: entries of every kind, commit points,
 * syncs, and a journal of them with what is surely on stable storage.
 *
 * One shard: the log is one order of entries, so what survives is a prefix of the journal.
 */
#ifndef TESTS_STORE_LIFE_H
#define TESTS_STORE_LIFE_H

#include "tests/unit/store_model.h"

#define JOURNAL_MAX 8192u

struct flight {
	struct rig_append a;
	uint32_t index; /* in the journal, + 1 */
};

struct sync_call {
	struct loop_op op;
	struct life *life;
	uint32_t covers;
	bool is_busy;
};

/* One run: a store, its model, and what may be lost. */
struct life {
	struct rig rig;
	struct random *random;
	struct model base;   /* before the journal */
	struct model newest; /* base and the whole journal */
	struct model_op journal[JOURNAL_MAX];
	uint32_t journal_count;
	uint32_t durable;   /* of the journal, surely on stable storage */
	uint32_t completed; /* of the journal, acknowledged in order */
	struct flight *flights[JOURNAL_MAX];
	struct sync_call syncs[16];
	struct version told[RIG_PGS]; /* newest commit point */
	struct version tail[RIG_PGS]
			   [MODEL_TAILS]; /* sequenced versions since the last recovery's commit */
	uint32_t tail_count[RIG_PGS];
	uint64_t next_n[RIG_PGS];
	uint64_t next_number[MODEL_SESSIONS];
	uint32_t next_tag;
	/* of each kind of entry, how many were appended */
	uint32_t pushes, deletes, trims;
	/* what the run saw */
	uint64_t lost_entries, kept_unsynced, cuts_in_flight, refused_full, damages;
};

void life_init(struct life *life, uint64_t seed, const struct store_options *options);
void life_done(struct life *life);
uint32_t life_below(struct life *life, uint32_t bound);
/* Append one random change. It may be refused for space. */
void life_change(struct life *life);
/* Act at random until about so many events of the world have passed. */
void life_run(struct life *life, uint32_t events);
/* Raises `completed` and `durable` to what is known by now. */
void life_note_completed(struct life *life);
/* The memory of all that was appended, whose completions cannot come any more. */
void life_forget_flights(struct life *life);

/*
 * Which prefix of the journal, of at least @at_least entries, is @actual? True, and the model and the number of
 * entries; or false after it has said on stdout what comes nearest.
 */
bool life_find_prefix(const struct life *life, const struct model *actual, uint32_t at_least,
		      const char *what, struct model *expected, uint32_t *count);
/*
 * What damage allows: forget in @expected, the state after @count entries, what @actual forgot for a
 * reason that a checkpoint may know early.
 */
void life_allow_forgotten(const struct life *life, struct model *expected,
			  const struct model *actual, uint32_t count);
/* The tails and commit points of @rig are those of @expected. */
void life_check_records(const struct life *life, struct rig *rig, const struct model *expected);
/* Life goes on from @expected, in the state of life->rig. */
void life_adopt(struct life *life, const struct model *expected);

#endif
