/* The records of the local log, which of them count, and what becomes of proposals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"
#include "sheep/engine/outbox.h"
#include "sheep/engine/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct uuid file_id = {"the file's own."}, other_id = {"another file's."};
static const struct uuid node = {"a node of them."};

static size_t encode(const void *body, uint32_t length, uint64_t sequence, uint8_t *out)
{
	struct random random;
	struct record record = {
		.type = LOCAL_RECORD_COMMAND,
		.node = node,
		.start = 5,
		.sequence = sequence,
		.body = body,
		.length = length,
	};

	random_init(&random, sequence);
	assert_int_equal(record_encode(&record, &file_id, &random, out), 0);
	return RECORD_OVERHEAD + length;
}

static void test_record_comes_back_as_it_was(void **state)
{
	uint8_t *bytes = malloc(RECORD_MAX), *body = malloc(ENGINE_COMMAND_MAX);
	static const uint32_t lengths[] = {1, 7, 8, 9, 4096, ENGINE_COMMAND_MAX};

	for (size_t i = 0; i < ARRAY_COUNT(lengths); i++) {
		struct record record;
		size_t size, consumed;

		for (uint32_t at = 0; at < lengths[i]; at++)
			body[at] = (uint8_t)(at * 7);
		size = encode(body, lengths[i], i + 1, bytes);
		assert_int_equal(record_parse(&file_id, bytes, size, &record, &consumed),
				 RECORD_FOUND);
		assert_int_equal(consumed, size);
		assert_int_equal(record.length, lengths[i]);
		assert_int_equal(record.sequence, i + 1);
		assert_int_equal(record.start, 5);
		assert_true(uuid_is_equal(&record.node, &node));
		record_mask(record.mask, (uint8_t *)record.body, record.length);
		assert_memory_equal(record.body, body, lengths[i]);
	}
	free(body);
	free(bytes);
}

static void test_mark_in_a_command_is_hidden(void **state)
{
	uint8_t bytes[512], body[64];
	struct record record;
	size_t size, consumed;

	for (size_t at = 0; at + LOCAL_MARK_SIZE <= sizeof(body); at++) {
		memset(body, 0, sizeof(body));
		memcpy(body + at, LOCAL_MARK, LOCAL_MARK_SIZE);
		size = encode(body, sizeof(body), 1, bytes);
		assert_null(memmem(bytes + 1, size - 1, LOCAL_MARK, LOCAL_MARK_SIZE));
		assert_int_equal(record_parse(&file_id, bytes, size, &record, &consumed),
				 RECORD_FOUND);
		assert_true(record.mask != 0);
		record_mask(record.mask, (uint8_t *)record.body, record.length);
		assert_memory_equal(record.body, body, sizeof(body));
	}
}

static void test_record_that_no_mask_can_hide_is_refused(void **state)
{
	struct record record = {
		.type = LOCAL_RECORD_COMMAND, .body = (const uint8_t *)"x", .length = 1};
	uint8_t bytes[RECORD_OVERHEAD + 1];
	struct random random;

	random_init(&random, 1);
	memcpy(record.node.bytes + 4, LOCAL_MARK, LOCAL_MARK_SIZE);
	assert_int_equal(record_encode(&record, &file_id, &random, bytes), -EINVAL);
}

/* A cut record is over as soon as anything is appended behind it; what was appended is found. */
static void test_cut_record_waits_for_no_more_than_the_next(void **state)
{
	uint8_t first[512], second[512], both[1024];
	size_t a = encode("a long command, to be cut short", 31, 1, first);
	size_t b = encode("b", 1, 2, second);

	for (size_t cut = 1; cut < a; cut++) {
		struct scan scan = {.file_id = file_id, .number = 1};
		struct record record;
		size_t consumed;

		memcpy(both, first, cut);
		assert_int_equal(scan_next(&scan, both, cut, &record, &consumed), SCAN_MORE);
		assert_int_equal(consumed, 0); /* it may still become whole */
		memcpy(both + cut, second, b);
		assert_int_equal(scan_next(&scan, both, cut + b, &record, &consumed), SCAN_COMMAND);
		assert_int_equal(record.sequence, 2);
		assert_int_equal(consumed, cut + b);
		assert_int_equal(scan.skipped_bytes, cut);
	}
}

static void test_every_flipped_bit_is_found(void **state)
{
	uint8_t bytes[512];
	size_t size = encode("some command", 12, 1, bytes);

	for (size_t bit = 0; bit < size * 8; bit++) {
		struct scan scan = {.file_id = file_id, .number = 1};
		struct record record;
		size_t consumed;

		bytes[bit / 8] ^= (uint8_t)BIT(bit % 8);
		assert_int_equal(scan_next(&scan, bytes, size, &record, &consumed), SCAN_MORE);
		bytes[bit / 8] ^= (uint8_t)BIT(bit % 8);
	}
}

static void test_record_of_another_file_does_not_count(void **state)
{
	uint8_t bytes[512];
	size_t size = encode("stale", 5, 1, bytes), consumed;
	struct scan scan = {.file_id = other_id, .number = 1};
	struct record record;

	assert_int_equal(scan_next(&scan, bytes, size, &record, &consumed), SCAN_MORE);
	assert_int_equal(consumed, size);
}

static size_t encode_seal(uint64_t number, uint8_t *out)
{
	struct random random;
	struct local_seal seal;
	struct record record = {
		.type = LOCAL_RECORD_SEAL, .body = (const uint8_t *)&seal, .length = sizeof(seal)};

	scan_seal_body(&other_id, number, &seal);
	random_init(&random, 3);
	assert_int_equal(record_encode(&record, &file_id, &random, out), 0);
	return RECORD_OVERHEAD + sizeof(seal);
}

static void test_nothing_behind_the_first_seal_counts(void **state)
{
	uint8_t bytes[1024];
	struct scan scan = {.file_id = file_id, .number = 1};
	struct record record;
	size_t size = encode("one", 3, 1, bytes), used, consumed;

	size += encode_seal(7, bytes + size); /* a seal of nothing: garbage, for all */
	size += encode("two", 3, 2, bytes + size);
	size += encode_seal(2, bytes + size);
	size += encode("void", 4, 3, bytes + size);
	assert_int_equal(scan_next(&scan, bytes, size, &record, &used), SCAN_COMMAND);
	assert_int_equal(record.sequence, 1);
	assert_int_equal(scan_next(&scan, bytes + used, size - used, &record, &consumed),
			 SCAN_COMMAND);
	assert_int_equal(record.sequence, 2);
	used += consumed;
	assert_int_equal(scan_next(&scan, bytes + used, size - used, &record, &consumed),
			 SCAN_SEAL);
	assert_true(uuid_is_equal(&scan.next_id, &other_id));
	used += consumed;
	assert_int_equal(scan_next(&scan, bytes + used, size - used, &record, &consumed),
			 SCAN_MORE);
	assert_int_equal(consumed, 0);
}

/* A type of a later version must stop a reader: skipping it would be another decision. */
static void test_record_of_a_newer_version_stops(void **state)
{
	struct record record = {
		.type = (enum local_record_type)9, .body = (const uint8_t *)"?", .length = 1};
	struct scan scan = {.file_id = file_id, .number = 1};
	uint8_t bytes[512];
	struct random random;
	size_t consumed;

	random_init(&random, 3);
	assert_int_equal(record_encode(&record, &file_id, &random, bytes), 0);
	assert_int_equal(scan_next(&scan, bytes, RECORD_OVERHEAD + 1, &record, &consumed),
			 SCAN_NEWER);
}

static void test_random_files(void **state)
{
	const char *text = getenv("SHEEPFOLD_LONG");
	unsigned rounds = text && *text == '1' ? 4000 : 150;
	uint8_t program[3000];
	struct random random;

	for (unsigned seed = 1; seed <= rounds; seed++) {
		size_t size;

		random_init(&random, seed);
		size = 1 + random_below(&random, sizeof(program));
		for (size_t i = 0; i < size; i++)
			program[i] = random_below(&random, 4) ? (uint8_t)random_u64(&random)
							      : (uint8_t)random_below(&random, 4);
		LLVMFuzzerTestOneInput(program, size);
	}
}

/* ---- proposals ---- */

struct out {
	struct outbox box;
	struct random random;
	uint8_t *bytes;
};

static struct out *out_new(void)
{
	struct out *out = calloc(1, sizeof(*out));

	out->bytes = malloc(RECORD_MAX);
	random_init(&out->random, 1);
	outbox_init(&out->box, &node, 5);
	return out;
}

static void out_free(struct out *out)
{
	outbox_done(&out->box);
	assert_int_equal(out->box.queued_bytes, 0);
	assert_int_equal(out->box.count, 0);
	assert_int_equal(out->box.waiting, 0);
	free(out->bytes);
	free(out);
}

static size_t fill(struct out *out)
{
	return outbox_fill(&out->box, &file_id, &out->random, out->bytes, RECORD_MAX);
}

static bool see(struct out *out, uint64_t start, uint64_t sequence)
{
	struct record record = {.node = node, .start = start, .sequence = sequence};

	return outbox_seen(&out->box, &record);
}

static void test_proposal_is_gone_when_seen_in_any_state(void **state)
{
	struct out *out = out_new();

	for (uint64_t sequence = 1; sequence <= 4; sequence++) {
		assert_int_equal(outbox_add(&out->box, LOCAL_RECORD_COMMAND, "abc", 3), sequence);
		if (sequence > 1)
			assert_int_equal(fill(out), RECORD_OVERHEAD + 3);
		if (sequence > 2)
			outbox_written(&out->box);
		if (sequence > 3)
			outbox_read_start(&out->box);
		assert_false(see(out, 4, sequence)); /* of another start of ours */
		assert_true(see(out, 5, sequence));
		assert_false(see(out, 5, sequence));
		assert_int_equal(out->box.count, 0);
		outbox_written(&out->box);
		assert_int_equal(outbox_read_end(&out->box), 0);
		assert_int_equal(fill(out), 0);
	}
	out_free(out);
}

static void test_proposal_that_a_later_read_lacks_is_sent_again(void **state)
{
	struct out *out = out_new();

	outbox_add(&out->box, LOCAL_RECORD_COMMAND, "abc", 3);
	assert_true(fill(out) > 0);
	outbox_read_start(&out->box); /* began before the write ended: it says nothing */
	outbox_written(&out->box);
	assert_int_equal(outbox_read_end(&out->box), 0);
	assert_int_equal(fill(out), 0);
	outbox_read_start(&out->box);
	assert_int_equal(outbox_read_end(&out->box), 1);
	assert_true(fill(out) > 0);
	out_free(out);
}

static void test_proposals_behind_a_seal_are_sent_again(void **state)
{
	struct out *out = out_new();

	outbox_add(&out->box, LOCAL_RECORD_COMMAND, "a", 1);
	assert_true(fill(out) > 0);
	outbox_written(&out->box);
	outbox_read_start(&out->box);
	outbox_add(&out->box, LOCAL_RECORD_COMMAND, "b", 1);
	assert_true(fill(out) > 0);
	outbox_written(&out->box);
	assert_int_equal(outbox_file_left(&out->box), 2);
	assert_int_equal(fill(out), 2 * (RECORD_OVERHEAD + 1));
	out_free(out);
}

static void test_batch_holds_what_fits(void **state)
{
	struct out *out = out_new();
	uint8_t *big = calloc(1, ENGINE_COMMAND_MAX);

	outbox_add(&out->box, LOCAL_RECORD_COMMAND, "a", 1);
	outbox_add(&out->box, LOCAL_RECORD_COMMAND, big, ENGINE_COMMAND_MAX);
	outbox_add(&out->box, LOCAL_RECORD_COMMAND, "b", 1);
	assert_int_equal(fill(out), RECORD_OVERHEAD + 1); /* their order is kept */
	outbox_written(&out->box);
	assert_int_equal(fill(out), RECORD_MAX);
	outbox_written(&out->box);
	assert_int_equal(fill(out), RECORD_OVERHEAD + 1);
	outbox_written(&out->box);
	assert_int_equal(fill(out), 0);
	free(big);
	out_free(out);
}

static void test_queue_is_bounded_but_for_seals(void **state)
{
	struct out *out = out_new();

	for (uint32_t i = 0; i < ENGINE_QUEUE_COUNT; i++)
		assert_true(outbox_add(&out->box, LOCAL_RECORD_COMMAND, "a", 1) > 0);
	assert_int_equal(outbox_add(&out->box, LOCAL_RECORD_COMMAND, "a", 1), -EAGAIN);
	assert_true(outbox_add(&out->box, LOCAL_RECORD_SEAL, "a", 1) > 0);
	outbox_drop(&out->box, 1);
	outbox_drop(&out->box, ENGINE_QUEUE_COUNT + 1);
	outbox_drop(&out->box, 999999); /* not there: nothing */
	assert_true(outbox_add(&out->box, LOCAL_RECORD_COMMAND, "a", 1) > 0);
	out_free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record_comes_back_as_it_was),
		cmocka_unit_test(test_mark_in_a_command_is_hidden),
		cmocka_unit_test(test_record_that_no_mask_can_hide_is_refused),
		cmocka_unit_test(test_cut_record_waits_for_no_more_than_the_next),
		cmocka_unit_test(test_every_flipped_bit_is_found),
		cmocka_unit_test(test_record_of_another_file_does_not_count),
		cmocka_unit_test(test_nothing_behind_the_first_seal_counts),
		cmocka_unit_test(test_record_of_a_newer_version_stops),
		cmocka_unit_test(test_random_files),
		cmocka_unit_test(test_proposal_is_gone_when_seen_in_any_state),
		cmocka_unit_test(test_proposal_that_a_later_read_lacks_is_sent_again),
		cmocka_unit_test(test_proposals_behind_a_seal_are_sent_again),
		cmocka_unit_test(test_batch_holds_what_fits),
		cmocka_unit_test(test_queue_is_bounded_but_for_seals),
	};

	return cmocka_run_group_tests_name("engine: local log", tests, NULL, NULL);
}
