/*
 * What a store must hold: a model that the same entries are applied to, with a journal of what a power
 * cut may take away. One shard: the log is one order of entries, and what survives is a prefix of it.
 */
#ifndef TESTS_STORE_MODEL_H
#define TESTS_STORE_MODEL_H

#include "tests/unit/store_rig.h"

#define MODEL_BLOCKS   320u /* of each object that are used */
#define MODEL_SESSIONS 2u
#define MODEL_WINDOW   64u
#define MODEL_TAILS    4096u

struct model_object {
	bool exists, is_missing;
	bool is_damaged; /* as read: nothing can be said of its content */
	struct version version;
	uint32_t tags[MODEL_BLOCKS];
};

struct model_pg {
	struct version last;
	/* executed requests: by number modulo the window; 0: none */
	struct store_request requests[MODEL_SESSIONS][MODEL_WINDOW];
	uint64_t lowest[MODEL_SESSIONS];
	struct model_object objects[RIG_OBJECTS];
};

struct model {
	struct model_pg pgs[RIG_PGS];
};

enum model_op_kind { MODEL_CHANGE, MODEL_SET_REQUESTS, MODEL_END_SESSION };

struct model_op {
	enum model_op_kind kind;
	uint32_t pg, object, flags;
	struct version version;
	uint64_t session, number, lowest;
	/* with STORE_REQUESTS: of `session`, numbers from `number` on, each with `version` */
	uint32_t request_count;
	struct version above;
	uint32_t run_count;
	struct store_run runs[4];
	uint32_t tag; /* of its first data block; the others count on */
};

uint64_t model_layer(uint32_t object);
uint32_t model_index(uint32_t object);
struct object_key model_key(uint32_t object);
/* One of those that the change brings, counted from 0. */
struct store_request model_request(const struct model_op *op, uint32_t i);
void model_apply(struct model *model, const struct model_op *op);
/* Read everything the store says; of missing objects `tags` has the sums of the blocks. */
void model_read(struct rig *rig, struct model *out);
bool model_is_equal(const struct model *expected, const struct model *actual);
/* In how many things they differ. */
uint32_t model_distance(const struct model *expected, const struct model *actual);
/* Say where they differ. */
void model_print_difference(const struct model *expected, const struct model *actual);

#endif
