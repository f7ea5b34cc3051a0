#include "tests/unit/admin_bench.h"

#include <string.h>

#include "sheep/service/admin.h"
#include "sheep/service/figures.h"

/* ---- the made-up network ---- */

static struct net_service served;

int net_serve(struct net *net, const struct net_service *service)
{
	served = *service;
	return 0;
}

int net_listen(struct net *net, const char *address, const struct net_listener_options *options,
	       struct net_listener **out, struct error *err)
{
	*out = NULL;
	return 0;
}

const char *net_listener_address(const struct net_listener *listener)
{
	return "unix:/made-up";
}

void net_listener_close(struct net_listener *listener)
{
}

void *net_request_context(const struct net_request *request)
{
	return served.context;
}

void net_reply(struct net_request *request, int status, const void *body, uint32_t body_size,
	       const struct slice *slices, uint32_t slice_count)
{
	struct admin_question *question = (struct admin_question *)request;
	const struct admin_reply *reply = body;

	question->replies++;
	question->status = status;
	question->flags = from_le32(reply->flags);
	question->text[0] = '\0';
	for (uint32_t i = 0; i < slice_count; i++) {
		assert_true(slices[i].size < sizeof(question->text));
		memcpy(question->text, slices[i].data, slices[i].size);
		question->text[slices[i].size] = '\0';
		buffer_put(slices[i].buffer);
	}
}

void net_reply_status(struct net_request *request, int status)
{
	const struct admin_reply none = {0};

	net_reply(request, status, &none, sizeof(none), NULL, 0);
}

/* ---- the other sheep say nothing ---- */

static uint32_t silent_node = 2;
/* So many PGs are counted; each layer holds as many blocks as its id says. */
static uint32_t counted_pgs;
static unsigned questions;

void admin_bench_count_pgs(uint32_t count)
{
	counted_pgs = count;
	questions = 0;
}

unsigned admin_bench_questions(void)
{
	return questions;
}

static void on_figures(struct loop_timer *timer)
{
	struct figures_query *query = container_of_type(timer, struct figures_query, timer);

	figures_use_close(&query->figures.use);
	query->done(query, &query->figures);
}

void figures_ask(struct figures_service *service, struct figures_query *query,
		 const struct figures_question *question, uint64_t deadline_ns)
{
	struct loop *loop = (struct loop *)service;
	struct figures_use *use = &query->figures.use;

	questions++;
	query->figures =
		(struct figures){.objects_missing = 5, .unknown_count = 1, .unknown = &silent_node};
	assert_int_equal(figures_use_init(use, question->layers, question->layer_count), 0);
	for (uint32_t i = 0; i < use->layer_count; i++) {
		assert_true(i == 0 || use->layers[i].layer > use->layers[i - 1].layer);
		use->layers[i].data_blocks = use->layers[i].layer;
	}
	for (uint32_t i = 0; i < counted_pgs; i++)
		assert_int_equal(figures_use_add_pg(use, i), 0);
	query->timer = (struct loop_timer){.fire = on_figures};
	loop_timer_start(loop, &query->timer, loop_now(loop));
}

void figures_done(struct figures *figures)
{
	figures_use_done(&figures->use);
}

const struct figures_store *figures_of_store(const struct figures *figures, uint32_t store)
{
	return NULL;
}

/* ---- a sheep around it ---- */

int admin_bench_setup(void **state)
{
	struct admin_bench *bench = calloc(1, sizeof(*bench));
	static const char *addresses[] = {"unix:/run/sheepfold/admin.sock"};
	struct error err = {0};

	bench->rig = rig_new(NULL, 1);
	rig_start_all(bench->rig, 1);
	struct rig_node *first = &bench->rig->nodes[0];
	memcpy((void *)&bench->settings.admin.items[0], &addresses[0], sizeof(addresses[0]));
	bench->settings.admin.count = 1;
	bench->worker.loop = first->loop;
	bench->node.settings = &bench->settings;
	bench->node.workers = &bench->worker;
	bench->node.worker_count = 1;
	bench->node.state = first->state;
	bench->node.caretaker = first->caretaker;
	bench->node.figures = (struct figures_service *)first->loop;
	bench->node.phase = NODE_RUNNING;
	bench->node.id = 1;
	admin_bench_count_pgs(16);
	assert_int_equal(admin_new(&bench->node, &bench->node.admin, &err), 0);
	*state = bench;
	return 0;
}

int admin_bench_teardown(void **state)
{
	struct admin_bench *bench = *state;

	admin_stop(bench->node.admin);
	admin_free(bench->node.admin); /* asserts that no call is left */
	rig_free(bench->rig);
	free(bench);
	return 0;
}

void admin_bench_send(struct admin_bench *bench, struct admin_question *question, uint16_t op,
		      const void *payload, size_t size, uint32_t deadline_ms)
{
	memset(&question->request, 0, sizeof(question->request));
	question->replies = 0;
	question->body = (struct admin_request){.deadline_ms = to_le32(deadline_ms)};
	question->request.op = op;
	question->request.body = &question->body;
	question->request.body_size = sizeof(question->body);
	/* Not closed by a zero, as from a wire. */
	uint8_t *copy = malloc(size ? size : 1);
	memcpy(copy, payload, size);
	question->request.payload = (struct slice){.data = copy, .size = (uint32_t)size};
	assert_non_null(served.protocol->ops[op].handle);
	served.protocol->ops[op].handle(&question->request);
	for (unsigned i = 0; i < 200 && !question->replies && deadline_ms == 0; i++)
		rig_run(bench->rig, 5);
	free(copy); /* arguments are parsed before the handler returns */
}

struct json_object *admin_bench_ask(struct admin_bench *bench, uint16_t op, const char *arguments)
{
	admin_bench_send(bench, &bench->question, op, arguments, strlen(arguments), 0);
	assert_int_equal(bench->question.replies, 1);
	struct json_object *document = json_tokener_parse(bench->question.text);
	assert_non_null(document);
	return document;
}

const char *admin_bench_text(struct json_object *document, const char *key)
{
	struct json_object *value;

	assert_true(json_object_object_get_ex(document, key, &value));
	return json_object_get_string(value);
}

void admin_bench_expect(struct admin_bench *bench, uint16_t op, const char *arguments, int status)
{
	struct json_object *document = admin_bench_ask(bench, op, arguments);

	if (bench->question.status != status)
		fail_msg("%s: %d, not %d: %s", arguments, bench->question.status, status,
			 bench->question.text);
	if (status < 0) {
		assert_string_not_equal(admin_bench_text(document, "error"), "");
		assert_string_not_equal(admin_bench_text(document, "code"), "");
	}
	json_object_put(document);
}

void admin_bench_format(struct admin_bench *bench)
{
	admin_bench_expect(bench, ADMIN_OP_CLUSTER_FORMAT, "{\"copies\": 1, \"pgs\": 16}", 0);
}

bool admin_bench_is_served(uint16_t op)
{
	return served.protocol->ops[op].handle;
}
