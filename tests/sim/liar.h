/*
 * A peer that lies to one member of a herd: it calls itself what it likes, and sends what it likes. Its content is
 * 0x5a throughout.
 */
#ifndef TESTS_LIAR_H
#define TESTS_LIAR_H

#include "include/proto/peer.h"
#include "tests/sim/herd.h"

struct liar {
	struct herd *herd;
	unsigned victim; /* a node */
	uint32_t store;	 /* the victim's */
	struct sim_host *host;
	struct loop *loop;
	struct net *net;
	struct net_link *links[PEER_CLASS_COUNT]; /* to the victim */
	struct buffer *buffer;			  /* its payloads */
};

/* A healthy herd of three nodes, three copies and one PG, with two objects of HERD_VOLUME written. */
struct herd *liar_herd(uint64_t seed);

/* @self: the node it says it is; copied. */
struct liar *liar_new(struct herd *herd, unsigned victim, const struct uuid *self);
/* A node that nobody knows. */
struct liar *liar_new_stranger(struct herd *herd, unsigned victim);
/* It says that it is the primary of PG 0, to the node after that one. */
struct liar *liar_new_impostor(struct herd *herd);
void liar_free(struct liar *liar);

/*
 * Send and wait for the answer.
 *
 * @payload_size: bytes of the liar's buffer, from its start.
 *
 * Returns the result.
 */
int liar_tell(struct liar *liar, unsigned class, uint16_t op, const void *body, uint32_t body_size,
	      uint32_t payload_size);
/* Send, and wait for nothing: some ops have no answer, and some wait for a map that never comes. */
void liar_drop(struct liar *liar, unsigned class, uint16_t op, const void *body, uint32_t body_size,
	       uint32_t payload_size);

/* An append to an object of the volume that is in the only PG: right in everything but who sends it. */
struct peer_append liar_append(struct herd *herd, uint32_t store);

#endif
