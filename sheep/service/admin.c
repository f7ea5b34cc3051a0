/*
 * The frame around the admin ops: listeners, JSON in and out, calls in work.
 */
#include "sheep/service/admin.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "include/proto/frame.h"
#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/service/admin_priv.h"

#define DEADLINE_DEFAULT_NS (60 * NS_PER_S)
/* Answered while the client still listens. */
#define DEADLINE_MARGIN_NS (200 * NS_PER_MS)
#define REFUSAL_MAX	   1536 /* bytes of text */

struct admin {
	struct node *node;
	struct wire_protocol protocol;
	struct wire_op ops[ADMIN_OP_END];
	unsigned listener_count;
	struct net_listener *listeners[SETTINGS_LIST_MAX + 1];
	struct cds_list_head calls;
	struct loop_timer early_timer; /* refuses changes that waited for our registration */
	/* of recovery, when somebody asked last */
	uint64_t sampled_ns, sampled_bytes, rate;
};

/* ---- answers ---- */

struct cluster_map *admin_map(const struct admin_call *call)
{
	return state_map(call->node->state);
}

static void call_free(struct admin_call *call)
{
	cds_list_del(&call->link);
	json_object_put(call->arguments);
	json_object_put(call->result);
	free(call);
}

static void reply(struct admin_call *call, int status, uint32_t flags, struct json_object *document)
{
	const struct admin_reply body = {.flags = to_le32(flags)};
	struct loop *loop = call->node->workers[0].loop;
	struct slice payload = {0};
	size_t size = 0;
	const char *text =
		document ? json_object_to_json_string_length(
				   document,
				   JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &size)
			 : NULL;

	assert(size <= ADMIN_REPLY_MAX);
	struct buffer *buffer = text ? buffer_new(loop_buffers(loop), (uint32_t)size) : NULL;
	if (buffer) {
		memcpy(buffer->data, text, size);
		payload = slice_of(buffer, 0, (uint32_t)size);
	} else {
		status = -ENOMEM;
	}
	net_reply(call->request, status, &body, sizeof(body), &payload, buffer != NULL);
	json_object_put(document);
	call_free(call);
}

void admin_answer(struct admin_call *call, struct json_object *result, bool has_more)
{
	reply(call, 0, has_more ? ADMIN_REPLY_MORE : 0, result);
}

void admin_refuse(struct admin_call *call, enum proto_status status, const char *format, ...)
{
	struct json_object *document = json_object_new_object();
	char text[REFUSAL_MAX], code[32] = "";
	const char *name = wire_status_name(status);
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (!text[0])
		(void)text_copy(text, sizeof(text), err_text(wire_status_code(status)));
	for (size_t i = 0; name[i] && i < sizeof(code) - 1; i++)
		code[i] = (char)tolower((unsigned char)name[i]);
	if (document) {
		json_object_object_add(document, "error", json_object_new_string(text));
		json_object_object_add(document, "code", json_object_new_string(code));
	}
	reply(call, wire_status_code(status), 0, document);
}

bool admin_is_refused(struct admin_call *call, enum proto_status status, const char *text)
{
	if (status != PROTO_STATUS_OK)
		admin_refuse(call, status, "%s", text);
	return status != PROTO_STATUS_OK;
}

bool admin_page_add(struct json_object *page, size_t *size, struct json_object *row)
{
	*size += strlen(json_object_to_json_string_ext(row, JSON_C_TO_STRING_PLAIN)) + 1;
	json_object_array_add(page, row);
	return *size < ADMIN_PAGE_SIZE;
}

/* ---- arguments ---- */

static int argument(struct admin_call *call, const char *key, enum json_type type,
		    const char *type_name, struct json_object **out)
{
	struct json_object *value;

	if (!call->arguments || !json_object_object_get_ex(call->arguments, key, &value) || !value)
		return 0;
	if (json_object_get_type(value) != type) {
		admin_refuse(call, PROTO_STATUS_INVALID, "argument '%s' is not %s", key, type_name);
		return -EINVAL;
	}
	*out = value;
	return 1;
}

int admin_text(struct admin_call *call, const char *key, const char **out)
{
	struct json_object *value;
	int rc = argument(call, key, json_type_string, "a string", &value);

	if (rc <= 0)
		return rc;
	if (strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value)) {
		admin_refuse(call, PROTO_STATUS_INVALID, "argument '%s' has a zero byte", key);
		return -EINVAL;
	}
	*out = json_object_get_string(value);
	return 1;
}

int admin_number(struct admin_call *call, const char *key, uint64_t max, uint64_t *out)
{
	struct json_object *value;
	int rc = argument(call, key, json_type_int, "a whole number", &value);

	if (rc <= 0)
		return rc;
	/* A negative one reads as 0 unsigned: look at both. */
	if (json_object_get_int64(value) < 0 || json_object_get_uint64(value) > max) {
		admin_refuse(call, PROTO_STATUS_INVALID, "argument '%s' is not from 0 to %llu", key,
			     (unsigned long long)max);
		return -EINVAL;
	}
	*out = json_object_get_uint64(value);
	return 1;
}

int admin_flag(struct admin_call *call, const char *key, bool *out)
{
	struct json_object *value;
	int rc = argument(call, key, json_type_boolean, "true or false", &value);

	if (rc <= 0)
		return rc;
	*out = json_object_get_boolean(value);
	return 1;
}

const char *admin_required_text(struct admin_call *call, const char *key)
{
	const char *text = NULL;
	int rc = admin_text(call, key, &text);

	if (rc == 0)
		admin_refuse(call, PROTO_STATUS_INVALID, "argument '%s' is missing", key);
	return text;
}

int admin_required_number(struct admin_call *call, const char *key, uint64_t max, uint64_t *out)
{
	int rc = admin_number(call, key, max, out);

	if (rc == 0)
		admin_refuse(call, PROTO_STATUS_INVALID, "argument '%s' is missing", key);
	return rc > 0 ? 0 : -EINVAL;
}

/* ---- calls ---- */

static int parse_arguments(const struct slice *payload, struct json_object **out)
{
	struct json_tokener *tokener;

	*out = NULL;
	if (payload->size == 0)
		return 0;
	tokener = json_tokener_new_ex(ADMIN_JSON_DEPTH_MAX);
	if (!tokener)
		return -ENOMEM;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	struct json_object *document =
		json_tokener_parse_ex(tokener, (const char *)payload->data, (int)payload->size);
	bool is_whole = json_tokener_get_error(tokener) == json_tokener_success &&
			json_tokener_get_parse_end(tokener) == payload->size;
	json_tokener_free(tokener);
	if (!is_whole || json_object_get_type(document) != json_type_object) {
		json_object_put(document);
		return -EINVAL;
	}
	*out = document;
	return 0;
}

/* What is asked now might not be answered before the loops end. */
static bool node_is_ending(const struct node *node)
{
	return node->phase >= NODE_STOPPING;
}

static void on_request(struct net_request *request)
{
	struct admin *admin = net_request_context(request);
	const struct admin_request *body = request->body;
	struct loop *loop = admin->node->workers[0].loop;
	struct admin_call *call = calloc(1, sizeof(*call));
	uint64_t wait = from_le32(body->deadline_ms) * NS_PER_MS;

	if (!call) {
		net_reply_status(request, -ENOMEM);
		return;
	}
	call->admin = admin;
	call->node = admin->node;
	call->request = request;
	call->row = &admin_rows[request->op];
	cds_list_add_tail(&call->link, &admin->calls);
	if (!wait)
		wait = DEADLINE_DEFAULT_NS;
	if (wait > 2 * DEADLINE_MARGIN_NS)
		wait -= DEADLINE_MARGIN_NS;
	call->deadline_ns = loop_now(loop) + wait;
	if (node_is_ending(admin->node)) {
		admin_refuse(call, PROTO_STATUS_SHUTDOWN, "the sheep stops");
		return;
	}
	if (from_le32(body->flags) != 0) {
		admin_refuse(call, PROTO_STATUS_INVALID, "unknown flags 0x%x",
			     from_le32(body->flags));
		return;
	}
	int rc = parse_arguments(&request->payload, &call->arguments);
	if (rc < 0)
		admin_refuse(call, rc == -ENOMEM ? PROTO_STATUS_NO_MEMORY : PROTO_STATUS_INVALID,
			     "the arguments are no JSON object");
	else
		call->row->start(call);
}

struct admin_call *admin_call_of(struct proposal *proposal)
{
	return container_of_type(proposal, struct admin_call, proposal);
}

/* ---- changes that come before we are registered: soon, or never without a quorum ---- */

static void early_refuse(struct admin_call *call, enum proto_status status, const char *text)
{
	cluster_command_free(call->early);
	call->early = NULL;
	admin_refuse(call, status, "%s", text);
}

static void early_watch(struct admin *admin)
{
	uint64_t first_ns = UINT64_MAX;
	struct admin_call *call;

	cds_list_for_each_entry(call, &admin->calls, link)
		if (call->early)
			first_ns = min_of(first_ns, call->deadline_ns);
	if (first_ns != UINT64_MAX)
		loop_timer_start(admin->node->workers[0].loop, &admin->early_timer, first_ns);
	else
		loop_timer_stop(admin->node->workers[0].loop, &admin->early_timer);
}

static void on_early_timer(struct loop_timer *timer)
{
	struct admin *admin = container_of_type(timer, struct admin, early_timer);
	uint64_t now = loop_now(admin->node->workers[0].loop);
	struct admin_call *call, *next;

	cds_list_for_each_entry_safe(call, next, &admin->calls, link)
		if (call->early && now >= call->deadline_ns)
			early_refuse(call, PROTO_STATUS_TIMED_OUT,
				     "the sheep is not registered yet: the log has no quorum");
	early_watch(admin);
}

void admin_resume(struct admin *admin)
{
	struct admin_call *call, *next;

	cds_list_for_each_entry_safe(call, next, &admin->calls, link) {
		struct cluster_command *command = call->early;
		call->early = NULL;
		if (command)
			admin_propose(call, command, call->early_applied);
	}
	early_watch(admin);
}

void admin_propose(struct admin_call *call, struct cluster_command *command,
		   void (*applied)(struct proposal *proposal, enum proto_status status,
				   const char *text, uint64_t id))
{
	if (call->node->phase > NODE_RUNNING) {
		cluster_command_free(command);
		admin_refuse(call, PROTO_STATUS_SHUTDOWN, "the sheep stops");
		return;
	}
	if (call->node->phase < NODE_RUNNING) {
		call->early = command;
		call->early_applied = applied;
		early_watch(call->admin);
		return;
	}
	call->proposal.done = applied;
	state_propose(call->node->state, command, &call->proposal, call->deadline_ns);
}

/* ---- figures of all sheep ---- */

static void on_figures(struct figures_query *query, struct figures *figures)
{
	struct admin_call *call = container_of_type(query, struct admin_call, query);
	struct figures told = *figures;

	call->then(call, &told); /* the call is gone */
	figures_done(&told);
}

static void gather(struct admin_call *call, const struct figures_question *question,
		   void (*then)(struct admin_call *call, const struct figures *figures))
{
	call->then = then;
	call->query.done = on_figures;
	figures_ask(call->node->figures, &call->query, question, call->deadline_ns);
}

void admin_gather(struct admin_call *call,
		  void (*then)(struct admin_call *call, const struct figures *figures))
{
	gather(call, &(struct figures_question){.pg = FIGURES_NO_PG}, then);
}

void admin_gather_copies(struct admin_call *call, uint32_t pg,
			 void (*then)(struct admin_call *call, const struct figures *figures))
{
	gather(call, &(struct figures_question){.pg = pg}, then);
}

void admin_gather_layers(struct admin_call *call, const uint64_t *layers, uint32_t count,
			 void (*then)(struct admin_call *call, const struct figures *figures))
{
	const struct figures_question question = {
		.pg = FIGURES_NO_PG, .layer_count = count, .layers = layers};

	gather(call, &question, then);
}

uint64_t admin_recovery_rate(struct admin_call *call, const struct figures *figures)
{
	struct admin *admin = call->admin;
	uint64_t now = loop_now(call->node->workers[0].loop), past = now - admin->sampled_ns;

	if (admin->sampled_ns && past < NS_PER_S)
		return admin->rate;
	/* A sheep that started again, or did not answer, counts from less. */
	admin->rate = admin->sampled_ns && figures->bytes_moved > admin->sampled_bytes
			      ? (uint64_t)((double)(figures->bytes_moved - admin->sampled_bytes) *
					   (double)NS_PER_S / (double)past)
			      : 0;
	admin->sampled_ns = now;
	admin->sampled_bytes = figures->bytes_moved;
	return admin->rate;
}

/* ---- life ---- */

static int listen_on(struct admin *admin, const char *address, struct error *err)
{
	const struct net_listener_options options = {.magic = FRAME_MAGIC_ADMIN};
	struct net_listener **listener = &admin->listeners[admin->listener_count];
	int rc = net_listen(admin->node->workers[0].net, address, &options, listener, err);

	if (rc == 0)
		admin->listener_count++;
	return rc;
}

/* Where collie looks by default, if nobody has it and we may. */
static void listen_on_default(struct admin *admin)
{
	static const char path[] = "unix:/run/sheepfold/admin.sock";
	struct error err;

	for (unsigned i = 0; i < admin->node->settings->admin.count; i++)
		if (strcmp(admin->node->settings->admin.items[i], path) == 0)
			return;
	(void)mkdir("/run/sheepfold", 0755);
	if (listen_on(admin, path, &err) < 0)
		log_debug("admin: %s", err.text);
}

int admin_new(struct node *node, struct admin **out, struct error *err)
{
	static const struct {
		uint16_t number;
		const char *name;
		uint16_t since;
	} rows[] = {
#define ADMIN_ROW(name, number, text, since, key) {number, text, since},
		ADMIN_OP_LIST(ADMIN_ROW)
#undef ADMIN_ROW
	};
	struct admin *admin = calloc(1, sizeof(*admin));
	int rc = 0;

	if (!admin)
		return error_set(err, -ENOMEM, "admin");
	admin->node = node;
	CDS_INIT_LIST_HEAD(&admin->calls);
	admin->early_timer.fire = on_early_timer;
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
		admin->ops[rows[i].number] = (struct wire_op){
			.name = rows[i].name,
			.since = rows[i].since,
			.body_min = sizeof(struct admin_request),
			.body_size = sizeof(struct admin_request),
			.reply_min = sizeof(struct admin_reply),
			.reply_size = sizeof(struct admin_reply),
			.payload_max = ADMIN_ARGUMENTS_MAX,
			.reply_payload_max = ADMIN_REPLY_MAX,
			.handle = on_request,
		};
	admin->protocol = (struct wire_protocol){
		.name = "admin",
		.magic = FRAME_MAGIC_ADMIN,
		.version_min = ADMIN_VERSION_MIN,
		.version_max = ADMIN_VERSION_MAX,
		.open_classes = 1,
		.classes = 1,
		.ops = admin->ops,
		.op_count = ADMIN_OP_END,
	};
	const struct net_service service = {.protocol = &admin->protocol, .context = admin};
	rc = net_serve(node->workers[0].net, &service);
	if (rc < 0) {
		free(admin);
		return error_set(err, rc, "admin protocol");
	}
	for (unsigned i = 0; rc == 0 && i < node->settings->admin.count; i++) {
		rc = listen_on(admin, node->settings->admin.items[i], err);
		if (rc == 0)
			log_info("admin: listening on %s",
				 net_listener_address(admin->listeners[i]));
	}
	*out = admin;
	if (rc < 0)
		return error_wrap(err, rc, "admin");
	listen_on_default(admin);
	return 0;
}

void admin_stop(struct admin *admin)
{
	struct admin_call *call, *next;

	if (!admin)
		return;
	for (unsigned i = 0; i < admin->listener_count; i++)
		net_listener_close(admin->listeners[i]);
	admin->listener_count = 0;
	cds_list_for_each_entry_safe(call, next, &admin->calls, link)
		if (call->early)
			early_refuse(call, PROTO_STATUS_SHUTDOWN, "the sheep stops");
	early_watch(admin);
}

void admin_free(struct admin *admin)
{
	if (!admin)
		return;
	assert(cds_list_empty(&admin->calls));
	free(admin);
}
