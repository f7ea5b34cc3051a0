#include "tests/unit/sim_setting.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct loop *setting_start(struct setting *s, unsigned i)
{
	assert_int_equal(
		sim_loop_new(s->world, s->hosts[i], &(struct loop_options){0}, &s->loops[i]), 0);
	return s->loops[i];
}

struct setting setting_new(uint64_t seed)
{
	static const char *const names[3] = {"a", "b", "c"};
	struct setting s = {.world = sim_world_new(seed)};

	for (unsigned i = 0; i < 3; i++) {
		s.hosts[i] = sim_host_new(s.world, names[i]);
		(void)setting_start(&s, i);
	}
	return s;
}

static void on_call(struct loop_op *op, int result)
{
	struct call *call = container_of_type(op, struct call, op);

	call->result = result;
	call->completions++;
}

struct loop_op *call_begin(struct call *call)
{
	call->op.done = on_call;
	call->completions = 0;
	return &call->op;
}

static bool call_is_done(void *context)
{
	return ((struct call *)context)->completions > 0;
}

int setting_wait(struct setting *s, struct call *call)
{
	if (!sim_world_run_until(s->world, sim_now(s->world) + 1000 * NS_PER_S, call_is_done, call))
		fail_msg("an op never ended");
	return call->result;
}

void setting_run(struct setting *s, uint64_t ns)
{
	assert_false(sim_world_run_until(s->world, sim_now(s->world) + ns, NULL, NULL));
}

struct loop_file *setting_open(struct loop *loop, const char *path, unsigned flags)
{
	struct loop_file *file;
	struct error err = {0};

	if (loop_sync_open(loop, path, flags, &file, &err) < 0)
		fail_msg("%s", err.text);
	return file;
}

void setting_connect(struct setting *s, unsigned from, unsigned to, struct loop_socket *out[2])
{
	struct loop_listener *listener;
	char address[32];
	struct call dial = {0}, accept = {0};
	struct error err = {0};

	(void)snprintf(address, sizeof(address), "%s:7000", sim_host_address(s->hosts[to]));
	assert_int_equal(loop_listen(s->loops[to], address, &listener, &err), 0);
	assert_string_equal(loop_listener_address(listener), address);
	loop_accept(s->loops[to], call_begin(&accept), listener);
	loop_connect(s->loops[from], call_begin(&dial), address);
	assert_int_equal(setting_wait(s, &dial), 0);
	assert_int_equal(setting_wait(s, &accept), 0);
	loop_listener_close(s->loops[to], listener);
	out[0] = dial.op.out.socket;
	out[1] = accept.op.out.socket;
}

int setting_send(struct setting *s, unsigned host, struct loop_socket *socket, const char *text)
{
	struct iovec iov = {(void *)text, strlen(text)};
	struct call call = {0};

	loop_send(s->loops[host], call_begin(&call), socket, &iov, 1);
	return setting_wait(s, &call);
}
