/*
 * A sheep that says what a test tells it to: the server side of lib/net on a thread of its own,
 * with a script of answers; or, below that, a socket that sends given bytes.
 */
#ifndef TESTS_FAKE_SHEEP_H
#define TESTS_FAKE_SHEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "include/proto/admin.h"
#include "include/proto/status.h"

enum fake_action {
	FAKE_ANSWER = 0,
	FAKE_SILENCE, /* never answer */
	FAKE_HANG_UP, /* close the connection instead */
	FAKE_REPEAT,  /* answer, and the same to the next request too, for ever */
};

/* One request that is to come, and its answer. */
struct fake_step {
	enum admin_op op;
	/* The arguments as JSON, compared by value; NULL: none ("{}" matches too). */
	const char *arguments;
	int status; /* negative code, or 0 */
	const char *reply;
	uint32_t reply_size; /* 0: strlen(reply) */
	uint32_t flags;	     /* enum admin_reply_flags */
	enum fake_action action;
};

struct fake_sheep;

/*
 * Listen at @address and speak this version of the protocol and no other. Asserts what must
 * not fail.
 */
struct fake_sheep *fake_sheep_start(const char *address, uint16_t version);
void fake_sheep_stop(struct fake_sheep *sheep);
const char *fake_sheep_address(const struct fake_sheep *sheep); /* with the real port */

/* From now on expect these (borrowed), in this order; ends with op 0. */
void fake_sheep_script(struct fake_sheep *sheep, const struct fake_step *steps);
/* Were all asked, and nothing else? Fails the test if not. */
void fake_sheep_check(struct fake_sheep *sheep);
/* The deadline of the last request, ms. */
uint32_t fake_sheep_deadline_ms(struct fake_sheep *sheep);

/* Accept connections at unix:@path and send each these bytes, then close it if @hang_up. */
struct fake_socket;
struct fake_socket *fake_socket_start(const char *path, const void *bytes, uint32_t size,
				      bool hang_up);
void fake_socket_stop(struct fake_socket *socket);

#endif
