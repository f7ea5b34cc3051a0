/*
 * What the engine on corosync finds on a disk after anything: logs cut at every byte, every byte changed, files that are
 * missing or foreign. One member alone writes the log; its group and its disk are made up here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/hash.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/agree.h"

#define FILES_MAX   64
#define SEEN_MAX    4096
#define MESSAGE_MAX 64

struct file {
	enum agree_file kind;
	uint64_t number;
	uint8_t *data;
	size_t size;
};

struct disk {
	struct file files[FILES_MAX];
	unsigned count;
};

struct message {
	void *data;
	size_t size;
};

/* One start of the member, and what its user was told. */
struct life {
	struct disk *disk;
	struct agree *agree;
	struct random random;
	uint64_t now_ns, timer_ns;
	struct message messages[MESSAGE_MAX];
	unsigned message_count;
	bool has_written, has_imaged; /* to be told */
	uint64_t log_number;
	bool is_ready, has_failed;
	uint64_t index, digest;
	uint64_t seen[SEEN_MAX]; /* digest at each index */
};

static const struct agree_id self = {.node = 1, .pid = 7};
static const struct uuid node = {{1, 2, 3}};
static uint64_t last_start; /* each has a number of its own */

/* ---- the disk ---- */

static struct file *find(struct disk *disk, enum agree_file kind, uint64_t number)
{
	for (unsigned i = 0; i < disk->count; i++)
		if (disk->files[i].kind == kind && disk->files[i].number == number)
			return &disk->files[i];
	return NULL;
}

static void append(struct file *file, const void *data, size_t size)
{
	file->data = realloc(file->data, file->size + size);
	assert_non_null(file->data);
	memcpy(file->data + file->size, data, size);
	file->size += size;
}

static void make(struct disk *disk, enum agree_file kind, uint64_t number, const void *data,
		 size_t size)
{
	struct file *file = find(disk, kind, number);

	if (!file) {
		assert_true(disk->count < FILES_MAX);
		file = &disk->files[disk->count++];
		*file = (struct file){.kind = kind, .number = number};
	}
	file->size = 0;
	append(file, data, size);
}

static void drop(struct disk *disk, enum agree_file kind, uint64_t number)
{
	struct file *file = find(disk, kind, number);

	free(file->data);
	*file = disk->files[--disk->count];
}

static void disk_copy(const struct disk *from, struct disk *to)
{
	*to = (struct disk){0};
	for (unsigned i = 0; i < from->count; i++)
		make(to, from->files[i].kind, from->files[i].number, from->files[i].data,
		     from->files[i].size);
}

static void disk_done(struct disk *disk)
{
	for (unsigned i = 0; i < disk->count; i++)
		free(disk->files[i].data);
	*disk = (struct disk){0};
}

static struct file *newest_log(struct disk *disk)
{
	struct file *newest = NULL;

	for (unsigned i = 0; i < disk->count; i++)
		if (disk->files[i].kind == AGREE_FILE_LOG &&
		    (!newest || disk->files[i].number > newest->number))
			newest = &disk->files[i];
	return newest;
}

/* ---- ops ---- */

static uint64_t op_now(void *context)
{
	return ((struct life *)context)->now_ns;
}

static void op_set_timer(void *context, uint64_t at_ns)
{
	((struct life *)context)->timer_ns = at_ns;
}

static int op_send(void *context, const void *data, size_t size)
{
	struct life *life = context;
	struct message *message = &life->messages[life->message_count];

	if (life->message_count == MESSAGE_MAX)
		return -EAGAIN;
	message->data = malloc(size);
	assert_non_null(message->data);
	memcpy(message->data, data, size);
	message->size = size;
	life->message_count++;
	return 0;
}

static void op_write(void *context, const void *data, size_t size)
{
	struct life *life = context;

	append(find(life->disk, AGREE_FILE_LOG, life->log_number), data, size);
	life->has_written = true;
}

static void op_write_next(void *context, uint64_t number, const void *data, size_t size)
{
	struct life *life = context;

	life->log_number = number;
	make(life->disk, AGREE_FILE_LOG, number, data, size);
	life->has_written = true;
}

static void op_write_image(void *context, uint64_t number, const void *data, size_t size)
{
	struct life *life = context;

	make(life->disk, AGREE_FILE_IMAGE, number, data, size);
	life->has_imaged = true;
}

static void op_remove_below(void *context, enum agree_file kind, uint64_t number)
{
	struct life *life = context;

	for (unsigned i = 0; i < life->disk->count;) {
		struct file *file = &life->disk->files[i];

		if (file->kind == kind && file->number < number)
			drop(life->disk, kind, file->number);
		else
			i++;
	}
}

static void note(struct life *life, uint64_t index)
{
	assert_true(index < SEEN_MAX);
	life->index = index;
	life->seen[index] = life->digest;
}

static void op_commit(void *context, uint64_t index, const void *command, uint32_t size)
{
	struct life *life = context;

	life->digest = hash_u64_pair(hash_u64_pair(life->digest, index), hash_bytes(command, size));
	note(life, index);
}

static int op_install(void *context, uint64_t index, const void *image, size_t size,
		      struct error *err)
{
	struct life *life = context;

	if (size != sizeof(life->digest))
		return error_set(err, -E_CORRUPT, "image of %zu bytes", size);
	memcpy(&life->digest, image, size);
	note(life, index);
	return 0;
}

static int op_snapshot(void *context, struct engine_image *out)
{
	struct life *life = context;

	out->data = malloc(sizeof(life->digest));
	assert_non_null(out->data);
	memcpy(out->data, &life->digest, sizeof(life->digest));
	out->size = sizeof(life->digest);
	return 0;
}

static void op_ready(void *context)
{
	((struct life *)context)->is_ready = true;
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
	((struct life *)context)->has_failed = true;
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
	struct life *life = context;
	const struct file *file = find(life->disk, kind, number);

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

/* What engine_open() does: 0, or why it is refused. */
static int life_open(struct life *life, struct disk *disk, const struct uuid *as, struct error *err)
{
	struct agree_options options = {
		.self = {.node = *as, .start = ++last_start, .info = "x", .info_size = 1},
		.compact_bytes = 3000,
		.random = &life->random,
	};
	uint64_t numbers[FILES_MAX];
	uint32_t count = 0;

	*life = (struct life){.disk = disk, .now_ns = NS_PER_S, .timer_ns = UINT64_MAX};
	random_init(&life->random, 1);
	life->agree = agree_new(&options, &ops, life);
	assert_non_null(life->agree);
	for (unsigned i = 0; i < disk->count; i++)
		if (disk->files[i].kind == AGREE_FILE_LOG)
			numbers[count++] = disk->files[i].number;
	qsort(numbers, count, sizeof(numbers[0]), compare);
	return count ? agree_restore(life->agree, numbers, count, op_read, err) : 0;
}

static void life_turn(struct life *life)
{
	struct message messages[MESSAGE_MAX];
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

static void life_start(struct life *life)
{
	const struct agree_view view = {.self = self, .members = &self, .count = 1};

	agree_start(life->agree);
	agree_view(life->agree, &view);
	agree_quorum(life->agree, true);
	for (unsigned i = 0; i < 20000 && !life->is_ready && !life->has_failed; i++)
		life_turn(life);
}

static void life_end(struct life *life)
{
	for (unsigned i = 0; i < life->message_count; i++)
		free(life->messages[i].data);
	agree_free(life->agree);
}

static void propose(struct life *life, unsigned count)
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

/* A disk with a log of some starts, and what its user saw at each index. */
static void make_log(struct disk *disk, struct life *truth, unsigned rounds, unsigned commands)
{
	struct error err = {0};
	uint64_t *seen = calloc(SEEN_MAX, sizeof(*seen));

	*disk = (struct disk){0};
	for (unsigned i = 0; i < rounds; i++) {
		assert_int_equal(life_open(truth, disk, &node, &err), 0);
		life_start(truth);
		assert_true(truth->is_ready);
		propose(truth, commands);
		for (unsigned at = 0; at < SEEN_MAX; at++)
			seen[at] = truth->seen[at] ? truth->seen[at] : seen[at];
		life_end(truth);
	}
	memcpy(truth->seen, seen, sizeof(truth->seen));
	free(seen);
}

/* It starts, and what it says is what was said before, up to somewhere: how far? */
static uint64_t expect_prefix(struct disk *disk, const struct life *truth, uint64_t at_least)
{
	struct life *life = calloc(1, sizeof(*life));
	struct error err = {0};
	uint64_t index;

	assert_int_equal(life_open(life, disk, &node, &err), 0);
	life_start(life);
	assert_true(life->is_ready);
	assert_false(life->has_failed);
	assert_true(life->index >= at_least && life->index <= truth->index);
	for (unsigned i = 0; i < SEEN_MAX; i++)
		if (life->seen[i])
			assert_int_equal(life->seen[i], truth->seen[i]);
	index = life->index;
	life_end(life);
	free(life);
	return index;
}

/* ---- */

static void test_all_is_there_after_starts_and_compactions(void **state)
{
	struct life *truth = calloc(1, sizeof(*truth));
	struct disk disk;

	make_log(&disk, truth, 5, 60);
	assert_true(newest_log(&disk)->number > 5); /* it was compacted between */
	expect_prefix(&disk, truth, truth->index);
	expect_prefix(&disk, truth, truth->index);
	disk_done(&disk);
	free(truth);
}

/* A power cut leaves a part of the last write; what was synced before is all there. */
static void test_log_cut_at_every_byte_starts_with_what_is_whole(void **state)
{
	struct life *truth = calloc(1, sizeof(*truth));
	struct disk disk, cut;
	uint64_t index = 0;
	size_t size;

	make_log(&disk, truth, 1, 12);
	size = newest_log(&disk)->size;
	for (size_t length = 0; length <= size; length++) {
		disk_copy(&disk, &cut);
		newest_log(&cut)->size = length;
		index = expect_prefix(&cut, truth, index);
		disk_done(&cut);
	}
	assert_int_equal(index, truth->index);
	disk_done(&disk);
	free(truth);
}

/* The next file is being made, from the image, when the power goes: the file before it is still there. */
static void test_next_file_cut_at_every_byte_falls_back(void **state)
{
	struct life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct disk disk, cut;
	struct error err = {0};
	uint64_t next;

	make_log(&disk, truth, 2, 40);
	next = newest_log(&disk)->number + 1;
	disk_copy(&disk, &cut);
	assert_int_equal(life_open(life, &cut, &node, &err), 0);
	life_start(life);
	life_end(life);
	struct file *made = newest_log(&cut);
	assert_int_equal(made->number, next);
	for (size_t length = 0; length < made->size; length += 3) {
		struct disk both;

		disk_copy(&disk, &both);
		make(&both, AGREE_FILE_LOG, next, made->data, length);
		expect_prefix(&both, truth, truth->index);
		disk_done(&both);
	}
	disk_done(&cut);
	disk_done(&disk);
	free(life);
	free(truth);
}

/* A byte that changed is found: the last frame counts as not written, any other stops the start. */
static void test_changed_byte_is_never_believed(void **state)
{
	struct life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct disk disk, hurt;
	unsigned refused = 0, cut = 0;
	size_t size;

	make_log(&disk, truth, 1, 12);
	size = newest_log(&disk)->size;
	for (size_t at = 0; at < size; at++) {
		struct error err = {0};
		int rc;

		disk_copy(&disk, &hurt);
		newest_log(&hurt)->data[at] ^= (uint8_t)(1u << (at % 8));
		rc = life_open(life, &hurt, &node, &err);
		if (rc < 0) {
			assert_int_equal(rc, -E_CORRUPT);
			assert_non_null(strstr(err.text, "empty the directory"));
			refused++;
		}
		life_end(life);
		if (rc == 0) {
			expect_prefix(&hurt, truth, 0);
			cut++;
		}
		disk_done(&hurt);
	}
	assert_true(refused > size / 2);
	assert_true(cut > 0);
	disk_done(&disk);
	free(life);
	free(truth);
}

static void test_damaged_or_missing_image_is_named(void **state)
{
	struct life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct disk disk, hurt;
	struct error err = {0};
	struct file *image = NULL;

	make_log(&disk, truth, 3, 60);
	for (unsigned i = 0; i < disk.count; i++)
		if (disk.files[i].kind == AGREE_FILE_IMAGE)
			image = &disk.files[i];
	assert_non_null(image);
	for (size_t at = 0; at < image->size; at++) {
		disk_copy(&disk, &hurt);
		find(&hurt, AGREE_FILE_IMAGE, image->number)->data[at] ^= 0x10;
		assert_int_equal(life_open(life, &hurt, &node, &err), -E_CORRUPT);
		assert_non_null(strstr(err.text, "image"));
		life_end(life);
		disk_done(&hurt);
	}
	disk_copy(&disk, &hurt);
	drop(&hurt, AGREE_FILE_IMAGE, image->number);
	assert_true(life_open(life, &hurt, &node, &err) < 0);
	assert_non_null(strstr(err.text, "image"));
	life_end(life);
	disk_done(&hurt);
	disk_done(&disk);
	free(life);
	free(truth);
}

static void test_files_of_another_node_are_refused(void **state)
{
	static const struct uuid other = {{9}};
	struct life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct error err = {0};
	struct disk disk;

	make_log(&disk, truth, 1, 3);
	assert_int_equal(life_open(life, &disk, &other, &err), -E_WRONG_CLUSTER);
	assert_non_null(strstr(err.text, "belongs to node"));
	life_end(life);
	disk_done(&disk);
	free(life);
	free(truth);
}

static void test_garbage_is_no_log(void **state)
{
	struct life *life = calloc(1, sizeof(*life));
	struct random random;
	struct disk disk;

	random_init(&random, 5);
	for (unsigned i = 0; i < 500; i++) {
		struct error err = {0};
		uint8_t data[600];

		for (size_t at = 0; at < sizeof(data); at++)
			data[at] = (uint8_t)random_u64(&random);
		disk = (struct disk){0};
		make(&disk, AGREE_FILE_LOG, 7, data, random_below(&random, sizeof(data)));
		assert_int_equal(life_open(life, &disk, &node, &err), -E_CORRUPT);
		life_end(life);
		disk_done(&disk);
	}
	free(life);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_is_there_after_starts_and_compactions),
		cmocka_unit_test(test_log_cut_at_every_byte_starts_with_what_is_whole),
		cmocka_unit_test(test_next_file_cut_at_every_byte_falls_back),
		cmocka_unit_test(test_changed_byte_is_never_believed),
		cmocka_unit_test(test_damaged_or_missing_image_is_named),
		cmocka_unit_test(test_files_of_another_node_are_refused),
		cmocka_unit_test(test_garbage_is_no_log),
	};
	struct logger quiet = {.level = LOG_LEVEL_ERROR, .sink = log_sink_text};

	(void)log_set_current(&quiet);
	return cmocka_run_group_tests_name("files of the agreement", tests, NULL, NULL);
}
