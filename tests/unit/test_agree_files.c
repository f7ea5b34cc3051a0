/*
 * What the engine on corosync finds on a disk after anything: logs cut at every byte, every byte changed, files that are
 * missing or foreign. One member alone writes the log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/log.h"
#include "tests/unit/agree_life.h"

/* A disk with a log of some starts, and what its user saw at each index. */
static void make_log(struct agree_life_disk *disk, struct agree_life *truth, unsigned rounds,
		     unsigned commands)
{
	struct error err = {0};
	uint64_t *seen = calloc(AGREE_LIFE_SEEN_MAX, sizeof(*seen));

	*disk = (struct agree_life_disk){0};
	for (unsigned i = 0; i < rounds; i++) {
		assert_int_equal(agree_life_open(truth, disk, &agree_life_node, &err), 0);
		agree_life_start(truth);
		assert_true(truth->is_ready);
		agree_life_propose(truth, commands);
		for (unsigned at = 0; at < AGREE_LIFE_SEEN_MAX; at++)
			seen[at] = truth->seen[at] ? truth->seen[at] : seen[at];
		agree_life_end(truth);
	}
	memcpy(truth->seen, seen, sizeof(truth->seen));
	free(seen);
}

/* It starts, and what it says is what was said before, up to somewhere: how far? */
static uint64_t expect_prefix(struct agree_life_disk *disk, const struct agree_life *truth,
			      uint64_t at_least)
{
	struct agree_life *life = calloc(1, sizeof(*life));
	struct error err = {0};
	uint64_t index;

	assert_int_equal(agree_life_open(life, disk, &agree_life_node, &err), 0);
	agree_life_start(life);
	assert_true(life->is_ready);
	assert_false(life->has_failed);
	assert_true(life->index >= at_least && life->index <= truth->index);
	for (unsigned i = 0; i < AGREE_LIFE_SEEN_MAX; i++)
		if (life->seen[i])
			assert_int_equal(life->seen[i], truth->seen[i]);
	index = life->index;
	agree_life_end(life);
	free(life);
	return index;
}

/* ---- */

static void test_all_is_there_after_starts_and_compactions(void **state)
{
	struct agree_life *truth = calloc(1, sizeof(*truth));
	struct agree_life_disk disk;

	make_log(&disk, truth, 5, 60);
	assert_true(agree_life_disk_newest(&disk)->number > 5); /* it was compacted between */
	expect_prefix(&disk, truth, truth->index);
	expect_prefix(&disk, truth, truth->index);
	agree_life_disk_done(&disk);
	free(truth);
}

/* A power cut leaves a part of the last write; what was synced before is all there. */
static void test_log_cut_at_every_byte_starts_with_what_is_whole(void **state)
{
	struct agree_life *truth = calloc(1, sizeof(*truth));
	struct agree_life_disk disk, cut;
	uint64_t index = 0;
	size_t size;

	make_log(&disk, truth, 1, 12);
	size = agree_life_disk_newest(&disk)->size;
	for (size_t length = 0; length <= size; length++) {
		agree_life_disk_copy(&disk, &cut);
		agree_life_disk_newest(&cut)->size = length;
		index = expect_prefix(&cut, truth, index);
		agree_life_disk_done(&cut);
	}
	assert_int_equal(index, truth->index);
	agree_life_disk_done(&disk);
	free(truth);
}

/* The next file is being made, from the image, when the power goes: the file before it is still there. */
static void test_next_file_cut_at_every_byte_falls_back(void **state)
{
	struct agree_life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct agree_life_disk disk, cut;
	struct error err = {0};
	uint64_t next;

	make_log(&disk, truth, 2, 40);
	next = agree_life_disk_newest(&disk)->number + 1;
	agree_life_disk_copy(&disk, &cut);
	assert_int_equal(agree_life_open(life, &cut, &agree_life_node, &err), 0);
	agree_life_start(life);
	agree_life_end(life);
	struct agree_life_file *made = agree_life_disk_newest(&cut);
	assert_int_equal(made->number, next);
	for (size_t length = 0; length < made->size; length += 3) {
		struct agree_life_disk both;

		agree_life_disk_copy(&disk, &both);
		agree_life_disk_make(&both, AGREE_FILE_LOG, next, made->data, length);
		expect_prefix(&both, truth, truth->index);
		agree_life_disk_done(&both);
	}
	agree_life_disk_done(&cut);
	agree_life_disk_done(&disk);
	free(life);
	free(truth);
}

/* A byte that changed is found: the last frame counts as not written, any other stops the start. */
static void test_changed_byte_is_never_believed(void **state)
{
	struct agree_life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct agree_life_disk disk, hurt;
	unsigned refused = 0, cut = 0;
	size_t size;

	make_log(&disk, truth, 1, 12);
	size = agree_life_disk_newest(&disk)->size;
	for (size_t at = 0; at < size; at++) {
		struct error err = {0};
		int rc;

		agree_life_disk_copy(&disk, &hurt);
		agree_life_disk_newest(&hurt)->data[at] ^= (uint8_t)(1u << (at % 8));
		rc = agree_life_open(life, &hurt, &agree_life_node, &err);
		if (rc < 0) {
			assert_int_equal(rc, -E_CORRUPT);
			assert_non_null(strstr(err.text, "empty the directory"));
			refused++;
		}
		agree_life_end(life);
		if (rc == 0) {
			expect_prefix(&hurt, truth, 0);
			cut++;
		}
		agree_life_disk_done(&hurt);
	}
	assert_true(refused > size / 2);
	assert_true(cut > 0);
	agree_life_disk_done(&disk);
	free(life);
	free(truth);
}

static void test_damaged_or_missing_image_is_named(void **state)
{
	struct agree_life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct agree_life_disk disk, hurt;
	struct error err = {0};
	struct agree_life_file *image = NULL;

	make_log(&disk, truth, 3, 60);
	for (unsigned i = 0; i < disk.count; i++)
		if (disk.files[i].kind == AGREE_FILE_IMAGE)
			image = &disk.files[i];
	assert_non_null(image);
	for (size_t at = 0; at < image->size; at++) {
		agree_life_disk_copy(&disk, &hurt);
		agree_life_disk_find(&hurt, AGREE_FILE_IMAGE, image->number)->data[at] ^= 0x10;
		assert_int_equal(agree_life_open(life, &hurt, &agree_life_node, &err), -E_CORRUPT);
		assert_non_null(strstr(err.text, "image"));
		agree_life_end(life);
		agree_life_disk_done(&hurt);
	}
	agree_life_disk_copy(&disk, &hurt);
	agree_life_disk_drop(&hurt, AGREE_FILE_IMAGE, image->number);
	assert_true(agree_life_open(life, &hurt, &agree_life_node, &err) < 0);
	assert_non_null(strstr(err.text, "image"));
	agree_life_end(life);
	agree_life_disk_done(&hurt);
	agree_life_disk_done(&disk);
	free(life);
	free(truth);
}

static void test_files_of_another_node_are_refused(void **state)
{
	static const struct uuid other = {{9}};
	struct agree_life *truth = calloc(1, sizeof(*truth)), *life = calloc(1, sizeof(*life));
	struct error err = {0};
	struct agree_life_disk disk;

	make_log(&disk, truth, 1, 3);
	assert_int_equal(agree_life_open(life, &disk, &other, &err), -E_WRONG_CLUSTER);
	assert_non_null(strstr(err.text, "belongs to node"));
	agree_life_end(life);
	agree_life_disk_done(&disk);
	free(life);
	free(truth);
}

static void test_garbage_is_no_log(void **state)
{
	struct agree_life *life = calloc(1, sizeof(*life));
	struct random random;
	struct agree_life_disk disk;

	random_init(&random, 5);
	for (unsigned i = 0; i < 500; i++) {
		struct error err = {0};
		uint8_t data[600];

		for (size_t at = 0; at < sizeof(data); at++)
			data[at] = (uint8_t)random_u64(&random);
		disk = (struct agree_life_disk){0};
		agree_life_disk_make(&disk, AGREE_FILE_LOG, 7, data,
				     random_below(&random, sizeof(data)));
		assert_int_equal(agree_life_open(life, &disk, &agree_life_node, &err), -E_CORRUPT);
		agree_life_end(life);
		agree_life_disk_done(&disk);
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
