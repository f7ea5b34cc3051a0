#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/hash.h"
#include "tests/unit/agree_life.h"

static const struct agree_id self = {.node = 1, .pid = 7};
const struct uuid agree_life_node = {{1, 2, 3}};

/* ---- the disk ---- */

struct agree_life_file *agree_life_disk_find(struct agree_life_disk *disk, enum agree_file kind,
					     uint64_t number)
{
	for (unsigned i = 0; i < disk->count; i++)
		if (disk->files[i].kind == kind && disk->files[i].number == number)
			return &disk->files[i];
	return NULL;
}

static void append(struct agree_life_file *file, const void *data, size_t size)
{
	file->data = realloc(file->data, file->size + size);
	assert_non_null(file->data);
	memcpy(file->data + file->size, data, size);
	file->size += size;
}

void agree_life_disk_make(struct agree_life_disk *disk, enum agree_file kind, uint64_t number,
			  const void *data, size_t size)
{
	struct agree_life_file *file = agree_life_disk_find(disk, kind, number);

	if (!file) {
		assert_true(disk->count < AGREE_LIFE_FILES_MAX);
		file = &disk->files[disk->count++];
		*file = (struct agree_life_file){.kind = kind, .number = number};
	}
	file->size = 0;
	append(file, data, size);
}

void agree_life_disk_drop(struct agree_life_disk *disk, enum agree_file kind, uint64_t number)
{
	struct agree_life_file *file = agree_life_disk_find(disk, kind, number);

	free(file->data);
	*file = disk->files[--disk->count];
}

void agree_life_disk_copy(const struct agree_life_disk *from, struct agree_life_disk *to)
{
	*to = (struct agree_life_disk){.starts = from->starts};
	for (unsigned i = 0; i < from->count; i++)
		agree_life_disk_make(to, from->files[i].kind, from->files[i].number,
				     from->files[i].data, from->files[i].size);
}

void agree_life_disk_done(struct agree_life_disk *disk)
{
	for (unsigned i = 0; i < disk->count; i++)
		free(disk->files[i].data);
	*disk = (struct agree_life_disk){0};
}

struct agree_life_file *agree_life_disk_newest(struct agree_life_disk *disk)
{
	struct agree_life_file *newest = NULL;

	for (unsigned i = 0; i < disk->count; i++)
		if (disk->files[i].kind == AGREE_FILE_LOG &&
		    (!newest || disk->files[i].number > newest->number))
			newest = &disk->files[i];
	return newest;
}

/* ---- ops ---- */

static uint64_t op_now(void *context)
{
	return ((struct agree_life *)context)->now_ns;
}

static void op_set_timer(void *context, uint64_t at_ns)
{
	((struct agree_life *)context)->timer_ns = at_ns;
}

static int op_send(void *context, const void *data, size_t size)
{
	struct agree_life *life = context;
	void *copy;

	if (life->message_count == AGREE_LIFE_MESSAGES_MAX)
		return -EAGAIN;
	copy = malloc(size);
	assert_non_null(copy);
	memcpy(copy, data, size);
	life->messages[life->message_count].data = copy;
	life->messages[life->message_count++].size = size;
	return 0;
}

static void op_write(void *context, const void *data, size_t size)
{
	struct agree_life *life = context;

	append(agree_life_disk_find(life->disk, AGREE_FILE_LOG, life->log_number), data, size);
	life->has_written = true;
}

static void op_write_next(void *context, uint64_t number, const void *data, size_t size)
{
	struct agree_life *life = context;

	life->log_number = number;
	agree_life_disk_make(life->disk, AGREE_FILE_LOG, number, data, size);
	life->has_written = true;
}

static void op_write_image(void *context, uint64_t number, const void *data, size_t size)
{
	struct agree_life *life = context;

	agree_life_disk_make(life->disk, AGREE_FILE_IMAGE, number, data, size);
	life->has_imaged = true;
}

static void op_remove_below(void *context, enum agree_file kind, uint64_t number)
{
	struct agree_life *life = context;

	for (unsigned i = 0; i < life->disk->count;) {
		struct agree_life_file *file = &life->disk->files[i];

		if (file->kind == kind && file->number < number)
			agree_life_disk_drop(life->disk, kind, file->number);
		else
			i++;
	}
}

static void note(struct agree_life *life, uint64_t index)
{
	assert_true(index < AGREE_LIFE_SEEN_MAX);
	life->index = index;
	life->seen[index] = life->digest;
}

static void op_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct agree_life *life = context;

	life->digest = hash_u64_pair(hash_u64_pair(life->digest, index), hash_bytes(command, size));
	note(life, index);
}

static int op_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	struct agree_life *life = context;

	if (size != sizeof(life->digest))
		return error_set(err, -E_CORRUPT, "image of %zu bytes", size);
	memcpy(&life->digest, image, size);
	note(life, index);
	return 0;
}

static int op_snapshot(void *context, struct engine_image *out)
{
	struct agree_life *life = context;

	out->data = malloc(sizeof(life->digest));
	assert_non_null(out->data);
	memcpy(out->data, &life->digest, sizeof(life->digest));
	out->size = sizeof(life->digest);
	return 0;
}

static void op_ready(void *context)
{
	((struct agree_life *)context)->is_ready = true;
}

static void op_members(void *context, const struct engine_member *members, uint32_t count)
{
}

static void op_ended(void *context, const struct uuid *uuid, uint64_t start, enum engine_end how)
{
}

static void op_quorum(void *context, bool has_quorum)
{
}

static void op_failed(void *context, const struct error *err)
{
	((struct agree_life *)context)->has_failed = true;
}

static void op_left(void *context)
{
}

static const struct agree_ops ops = {
	.now = op_now,
	.set_timer = op_set_timer,
	.send = op_send,
	.write = op_write,
	.write_next = op_write_next,
	.write_image = op_write_image,
	.remove_below = op_remove_below,
	.commit = op_commit,
	.install = op_install,
	.snapshot = op_snapshot,
	.ready = op_ready,
	.members = op_members,
	.ended = op_ended,
	.quorum = op_quorum,
	.failed = op_failed,
	.left = op_left,
};

static int op_read(void *context, enum agree_file kind, uint64_t number, void **data, size_t *size)
{
	struct agree_life *life = context;
	const struct agree_life_file *file = agree_life_disk_find(life->disk, kind, number);

	if (!file)
		return -ENOENT;
	*data = malloc(file->size + 1);
	assert_non_null(*data);
	memcpy(*data, file->data, file->size);
	*size = file->size;
	return 0;
}

/* ---- a start ---- */

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

int agree_life_open(struct agree_life *life, struct agree_life_disk *disk, const struct uuid *as,
		    struct error *err)
{
	struct agree_options options = {
		.self = {.node = *as, .start = ++disk->starts, .info = "x", .info_size = 1},
		.compact_bytes = 3000,
		.random = &life->random,
	};
	uint64_t numbers[AGREE_LIFE_FILES_MAX];
	uint32_t count = 0;

	*life = (struct agree_life){.disk = disk, .now_ns = NS_PER_S, .timer_ns = UINT64_MAX};
	random_init(&life->random, 1);
	life->agree = agree_new(&options, &ops, life);
	assert_non_null(life->agree);
	for (unsigned i = 0; i < disk->count; i++)
		if (disk->files[i].kind == AGREE_FILE_LOG)
			numbers[count++] = disk->files[i].number;
	qsort(numbers, count, sizeof(numbers[0]), compare);
	return count ? agree_restore(life->agree, numbers, count, op_read, err) : 0;
}

static void life_turn(struct agree_life *life)
{
	typeof(life->messages) messages;
	unsigned count = life->message_count;

	memcpy(messages, life->messages, sizeof(messages));
	life->message_count = 0;
	for (unsigned i = 0; i < count; i++) {
		agree_deliver(life->agree, self, messages[i].data, messages[i].size);
		free(messages[i].data);
	}
	if (life->has_written) {
		life->has_written = false;
		agree_written(life->agree, 0);
	}
	if (life->has_imaged) {
		life->has_imaged = false;
		agree_image_written(life->agree, 0);
	}
	life->now_ns += NS_PER_MS;
	if (life->now_ns >= life->timer_ns) {
		life->timer_ns = UINT64_MAX;
		agree_timer(life->agree);
	}
}

void agree_life_start(struct agree_life *life)
{
	const struct agree_view view = {.self = self, .members = &self, .count = 1};

	agree_start(life->agree);
	agree_view(life->agree, &view);
	agree_quorum(life->agree, true);
	for (unsigned i = 0; i < 20000 && !life->is_ready && !life->has_failed; i++)
		life_turn(life);
}

void agree_life_end(struct agree_life *life)
{
	for (unsigned i = 0; i < life->message_count; i++)
		free(life->messages[i].data);
	agree_free(life->agree);
}

void agree_life_propose(struct agree_life *life, unsigned count)
{
	struct agree_stats stats;

	for (unsigned i = 0; i < count; i++) {
		char command[200];
		size_t size = (size_t)snprintf(command, sizeof(command), "command %u %0*u", i,
					       (int)(i * 7 % 150), i);

		assert_int_equal(agree_propose(life->agree, command, (uint32_t)size), 0);
		for (unsigned turn = 0; turn < 5; turn++)
			life_turn(life);
	}
	for (unsigned i = 0; i < 5000; i++)
		life_turn(life);
	agree_stats_get(life->agree, &stats);
	assert_int_equal(stats.commit, stats.last);
}
