/*
 * The loop, the net and the sessions belong to the thread; the script is under a lock, as the test
 * changes it while the thread waits.
 */
#include "tests/unit/fake_sheep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <json-c/json.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/size.h"
#include "lib/net/net.h"

struct fake_sheep {
	pthread_t thread;
	struct loop *loop;
	struct net *net;
	struct net_listener *listener;
	struct wire_protocol protocol;
	struct logger logger;
	/* Requests that get no answer as long as anybody could hear it. */
	struct net_request *silent[16];
	unsigned silent_count;
	pthread_mutex_t lock; /* of what follows */
	const struct fake_step *steps;
	char complaint[512];
	uint32_t deadline_ms;
};

static void on_request(struct net_request *request);

#define FAKE_OP(name_, number, text, since_, key)          \
	[number] = {                                       \
		.name = text,                              \
		.since = since_,                           \
		.body_min = sizeof(struct admin_request),  \
		.body_size = sizeof(struct admin_request), \
		.reply_min = sizeof(struct admin_reply),   \
		.reply_size = sizeof(struct admin_reply),  \
		.payload_max = ADMIN_ARGUMENTS_MAX,        \
		.reply_payload_max = ADMIN_REPLY_MAX,      \
		.handle = on_request,                      \
	},

static const struct wire_op fake_ops[ADMIN_OP_END] = {ADMIN_OP_LIST(FAKE_OP)};

static bool same_json(const char *want, const char *got, size_t size)
{
	char text[4096];

	if (size >= sizeof(text))
		return false;
	if (size > 0)
		memcpy(text, got, size);
	text[size] = '\0';

	struct json_object *a = json_tokener_parse(want ? want : "{}");
	struct json_object *b = json_tokener_parse(size ? text : "{}");
	bool is_same = a && b && json_object_equal(a, b);

	json_object_put(a);
	json_object_put(b);
	return is_same;
}

/* The step for this request, or NULL and a complaint. Called with the lock. */
static const struct fake_step *next_step(struct fake_sheep *sheep,
					 const struct net_request *request)
{
	const struct fake_step *step = sheep->steps;
	const struct admin_request *body = request->body;

	sheep->deadline_ms = from_le32(body->deadline_ms);
	if (!step || !step->op || step->op != (enum admin_op)request->op) {
		snprintf(sheep->complaint, sizeof(sheep->complaint), "op %u came, not %d",
			 request->op, step ? (int)step->op : 0);
		return NULL;
	}
	if (!same_json(step->arguments, (const char *)request->payload.data,
		       request->payload.size)) {
		snprintf(sheep->complaint, sizeof(sheep->complaint), "'%.*s' came, not %s",
			 (int)request->payload.size, (const char *)request->payload.data,
			 step->arguments ? step->arguments : "nothing");
		return NULL;
	}
	if (step->action != FAKE_REPEAT)
		sheep->steps++;
	return step;
}

static void on_request(struct net_request *request)
{
	struct fake_sheep *sheep = net_request_context(request);

	pthread_mutex_lock(&sheep->lock);
	const struct fake_step *step = next_step(sheep, request);
	pthread_mutex_unlock(&sheep->lock);
	if (!step) {
		net_reply_status(request, -EINVAL);
		return;
	}
	if (step->action == FAKE_SILENCE && sheep->silent_count < ARRAY_COUNT(sheep->silent)) {
		sheep->silent[sheep->silent_count++] = request;
		return;
	}
	if (step->action == FAKE_HANG_UP) {
		net_session_close(request->session, 0, "as the script says");
		net_reply_status(request, 0);
		return;
	}
	struct admin_reply body = {.flags = to_le32(step->flags)};
	struct slice slice = {
		.data = (uint8_t *)(uintptr_t)step->reply,
		.size = step->reply_size ? step->reply_size
					 : (uint32_t)(step->reply ? strlen(step->reply) : 0),
	};
	net_reply(request, step->status, &body, sizeof(body), &slice, slice.size ? 1 : 0);
}

static void drop_line(struct logger *logger, enum log_level level, const char *line)
{
}

static void *run(void *context)
{
	struct fake_sheep *sheep = context;

	log_set_current(&sheep->logger);
	loop_run(sheep->loop);
	net_stop(sheep->net);
	while (sheep->silent_count > 0)
		net_reply_status(sheep->silent[--sheep->silent_count], -ECANCELED);
	while (!net_is_stopped(sheep->net))
		loop_turn(sheep->loop, loop_now(sheep->loop) + NS_PER_S);
	net_free(sheep->net);
	loop_free(sheep->loop);
	return NULL;
}

struct fake_sheep *fake_sheep_start(const char *address, uint16_t version)
{
	struct fake_sheep *sheep = calloc(1, sizeof(*sheep));
	struct wire_identity identity = {.loops = 1, .node_id = 1, .node.bytes = {1}};
	struct net_options net_options = {0};
	struct net_listener_options options = {.magic = FRAME_MAGIC_ADMIN};
	struct loop_options loop_options = {.name = "fake"};
	struct net_service service = {.context = sheep};
	struct error err = {0};

	assert_non_null(sheep);
	sheep->protocol = (struct wire_protocol){
		.name = "admin",
		.magic = FRAME_MAGIC_ADMIN,
		.version_min = version,
		.version_max = version,
		.open_classes = 1,
		.classes = 1,
		.ops = fake_ops,
		.op_count = ADMIN_OP_END,
	};
	service.protocol = &sheep->protocol;
	sheep->logger = (struct logger){.sink = drop_line};
	loop_options.logger = &sheep->logger;
	pthread_mutex_init(&sheep->lock, NULL);
	if (loop_new(&loop_options, &sheep->loop, &err) < 0 ||
	    net_new(sheep->loop, &net_options, &identity, &sheep->net, &err) < 0 ||
	    net_serve(sheep->net, &service) < 0 ||
	    net_listen(sheep->net, address, &options, &sheep->listener, &err) < 0)
		fail_msg("fake sheep: %s", err.text);
	assert_int_equal(pthread_create(&sheep->thread, NULL, run, sheep), 0);
	return sheep;
}

void fake_sheep_stop(struct fake_sheep *sheep)
{
	loop_stop(sheep->loop);
	pthread_join(sheep->thread, NULL);
	pthread_mutex_destroy(&sheep->lock);
	free(sheep);
}

const char *fake_sheep_address(const struct fake_sheep *sheep)
{
	return net_listener_address(sheep->listener);
}

void fake_sheep_script(struct fake_sheep *sheep, const struct fake_step *steps)
{
	pthread_mutex_lock(&sheep->lock);
	sheep->steps = steps;
	sheep->complaint[0] = '\0';
	pthread_mutex_unlock(&sheep->lock);
}

void fake_sheep_check(struct fake_sheep *sheep)
{
	char complaint[512];
	int left;

	pthread_mutex_lock(&sheep->lock);
	memcpy(complaint, sheep->complaint, sizeof(complaint));
	left = sheep->steps && sheep->steps->action != FAKE_REPEAT ? (int)sheep->steps->op : 0;
	pthread_mutex_unlock(&sheep->lock);
	if (complaint[0])
		fail_msg("the sheep was asked something else: %s", complaint);
	if (left)
		fail_msg("the sheep was not asked op %d", left);
}

uint32_t fake_sheep_deadline_ms(struct fake_sheep *sheep)
{
	pthread_mutex_lock(&sheep->lock);
	uint32_t deadline_ms = sheep->deadline_ms;
	pthread_mutex_unlock(&sheep->lock);
	return deadline_ms;
}

/* ---- bytes ---- */

struct fake_socket {
	pthread_t thread;
	int fd, stop[2];
	char path[108];
	const void *bytes;
	uint32_t size;
	bool hang_up;
};

static void *serve_bytes(void *context)
{
	struct fake_socket *fake = context;
	struct pollfd polls[2] = {{.fd = fake->fd, .events = POLLIN},
				  {.fd = fake->stop[0], .events = POLLIN}};
	int held[16], count = 0;

	while (poll(polls, 2, -1) > 0 && !polls[1].revents) {
		char drain[256];
		int fd = accept(fake->fd, NULL, NULL);
		if (fd < 0)
			continue;
		/* HELLO comes first: an answer to it looks most real */
		(void)!read(fd, drain, sizeof(drain));
		(void)!send(fd, fake->bytes, fake->size, MSG_NOSIGNAL);
		if (fake->hang_up || count == (int)ARRAY_COUNT(held))
			close(fd);
		else
			held[count++] = fd;
	}
	while (count > 0)
		close(held[--count]);
	return NULL;
}

struct fake_socket *fake_socket_start(const char *path, const void *bytes, uint32_t size,
				      bool hang_up)
{
	struct fake_socket *fake = calloc(1, sizeof(*fake));
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	assert_non_null(fake);
	fake->bytes = bytes;
	fake->size = size;
	fake->hang_up = hang_up;
	snprintf(fake->path, sizeof(fake->path), "%s", path);
	memcpy(un.sun_path, fake->path, sizeof(un.sun_path));
	(void)unlink(path);
	fake->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fake->fd >= 0);
	assert_int_equal(bind(fake->fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fake->fd, 16), 0);
	assert_int_equal(pipe(fake->stop), 0);
	assert_int_equal(pthread_create(&fake->thread, NULL, serve_bytes, fake), 0);
	return fake;
}

void fake_socket_stop(struct fake_socket *fake)
{
	close(fake->stop[1]);
	pthread_join(fake->thread, NULL);
	close(fake->stop[0]);
	close(fake->fd);
	(void)unlink(fake->path);
	free(fake);
}
