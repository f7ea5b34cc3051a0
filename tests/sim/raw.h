/*
 * Requests handed to primaries without a gateway: with any number, as often as a test likes. All are
 * about the first block of the first object of PG 0.
 */
#ifndef SIM_RAW_H
#define SIM_RAW_H

#include "tests/sim/herd.h"

struct raw {
	struct pg_io io;
	struct loop_mail mail;
	struct pg_set *set;
	struct buffer *buffer;
	struct slice slice;
	uint64_t layer;
	bool is_done;
	int result;
};

/* Three nodes, three copies, one PG of two objects. */
struct herd *raw_herd(uint64_t seed, uint32_t min_insync);
/* Start all that are down, and wait until all is well. */
void raw_heal(struct herd *herd);
/* Does the PG's primary serve? */
bool raw_is_led(struct herd *herd);
/* The session of a node's gateway. One of another node outlives the primary. */
uint64_t raw_session(struct herd *herd, unsigned node);
/*
 * To the primary's own node, at the end of its turn: until then @io may be changed. A write is of one block of @fill.
 * The caller gives it to raw_free(), or to herd_bury() if its primary may die first.
 */
struct raw *raw_begin(struct herd *herd, enum pg_io_kind kind, uint64_t session, uint64_t number,
		      uint64_t lowest, uint8_t fill);
/* Its result. */
int raw_await(struct herd *herd, struct raw *raw);
void raw_free(struct raw *raw);
/* Write, and return the result. */
int raw_write(struct herd *herd, uint64_t session, uint64_t number, uint64_t lowest, uint8_t fill);
/* Read: the block's first byte. */
uint8_t raw_read(struct herd *herd);
/* How many requests of the session does the node's store remember? */
unsigned raw_remembered(struct herd *herd, unsigned node, uint64_t session);

#endif
