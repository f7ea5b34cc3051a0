#include "tests/unit/loop_suite.h"

#include <stdio.h>

#include "lib/base/hash.h"

struct loop *bed_other(struct bed *bed)
{
	if (!bed->other)
		bed->other = bed->new_loop(bed, &(struct loop_options){.name = "other"});
	return bed->other;
}

const char *bed_path(struct bed *bed, const char *name)
{
	static _Thread_local char paths[4][128];
	static _Thread_local unsigned next;
	char *path = paths[next++ % 4];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", bed->directory, name);
	return path;
}

void bed_turn(struct bed *bed)
{
	if (bed->other)
		assert_int_equal(loop_turn(bed->other, 0), 0);
	uint64_t wait_ns = bed->other ? NS_PER_MS / 10 : 10 * NS_PER_MS;
	assert_int_equal(loop_turn(bed->loop, loop_now(bed->loop) + wait_ns), 0);
}

static void on_call(struct loop_op *op, int result)
{
	struct call *call = container_of_type(op, struct call, op);

	assert_false(loop_op_is_busy(op));
	call->result = result;
	call->completions++;
}

struct loop_op *call_begin(struct call *call)
{
	call->op.done = on_call;
	call->completions = 0;
	return &call->op;
}

int call_wait(struct bed *bed, struct call *call)
{
	assert_int_equal(call->completions, 0);
	assert_true(loop_op_is_busy(&call->op));
	BED_UNTIL(bed, call->completions > 0);
	assert_int_equal(call->completions, 1);
	return call->result;
}

void bed_connect(struct bed *bed, const char *listen_at, struct loop_socket *out[2])
{
	struct loop_listener *listener;
	struct call accept = {0}, connect = {0};
	struct error err = {0};

	if (loop_listen(bed->loop, listen_at, &listener, &err) < 0)
		fail_msg("%s", err.text);
	loop_accept(bed->loop, call_begin(&accept), listener);
	loop_connect(bed->loop, call_begin(&connect), loop_listener_address(listener));
	assert_int_equal(call_wait(bed, &connect), 0);
	BED_UNTIL(bed, accept.completions);
	assert_int_equal(accept.result, 0);
	out[0] = connect.op.out.socket;
	out[1] = accept.op.out.socket;
	assert_non_null(out[0]);
	assert_non_null(out[1]);
	loop_listener_close(bed->loop, listener);
}

void pattern_fill(uint8_t *data, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i += 8) {
		uint64_t word = hash_u64(seed * 0x9e3779b97f4a7c15ull + i);

		memcpy(data + i, &word, min_of(size - i, sizeof(word)));
	}
}

bool pattern_is(const uint8_t *data, size_t size, uint64_t seed)
{
	for (size_t i = 0; i < size; i += 8) {
		uint64_t word = hash_u64(seed * 0x9e3779b97f4a7c15ull + i);

		if (memcmp(data + i, &word, min_of(size - i, sizeof(word))) != 0)
			return false;
	}
	return true;
}
