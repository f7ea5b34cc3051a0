/* The client's side of lib/nbd, whose bytes are moved by hand: for its tests. */
#ifndef TESTS_UNIT_NBD_US_H
#define TESTS_UNIT_NBD_US_H

#include "lib/base/size.h"
#include "tests/unit/nbd_peer.h"

enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES };

struct us {
	struct nbd_host host;
	struct nbd_connector *connector;
	struct nbd_client *client;
	struct blob out;
	char listed[256];
};

/* Before the first byte. */
void us_init(struct us *us, enum nbd_goal goal, const char *name);
void us_done(struct us *us);
/* Collect what we say, @step bytes at a time. */
void us_send(struct us *us, size_t step);
/* From the server. Returns how much was taken. */
size_t us_feed(struct us *us, const uint8_t *data, size_t size);
enum nbd_connector_state us_state(const struct us *us);

#endif
