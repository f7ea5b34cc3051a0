/*
 * A request on its way: dial (every address of the host in turn), send, wait.
 *
 * Nothing is sent twice: when the connection breaks after the request went out, nobody knows
 * whether the sheep has done it, and the user is told so. What comes back is checked as what it is,
 * bytes from outside: length and depth are bounded, the rest of the text must be empty.
 */
#include "collie/call.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "lib/net/net.h"
#include "lib/wire/wire.h"

#define ADDRESSES_MAX 8
/* A sheep shall give up before we do, as its text says more: so much earlier at most. */
#define HEAD_START_MS 500u
#define STOP_NS	      (2 * NS_PER_S)

struct call {
	struct loop *loop;
	struct net *net;
	struct net_link *link;
	char addresses[ADDRESSES_MAX][LOOP_ADDRESS_MAX];
	unsigned address_count;
	unsigned address; /* the one that is dialled */
	/* of the request under way */
	struct net_call request;
	struct admin_request body;
	struct slice payload;
	bool is_done;
	int result;
	uint32_t reply_flags;
	struct slice reply;
};

#define CALL_OP(name_, number, text, since_, key)       \
	[number] = {.name = text,                       \
		    .since = since_,                    \
		    .body_min = 8,                      \
		    .body_size = 8,                     \
		    .reply_min = 8,                     \
		    .reply_size = 8,                    \
		    .payload_max = ADMIN_ARGUMENTS_MAX, \
		    .reply_payload_max = ADMIN_REPLY_MAX},
_Static_assert(sizeof(struct admin_request) == 8 && sizeof(struct admin_reply) == 8,
	       "the first version's bodies, which every later one can do with");

static const struct wire_op call_ops[ADMIN_OP_END] = {ADMIN_OP_LIST(CALL_OP)};

static const struct wire_protocol call_protocol = {
	.name = "admin",
	.magic = FRAME_MAGIC_ADMIN,
	.version_min = ADMIN_VERSION_MIN,
	.version_max = ADMIN_VERSION_MAX,
	.open_classes = 1,
	.classes = 1,
	.ops = call_ops,
	.op_count = ADMIN_OP_END,
};

/* ---- addresses ---- */

static int resolve(struct call *call, const char *sheep, struct failure *failure)
{
	const char *colon = strrchr(sheep, ':');
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	char host[256];
	uint64_t port;

	if (!colon || colon == sheep || (size_t)(colon - sheep) >= sizeof(host) ||
	    text_parse_u64(colon + 1, UINT16_MAX, &port) < 0)
		return failure_set(failure, COLLIE_USAGE, "usage",
				   "--sheep: '%s' is neither unix:PATH nor HOST:PORT", sheep);
	memcpy(host, sheep, (size_t)(colon - sheep));
	host[colon - sheep] = '\0';

	int rc = getaddrinfo(host, colon + 1, &hints, &list);
	if (rc != 0)
		return failure_set(failure, COLLIE_UNREACHABLE, "unreachable", "%s: %s", sheep,
				   rc == EAI_SYSTEM ? err_text(errno) : gai_strerror(rc));
	for (struct addrinfo *a = list; a && call->address_count < ADDRESSES_MAX; a = a->ai_next) {
		char numeric[LOOP_ADDRESS_MAX - 16];
		if (getnameinfo(a->ai_addr, a->ai_addrlen, numeric, sizeof(numeric), NULL, 0,
				NI_NUMERICHOST) != 0)
			continue;
		snprintf(call->addresses[call->address_count], LOOP_ADDRESS_MAX,
			 strchr(numeric, ':') ? "[%s]:%s" : "%s:%s", numeric, colon + 1);
		if (loop_address_check(call->addresses[call->address_count], NULL) == 0)
			call->address_count++;
	}
	freeaddrinfo(list);
	if (call->address_count == 0)
		return failure_set(failure, COLLIE_UNREACHABLE, "unreachable", "%s has no address",
				   sheep);
	return 0;
}

static int find_addresses(struct call *call, const char *sheep, struct failure *failure)
{
	struct error err;
	bool is_good = loop_address_check(sheep, &err) == 0;

	if (!is_good && !loop_address_is_unix(sheep))
		return resolve(call, sheep, failure);
	if (!is_good || text_copy(call->addresses[0], LOOP_ADDRESS_MAX, sheep) < 0) {
		error_recode(&err, -E_USAGE);
		return failure_set(failure, COLLIE_USAGE, "usage", "--sheep: %s", err.text);
	}
	call->address_count = 1;
	return 0;
}

/* ---- life ---- */

int call_new(const char *sheep, struct call **out, struct failure *failure)
{
	struct call *call = calloc(1, sizeof(*call));
	struct net_options net_options = {0};
	struct wire_identity identity = {0};
	struct error err = {0};
	int rc;

	if (!call)
		return failure_set(failure, COLLIE_UNREACHABLE, "system", "no memory");
	rc = find_addresses(call, sheep, failure);
	if (rc != 0)
		goto fail;
	struct loop_options loop_options = {.name = "collie", .logger = log_current()};
	rc = loop_new(&loop_options, &call->loop, &err);
	if (rc == 0)
		rc = net_new(call->loop, &net_options, &identity, &call->net, &err);
	if (rc == 0) {
		struct net_link_options options = {
			.address = call->addresses[0],
			.protocol = &call_protocol,
			.loop = FRAME_ANY_LOOP,
			.context = call,
		};
		rc = net_link_new(call->net, &options, &call->link, &err);
	}
	if (rc == 0) {
		*out = call;
		return 0;
	}
	rc = failure_set(failure, COLLIE_UNREACHABLE, "system", "%s", err.text);
fail:
	call_free(call);
	return rc;
}

void call_free(struct call *call)
{
	if (!call)
		return;
	net_link_free(call->link);
	if (call->net) {
		uint64_t until_ns;
		net_stop(call->net);
		/* The clock is that of the last turn, and much may have been printed since. */
		(void)loop_turn(call->loop, 0);
		until_ns = loop_now(call->loop) + STOP_NS;
		while (!net_is_stopped(call->net) && loop_now(call->loop) < until_ns)
			if (loop_turn(call->loop, until_ns) < 0)
				break;
		/* Else the kernel still has a hold of it: the process ends anyway. */
		if (!net_is_stopped(call->net))
			return;
		net_free(call->net);
	}
	loop_free(call->loop);
	free(call);
}

uint64_t call_now(const struct call *call)
{
	return loop_now(call->loop);
}

void call_sleep(struct call *call, uint64_t until_ns)
{
	while (loop_now(call->loop) < until_ns)
		if (loop_turn(call->loop, until_ns) < 0)
			break;
}

/* ---- what comes back ---- */

/* The one JSON document that the bytes are, or NULL. */
static struct json_object *parse_document(const struct slice *bytes)
{
	struct json_tokener *tokener = json_tokener_new_ex(ADMIN_JSON_DEPTH_MAX);
	struct json_object *document = NULL;

	if (!tokener || bytes->size > ADMIN_REPLY_MAX)
		goto out;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	document = json_tokener_parse_ex(tokener, (const char *)bytes->data, (int)bytes->size);
	if (json_tokener_get_error(tokener) != json_tokener_success ||
	    json_tokener_get_parse_end(tokener) != bytes->size) {
		json_object_put(document);
		document = NULL;
	}
out:
	if (tokener)
		json_tokener_free(tokener);
	return document;
}

static int refusal(uint32_t status, const struct slice *reply, struct failure *failure)
{
	struct json_object *document = reply->size ? parse_document(reply) : NULL;
	struct json_object *text = NULL;
	int rc;

	if (json_object_is_type(document, json_type_object) &&
	    json_object_object_get_ex(document, "error", &text) &&
	    json_object_is_type(text, json_type_string))
		rc = failure_from_status(failure, status, json_object_get_string(text),
					 (size_t)json_object_get_string_len(text));
	else /* the frame layer refuses with plain text */
		rc = failure_from_status(failure, status, (const char *)reply->data, reply->size);
	json_object_put(document);
	return rc;
}

/* What to do about it, where we know. */
static const struct hint {
	int code;
	const char *text;
} hints[] = {
#define HINT_NOBODY                                                                     \
	"; is a sheep running there? It prints its admin address at start; --sheep or " \
	"$COLLIE_SHEEP say which one to ask"
#define HINT_STRANGER "; is that the admin address of a sheep?"
	{-ENOENT, HINT_NOBODY},
	{-ECONNREFUSED, HINT_NOBODY},
	{-EHOSTUNREACH, HINT_NOBODY},
	{-ETIMEDOUT, "; is the sheep stopped, or overloaded?"},
	{-EACCES, "; only its owner and root may use this socket"},
	{-EPERM, "; only its owner and root may use this socket"},
	{-E_PROTOCOL, HINT_STRANGER},
	{-E_CHECKSUM, HINT_STRANGER},
	{-E_CLOSED, HINT_STRANGER},
};

static const char *hint_for(int code)
{
	for (size_t i = 0; i < ARRAY_COUNT(hints); i++)
		if (hints[i].code == code)
			return hints[i].text;
	return "";
}

static int unreachable(struct call *call, struct failure *failure)
{
	const struct error *why = net_link_error(call->link);
	const char *text = why->code ? why->text : "no answer";
	const char *address = call->addresses[call->address];
	bool is_named = strstr(text, address) != NULL;

	return failure_set(failure, COLLIE_UNREACHABLE, "unreachable",
			   "the sheep cannot be reached: %s%s%s%s", is_named ? "" : address,
			   is_named ? "" : ": ", text, hint_for(why->code));
}

/* ---- a request ---- */

static void on_done(struct net_call *request, int result)
{
	struct call *call = container_of_type(request, struct call, request);
	const struct admin_reply *reply = request->reply_body;

	call->is_done = true;
	call->result = result;
	call->reply_flags =
		reply && request->reply_body_size >= sizeof(*reply) ? from_le32(reply->flags) : 0;
	call->reply = net_call_take(request);
}

static void submit(struct call *call, enum admin_op op, uint64_t left_ns, const char *arguments)
{
	uint64_t left_ms = min_of(left_ns / NS_PER_MS, (uint64_t)UINT32_MAX);
	uint64_t deadline_ms = left_ms - min_of(left_ms / 10, (uint64_t)HEAD_START_MS);

	call->body = (struct admin_request){
		.deadline_ms = to_le32((uint32_t)max_of(deadline_ms, (uint64_t)1)),
	};
	call->payload = (struct slice){
		.data = (uint8_t *)(uintptr_t)arguments,
		.size = arguments ? (uint32_t)strlen(arguments) : 0,
	};
	call->request = (struct net_call){
		.op = (uint16_t)op,
		.body = &call->body,
		.body_size = sizeof(call->body),
		.slices = &call->payload,
		.slice_count = arguments ? 1 : 0,
		.done = on_done,
	};
	call->is_done = false;
	net_link_call(call->link, &call->request);
}

/* Turn until the request is done. False: the deadline has passed, and it was taken back. */
static bool wait_done(struct call *call, uint64_t deadline_ns)
{
	while (!call->is_done && loop_now(call->loop) < deadline_ns)
		if (loop_turn(call->loop, deadline_ns) < 0)
			break;
	if (call->is_done)
		return true;
	net_link_reset(call->link, -ETIMEDOUT, "no answer in time");
	uint64_t until_ns = loop_now(call->loop) + STOP_NS;
	while (!call->is_done && loop_now(call->loop) < until_ns)
		if (loop_turn(call->loop, until_ns) < 0)
			break;
	assert(call->is_done);
	return false;
}

/* Is there another address to try? Then it is the next one dialled. */
static bool next_address(struct call *call)
{
	if (call->address + 1 >= call->address_count)
		return false;
	call->address++;
	return net_link_set_address(call->link, call->addresses[call->address]) == 0;
}

static int judge_result(struct call *call, bool in_time, struct failure *failure)
{
	if (call->result == -E_CLOSED && !call->request.was_sent)
		return unreachable(call, failure);
	if (!in_time)
		return failure_set(failure, COLLIE_BUSY, "timed_out",
				   "no answer in time; what was asked may still happen");
	if (call->result == -E_CLOSED)
		return failure_set(
			failure, COLLIE_UNREACHABLE, "connection_lost",
			"the connection broke before the answer came (%s); whether it was done is not known",
			net_link_error(call->link)->text);
	if (call->result == -EOPNOTSUPP && !call->reply.size)
		return failure_set(failure, COLLIE_REFUSED, "unsupported",
				   "this sheep is too old for it");
	if (call->result < 0)
		return refusal(wire_status_of(call->result), &call->reply, failure);
	return 0;
}

int call_request(struct call *call, enum admin_op op, struct json_object *arguments,
		 uint64_t deadline_ns, struct call_reply *out, struct failure *failure)
{
	const char *text =
		arguments ? json_object_to_json_string_ext(arguments, JSON_C_TO_STRING_PLAIN)
			  : NULL;
	bool in_time;
	int rc;

	if (text && strlen(text) > ADMIN_ARGUMENTS_MAX)
		return failure_set(failure, COLLIE_USAGE, "usage", "the arguments are too long");
	do {
		uint64_t now_ns = loop_now(call->loop);
		submit(call, op, deadline_ns > now_ns ? deadline_ns - now_ns : 0, text);
		in_time = wait_done(call, deadline_ns);
	} while (in_time && call->result == -E_CLOSED && !call->request.was_sent &&
		 next_address(call));

	rc = judge_result(call, in_time, failure);
	if (rc == 0) {
		out->document = parse_document(&call->reply);
		out->has_more = call->reply_flags & ADMIN_REPLY_MORE;
		if (!out->document)
			rc = failure_set(failure, COLLIE_UNREACHABLE, "protocol",
					 "the sheep's answer is not JSON (%u bytes)",
					 call->reply.size);
	}
	buffer_put(call->reply.buffer);
	call->reply = (struct slice){0};
	return rc;
}
