/*
 * The writer of the local engine: what was proposed in a turn is one append (local_priv.h).
 *
 * An append may end anywhere: a killed process, a full disk, another's bytes in between. Its result
 * is therefore not asked for more than "has it ended": the reader sees what is there, and the
 * outbox sends again what is not.
 */
#include <stdlib.h>

#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/local_priv.h"

#define RETRY_NS (100 * NS_PER_MS)

/* What a full disk and the like say: it may work later. */
static bool may_pass(int error)
{
	return error == -ENOSPC || error == -EDQUOT || error == -EINTR || error == -EAGAIN ||
	       error == -ENOMEM || error == -ECANCELED;
}

static void note_result(struct local *local, int result)
{
	struct local_writer *writer = &local->writer;

	if (result < 0 && !writer->is_failing)
		log_warning("engine local: append to '%s': %s: trying again every %u ms",
			    local->reader.path, err_text(result), (unsigned)(RETRY_NS / NS_PER_MS));
	else if (result >= 0 && writer->is_failing)
		log_info("engine local: append to '%s' works again", local->reader.path);
	writer->is_failing = result < 0;
	if (result < 0)
		loop_timer_start(local->engine.loop, &writer->retry,
				 loop_now(local->engine.loop) + RETRY_NS);
}

static void on_written(struct local_task *task, int result)
{
	struct local *local = task->local;

	outbox_written(&local->writer.outbox);
	if (result < 0 && !may_pass(result)) {
		local_fail(local, result, "append to '%s'", local->reader.path);
		return;
	}
	note_result(local, result);
	local_read_on(local);
	local_read_handover(local);
}

void local_write_on(struct local *local)
{
	struct local_writer *writer = &local->writer;
	struct local_reader *reader = &local->reader;
	size_t size;

	if (local->is_stopped || writer->task.is_busy || !writer->outbox.waiting ||
	    local->engine.state != ENGINE_READY || !reader->file || reader->scan.is_sealed ||
	    loop_timer_is_armed(&writer->retry))
		return;
	size = outbox_fill(&writer->outbox, &reader->scan.file_id, loop_random(local->engine.loop),
			   writer->buffer, LOCAL_WRITE_SIZE);
	if (!size)
		return;
	writer->iov = (struct iovec){writer->buffer, size};
	loop_file_write(local->engine.loop, local_task_start(&writer->task), reader->file,
			&writer->iov, 1, 0);
}

static void on_hook(struct loop_hook *hook)
{
	struct local_writer *writer = container_of_type(hook, struct local_writer, hook);

	local_write_on(container_of_type(writer, struct local, writer));
}

static void on_retry(struct loop_timer *timer)
{
	struct local_writer *writer = container_of_type(timer, struct local_writer, retry);

	local_write_on(container_of_type(writer, struct local, writer));
}

int local_propose(struct engine *engine, const void *command, uint32_t size)
{
	struct local *local = container_of_type(engine, struct local, engine);
	int64_t sequence = outbox_add(&local->writer.outbox, LOCAL_RECORD_COMMAND, command, size);

	if (sequence < 0)
		return (int)sequence;
	loop_hook_arm(engine->loop, &local->writer.hook);
	return 0;
}

int local_write_init(struct local *local, struct error *err)
{
	struct local_writer *writer = &local->writer;

	outbox_init(&writer->outbox, &local->engine.self.node, local->engine.self.start);
	local_task_init(local, &writer->task, on_written);
	writer->hook = (struct loop_hook){.run = on_hook, .phase = LOOP_HOOK_COMMIT};
	writer->retry.fire = on_retry;
	writer->buffer = malloc(LOCAL_WRITE_SIZE);
	return writer->buffer ? 0 : error_set(err, -ENOMEM, "append buffer");
}

void local_write_done(struct local *local)
{
	struct local_writer *writer = &local->writer;

	outbox_done(&writer->outbox);
	free(writer->buffer);
}
