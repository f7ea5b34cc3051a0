/*
 * Requests to one sheep, one at a time, blocking: a link of lib/net, and a loop that is turned
 * until the answer has come or the deadline has passed.
 */
#ifndef COLLIE_CALL_H
#define COLLIE_CALL_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "collie/failure.h"
#include "include/proto/admin.h"

struct call;

/*
 * Make ready to ask @sheep, "unix:PATH" or "HOST:PORT". Host names are looked up; nothing is dialled
 * yet. 0, or an exit code and @failure.
 */
int call_new(const char *sheep, struct call **out, struct failure *failure);
void call_free(struct call *call); /* NULL is allowed */

uint64_t call_now(const struct call *call); /* ns, as deadlines */
/* Wait; the connection stays alive. */
void call_sleep(struct call *call, uint64_t until_ns);

struct call_reply {
	struct json_object *document; /* an object or a list; the caller's */
	bool has_more;		      /* of a list */
};

/*
 * Send one request and wait for its reply. @arguments: borrowed, an object; NULL: none. 0, or an exit
 * code and @failure: what the sheep refused, why it cannot be reached, or that its answer makes
 * no sense.
 */
int call_request(struct call *call, enum admin_op op, struct json_object *arguments,
		 uint64_t deadline_ns, struct call_reply *out, struct failure *failure);

#endif
