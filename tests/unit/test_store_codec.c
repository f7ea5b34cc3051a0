/*
 * The parts of the store that do no I/O: batches and page records as bytes, the object table, the record of
 * a PG. What comes from a disk can be anything: no damaged byte may be believed, and none may crash.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/random.h"
#include "lib/base/size.h"
#include "sheep/store/batch.h"
#include "sheep/store/page.h"
#include "sheep/store/record.h"
#include "sheep/store/table.h"

#define DESCRIPTOR (64u << 10)
#define PLACES	   100000u

static uint8_t memory[DESCRIPTOR] __attribute__((aligned(8)));
static const struct uuid store = {.bytes = {1, 2, 3}};

/* ---- batches ---- */

static struct store_append sample_append(const struct store_run *runs, uint32_t count)
{
	return (struct store_append){.pg = 7,
				     .family = 11,
				     .key = {12, 13},
				     .version = {14, 15},
				     .previous = {14, 9},
				     .session = 16,
				     .number = 17,
				     .lowest = 5,
				     .flags = STORE_SET_MISSING | STORE_SYNC,
				     .run_count = count,
				     .runs = runs};
}

static struct batch_header sample_header(uint32_t payload, const struct batch_writer *writer)
{
	return (struct batch_header){.store = store,
				     .shard = 2,
				     .segment = 3,
				     .block = 4,
				     .blocks = batch_descriptor_blocks(writer->used) + payload,
				     .next_segment = 5,
				     .generation = 6,
				     .lsn = 7,
				     .life = 8,
				     .synced_lsn = 9,
				     .checkpoint = 10};
}

/* One entry of each kind; 6 payload blocks. */
static struct batch_header write_sample(void)
{
	static const struct store_run runs[] = {
		{0, 1, BLOCK_DATA}, {3, 4, BLOCK_ZERO}, {1020, 4, BLOCK_DATA}};
	const struct store_request requests[] = {{1, 2, {3, 4}, {9, 10}}, {5, 6, {7, 8}, {11, 12}}};
	const struct store_append a = sample_append(runs, 3);
	const struct object_key key = {21, 22};
	struct batch_writer writer;
	struct batch_header header;
	le32 *crcs;

	batch_begin(&writer, memory, DESCRIPTOR);
	crcs = batch_put_change(&writer, &a, 0, 5);
	for (uint32_t i = 0; i < 5; i++)
		crcs[i] = to_le32(100 + i);
	crcs = batch_put_move(&writer, 8, &key, 9, 30, 1, 4711, 5);
	crcs[0] = to_le32(200);
	batch_put_page(&writer, 8, &key, 15, 5, 32, 320, 0x1234);
	batch_put_commit(&writer, 8, (struct version){31, 32});
	batch_put_requests(&writer, 8, DISK_REQUESTS_FIRST, requests, 2);
	batch_put_forget(&writer, DISK_END_SESSION, 8, 33);
	batch_put_forget(&writer, DISK_DROP_PG, 8, 0);
	batch_put_object_requests(&writer, 8, DISK_REQUESTS_FIRST, (struct version){41, 42},
				  requests + 1, 1);
	header = sample_header(6, &writer);
	batch_seal(&writer, &header);
	return header;
}

static void test_every_kind_of_entry_is_read_back(void **state)
{
	struct batch_header header = write_sample(), got;
	struct batch_entry e;
	uint32_t offset = 0;

	assert_int_equal(batch_read_header(memory, &store, 2, 3, 4, 256, &got), 0);
	assert_memory_equal(&got, &header, sizeof(got));
	assert_int_equal(batch_verify(memory, got.descriptor_bytes), 0);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.kind, DISK_CHANGE);
	assert_int_equal(e.flags, DISK_CHANGE_SET_MISSING);
	assert_int_equal(e.key.index, 13);
	assert_int_equal(e.version.n, 15);
	assert_int_equal(e.previous.n, 9);
	assert_int_equal(e.number, 17);
	assert_int_equal(e.run_count, 3);
	assert_int_equal(from_le16(e.runs[2].block), 1020);
	assert_int_equal(e.data_blocks, 5);
	assert_int_equal(from_le32(e.crcs[4]), 104);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.kind, DISK_MOVE);
	assert_int_equal(e.from, 4711);
	assert_int_equal(e.block, 30);
	assert_int_equal(from_le32(e.crcs[0]), 200);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.kind, DISK_PAGE);
	assert_int_equal(e.offset16, 2);
	assert_int_equal(e.length16, 20);
	assert_int_equal(e.check, 0x1234);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.kind, DISK_COMMIT);
	assert_int_equal(e.version.n, 32);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.kind, DISK_REQUESTS);
	assert_int_equal(e.request_count, 2);
	assert_int_equal(from_le64(e.requests[1].number), 6);
	assert_int_equal(from_le64(e.requests[1].layer), 11);
	assert_int_equal(from_le32(e.requests[1].index), 12);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.session, 33);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.kind, DISK_DROP_PG);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 1);
	assert_int_equal(e.kind, DISK_OBJECT_REQUESTS);
	assert_int_equal(e.flags, DISK_REQUESTS_FIRST);
	assert_int_equal(e.previous.n, 42);
	assert_int_equal(e.request_count, 1);
	assert_int_equal(from_le64(e.requests[0].session), 5);
	assert_int_equal(batch_next(memory, got.descriptor_bytes, 6, PLACES, &offset, &e), 0);
}

static void test_batch_in_another_place_or_store_is_none(void **state)
{
	const struct uuid other = {.bytes = {9}};
	struct batch_header got;

	(void)write_sample();
	assert_int_equal(batch_read_header(memory, &other, 2, 3, 4, 256, &got), -E_CORRUPT);
	assert_int_equal(batch_read_header(memory, &store, 1, 3, 4, 256, &got), -E_CORRUPT);
	assert_int_equal(batch_read_header(memory, &store, 2, 4, 4, 256, &got), -E_CORRUPT);
	assert_int_equal(batch_read_header(memory, &store, 2, 3, 5, 256, &got), -E_CORRUPT);
	/* It would reach over the end of the segment. */
	assert_int_equal(batch_read_header(memory, &store, 2, 3, 4, 10, &got), -E_CORRUPT);
	assert_int_equal(batch_read_header(memory, &store, 2, 3, 4, 11, &got), 0);
}

static void test_no_flipped_bit_of_a_descriptor_passes(void **state)
{
	struct batch_header header = write_sample(), got;

	for (uint32_t bit = 0; bit < header.descriptor_bytes * 8; bit++) {
		memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (batch_read_header(memory, &store, 2, 3, 4, 256, &got) == 0)
			assert_int_equal(batch_verify(memory, got.descriptor_bytes), -E_CHECKSUM);
		memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

/* Entries whose checksum is right and whose content is nonsense: by a bug, or by somebody. */
static void test_nonsense_in_entries_is_found_and_never_followed(void **state)
{
	struct batch_header header = write_sample();
	uint8_t *copy = malloc(header.descriptor_bytes);
	struct random random;
	uint64_t refused = 0;

	random_init(&random, 1);
	for (uint32_t i = 0; i < 200000; i++) {
		struct batch_entry e;
		uint32_t offset = 0, steps = 0;
		int rc;
		/* Its own memory, so that a sanitizer sees every byte too far. */
		memcpy(copy, memory, header.descriptor_bytes);
		for (uint64_t n = 1 + random_below(&random, 3); n > 0; n--)
			copy[120 + random_below(&random, header.descriptor_bytes - 120)] =
				(uint8_t)random_u64(&random);
		while ((rc = batch_next(copy, header.descriptor_bytes, 6, PLACES, &offset, &e)) >
		       0) {
			assert_true(++steps < 1000);
			assert_true(e.payload + e.data_blocks <= 6);
			assert_true(e.from + (uint64_t)e.data_blocks <= PLACES ||
				    e.kind != DISK_MOVE);
			for (uint32_t j = 0; j < e.run_count; j++)
				assert_true(from_le16(e.runs[j].block) +
						    from_le16(e.runs[j].count) <=
					    OBJECT_BLOCKS);
			for (uint32_t j = 0; j < e.data_blocks; j++)
				refused += from_le32(e.crcs[j]) == 0xffffffffu;
			for (uint32_t j = 0; j < e.request_count; j++)
				refused += from_le64(e.requests[j].session) == UINT64_MAX;
		}
		refused += rc < 0;
	}
	assert_true(refused > 20000);
	free(copy);
}

static void test_largest_entry_fits_a_descriptor(void **state)
{
	static struct store_run runs[OBJECT_BLOCKS];
	struct batch_writer writer;
	struct batch_entry e;
	uint32_t offset = 0;

	for (uint32_t i = 0; i < OBJECT_BLOCKS; i++)
		runs[i] = (struct store_run){(uint16_t)i, 1, BLOCK_DATA};
	const struct store_append a = sample_append(runs, OBJECT_BLOCKS);
	batch_begin(&writer, memory, DESCRIPTOR);
	assert_true(batch_change_size(OBJECT_BLOCKS, OBJECT_BLOCKS) + 4096 < batch_room(&writer));
	memset(batch_put_change(&writer, &a, 0, OBJECT_BLOCKS), 0, OBJECT_BLOCKS * sizeof(le32));
	struct batch_header header = sample_header(OBJECT_BLOCKS, &writer);
	batch_seal(&writer, &header);
	assert_int_equal(
		batch_next(memory, header.descriptor_bytes, OBJECT_BLOCKS, PLACES, &offset, &e), 1);
	assert_int_equal(e.data_blocks, OBJECT_BLOCKS);
	offset = 0;
	assert_int_equal(
		batch_next(memory, header.descriptor_bytes, OBJECT_BLOCKS - 1, PLACES, &offset, &e),
		-E_CORRUPT);
}

/* ---- pages ---- */

static void random_page(struct random *random, struct page *page)
{
	*page = (struct page){.key = {3, 4}, .pg = 5, .number = 6};
	for (uint32_t i = 0; i < DISK_PAGE_BLOCKS; i++) {
		uint64_t dice = random_below(random, 4);
		if (dice == 1)
			page->places[i] = DISK_PLACE_ZERO;
		else if (dice == 2 && i > 0 && place_state(page->places[i - 1]) == BLOCK_DATA)
			page->places[i] = page->places[i - 1] + 1;
		else if (dice >= 2)
			page->places[i] = 1 + (uint32_t)random_below(random, PLACES - 100);
		if (place_state(page->places[i]) == BLOCK_DATA)
			page->crcs[i] = (uint32_t)random_u64(random);
	}
}

static void test_pages_are_read_back_and_damage_is_found(void **state)
{
	uint8_t record[DISK_PAGE_RECORD_MAX];
	struct page page, got;
	struct random random;

	random_init(&random, 2);
	for (uint32_t i = 0; i < 2000; i++) {
		random_page(&random, &page);
		uint32_t length = page_encode(&page, record);
		uint32_t check = page_record_check(record);
		assert_true(length <= sizeof(record) && length % 16 == 0);
		got = (struct page){.key = page.key, .pg = page.pg, .number = page.number};
		assert_int_equal(page_decode(&got, record, length, check, PLACES), 0);
		assert_memory_equal(got.places, page.places, sizeof(got.places));
		for (uint32_t j = 0; j < DISK_PAGE_BLOCKS; j++)
			if (place_state(page.places[j]) == BLOCK_DATA)
				assert_int_equal(got.crcs[j], page.crcs[j]);
		/* Of another object, another record in its place, cut, flipped. */
		got.key.index++;
		assert_int_equal(page_decode(&got, record, length, check, PLACES), -E_CHECKSUM);
		got.key.index--;
		assert_int_equal(page_decode(&got, record, length, check ^ 1, PLACES), -E_CHECKSUM);
		assert_int_equal(page_decode(&got, record, length - 16, check, PLACES),
				 -E_CHECKSUM);
		record[random_below(&random, length)] ^= (uint8_t)(1 << random_below(&random, 8));
		assert_int_equal(page_decode(&got, record, length, check, PLACES), -E_CHECKSUM);
	}
}

static void test_page_record_sizes_are_what_the_layout_counts_on(void **state)
{
	uint8_t record[DISK_PAGE_RECORD_MAX];
	struct page page = {.number = 1};

	assert_true(page_is_empty(&page));
	for (uint32_t i = 0; i < DISK_PAGE_BLOCKS; i++)
		page.places[i] = 10 + i;
	assert_int_equal(page_encode(&page, record), 304);
	for (uint32_t i = 0; i < DISK_PAGE_BLOCKS; i++)
		page.places[i] = 10 + 2 * i;
	assert_int_equal(page_encode(&page, record), 800);
	assert_int_equal(DISK_BLOCK / 800, 5);
	/* The first place of a shard is never data: it stands for absent. */
	page.places[0] = DISK_PLACE_ABSENT;
	assert_int_equal(place_state(page.places[0]), BLOCK_ABSENT);
}

/* ---- the table ---- */

static uint32_t saves;

static void on_save(struct table_saver *saver, struct table *table, struct table_chunk *chunk)
{
	saves++;
}

static void test_table_is_an_ordered_map_at_any_order_of_changes(void **state)
{
	enum { KEYS = 3000 };
	static bool has[KEYS];
	struct table_saver saver = {.save = on_save};
	struct table table;
	struct random random;
	uint32_t count = 0;

	random_init(&random, 3);
	table_init(&table, &saver, 1);
	for (uint32_t step = 0; step < 60000; step++) {
		uint32_t n = (uint32_t)random_below(&random, KEYS);
		struct object_key key = {n / 64, n % 64};
		struct object *object = table_find(&table, &key, NULL);
		assert_int_equal(object != NULL, has[n]);
		/* Grow first, then shrink to nothing. */
		if (!object && random_below(&random, 60000) > step) {
			object = table_insert(&table, &key, NULL);
			object->data_blocks = (uint16_t)n;
			has[n] = true;
			count++;
		} else if (object && (random_below(&random, 2) || step > 40000)) {
			assert_int_equal(object->data_blocks, n);
			table_remove(&table, &key);
			has[n] = false;
			count--;
		}
		assert_int_equal(table.object_count, count);
		if (step % 1000)
			continue;
		struct object *at = table_next(&table, NULL);
		for (uint32_t i = 0; i < KEYS; i++) {
			if (!has[i])
				continue;
			assert_non_null(at);
			assert_int_equal(at->layer * 64 + at->index, i);
			struct object_key after = object_key_of(at);
			at = table_next(&table, &after);
		}
		assert_null(at);
	}
	table_done(&table);
}

static void test_chunk_is_saved_once_and_before_it_changes(void **state)
{
	struct table_saver saver = {.save = on_save};
	struct table table;

	table_init(&table, &saver, 1);
	for (uint32_t i = 0; i < 10; i++)
		(void)table_insert(&table, &(struct object_key){1, i}, NULL);
	saves = 0;
	saver.sequence++;
	(void)table_insert(&table, &(struct object_key){1, 20}, NULL);
	table_remove(&table, &(struct object_key){1, 3});
	assert_int_equal(saves, 1);
	saver.sequence++;
	table_remove(&table, &(struct object_key){1, 4});
	assert_int_equal(saves, 2);
	table_done(&table);
}

/* ---- the record of a PG ---- */

static int add_request(struct pg_record *record, uint64_t n, uint32_t object, uint64_t lowest)
{
	const struct store_request request = {9, n, {1, n}, {7, object}};

	return record_add_request(record, &request, lowest, 0);
}

static void test_requests_are_kept_above_the_lowest_only(void **state)
{
	struct pg_record record = {.tail = NULL};
	struct version v;

	/* Out of order, as the pieces of requests arrive. */
	for (uint64_t n = 100; n > 0; n--)
		assert_int_equal(add_request(&record, n, 0, 0), 0);
	for (uint64_t n = 1; n <= 100; n++) {
		assert_int_equal(record_find_request(&record, 9, n, &v), 1);
		assert_int_equal(v.n, n);
	}
	assert_int_equal(add_request(&record, 101, 0, 50), 0);
	assert_int_equal(record_find_request(&record, 9, 49, &v), 0);
	assert_int_equal(record_find_request(&record, 9, 50, &v), 1);
	assert_int_equal(record_requests(&record, NULL, 0), 52);
	assert_false(record_may_use(&record, 9, 49, 0));
	assert_true(record_may_use(&record, 9, 50 + STORE_SESSION_WINDOW - 1, 0));
	assert_false(record_may_use(&record, 9, 50 + STORE_SESSION_WINDOW, 0));
	record_end_session(&record, 9);
	assert_int_equal(record_requests(&record, NULL, 0), 0);
	record_done(&record);
}

/* What is remembered of an object behind a version gives way to a set; nothing else does. */
static void test_requests_of_one_object_are_replaced(void **state)
{
	const struct object_key key = {7, 1};
	const struct store_request set[] = {{9, 5, {1, 5}, {7, 1}}, {10, 5000, {1, 30}, {7, 1}}};
	struct pg_record record = {.tail = NULL};
	struct store_request out[4];
	struct version v;

	for (uint64_t n = 1; n <= 20; n++)
		assert_int_equal(add_request(&record, n, n % 2, 0), 0);
	assert_int_equal(record_object_requests(&record, &key, (struct version){1, 16}, out, 4), 2);
	assert_int_equal(out[0].number, 17);
	assert_int_equal(out[1].key.index, 1);
	assert_int_equal(record_set_object(&record, &key, (struct version){1, 2}, set, 2, 0, 0), 0);
	assert_int_equal(record_requests(&record, NULL, 0), 13);
	assert_int_equal(record_find_request(&record, 9, 1, &v), 1); /* at or below the version */
	assert_int_equal(record_find_request(&record, 9, 3, &v), 0);
	assert_int_equal(record_find_request(&record, 9, 5, &v), 1);
	assert_int_equal(record_find_request(&record, 9, 19, &v), 0);
	assert_int_equal(record_find_request(&record, 9, 20, &v), 1);
	assert_int_equal(record_find_request(&record, 10, 5000, &v), 1);
	/* The first version of a request stays: an entry that comes again changes nothing. */
	assert_int_equal(
		record_add_request(&record, &(struct store_request){9, 20, {3, 1}, key}, 0, 0), 0);
	assert_int_equal(record_find_request(&record, 9, 20, &v), 1);
	assert_int_equal(v.reign, 1);
	record_done(&record);
}

static uint32_t count_covered(const struct pg_record *record, uint64_t number, uint64_t applied)
{
	const struct session_record *s = &record->sessions[0];
	uint32_t count = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		const struct request_slot *slot = &s->slots[s->head + i];
		count += slot->number == number && record_covers(slot, applied);
	}
	return count;
}

/* A checkpoint has what its log has: what a change takes away as long as it does not cover that one. */
static void test_requests_taken_away_stay_for_checkpoints_of_before(void **state)
{
	const struct object_key key = {7, 1};
	const struct store_request first = {9, 5, {1, 5}, {7, 1}}, again = {9, 5, {2, 8}, {7, 1}};
	struct pg_record record = {.tail = NULL};
	struct version v;

	assert_int_equal(record_add_request(&record, &first, 0, 10), 0);
	assert_int_equal(record_set_object(&record, &key, (struct version){1, 0}, NULL, 0, 11, 9),
			 0);
	assert_int_equal(record_find_request(&record, 9, 5, &v), 0);
	assert_int_equal(record_requests(&record, NULL, 0), 0);
	assert_int_equal(record_add_request(&record, &again, 0, 12), 0);
	assert_int_equal(record_find_request(&record, 9, 5, &v), 1);
	assert_int_equal(v.reign, 2);
	assert_int_equal(record_requests(&record, NULL, 0), 1);
	for (uint64_t applied = 9; applied <= 12; applied++)
		assert_int_equal(count_covered(&record, 5, applied),
				 applied == 10 || applied == 12);
	/* It goes for good when the next one is taken away. */
	assert_int_equal(record_set_object(&record, &key, (struct version){2, 8}, NULL, 0, 13, 12),
			 0);
	assert_int_equal(record.sessions[0].count, 1);
	assert_int_equal(record_set_requests(&record, &first, 1, 14, 13), 0);
	assert_int_equal(count_covered(&record, 5, 13), 1);
	assert_int_equal(count_covered(&record, 5, 14), 1);
	assert_int_equal(record_find_request(&record, 9, 5, &v), 1);
	assert_int_equal(v.n, 5);
	record_done(&record);
}

static void test_tail_begins_behind_the_commit_point(void **state)
{
	struct pg_record record = {.tail = NULL};
	struct store_tail_entry out[4];

	for (uint64_t n = 1; n <= 1000; n++) {
		struct store_tail_entry e = {.version = {n > 500 ? 2 : 1, n}};
		assert_int_equal(record_add_tail(&record, &e, n), 0);
		if (n % 3 == 0)
			assert_true(record_set_commit(&record, e.version));
	}
	assert_int_equal(record_tail(&record, out, 4), 1);
	assert_int_equal(out[0].version.n, 1000);
	/* A commit point never goes back. */
	assert_false(record_set_commit(&record, (struct version){2, 600}));
	record_done(&record);
}

static void test_many_runs_of_a_tail_entry_are_merged_to_cover_all(void **state)
{
	struct store_tail_entry tail = {.run_count = 0};

	for (uint32_t i = 0; i < 9; i++)
		record_tail_add_run(&tail, i * 10, 3);
	assert_true(tail.run_count <= ARRAY_COUNT(tail.runs));
	for (uint32_t i = 0; i < 9; i++) {
		bool is_covered = false;
		for (uint32_t j = 0; j < tail.run_count; j++)
			is_covered |= tail.runs[j].block <= i * 10 &&
				      tail.runs[j].block + tail.runs[j].count >= i * 10 + 3;
		assert_true(is_covered);
	}
}

static void test_checksum_seeds_are_part_of_the_format(void **state)
{
	assert_int_equal(block_seed(0, 0, 0), 0x740681d9u);
	assert_int_equal(block_seed(1, 2, 3), 0x70cc2d78u);
	assert_true(block_seed(1, 2, 3) != block_seed(1, 3, 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind_of_entry_is_read_back),
		cmocka_unit_test(test_batch_in_another_place_or_store_is_none),
		cmocka_unit_test(test_no_flipped_bit_of_a_descriptor_passes),
		cmocka_unit_test(test_nonsense_in_entries_is_found_and_never_followed),
		cmocka_unit_test(test_largest_entry_fits_a_descriptor),
		cmocka_unit_test(test_pages_are_read_back_and_damage_is_found),
		cmocka_unit_test(test_page_record_sizes_are_what_the_layout_counts_on),
		cmocka_unit_test(test_table_is_an_ordered_map_at_any_order_of_changes),
		cmocka_unit_test(test_chunk_is_saved_once_and_before_it_changes),
		cmocka_unit_test(test_requests_are_kept_above_the_lowest_only),
		cmocka_unit_test(test_requests_of_one_object_are_replaced),
		cmocka_unit_test(test_requests_taken_away_stay_for_checkpoints_of_before),
		cmocka_unit_test(test_tail_begins_behind_the_commit_point),
		cmocka_unit_test(test_many_runs_of_a_tail_entry_are_merged_to_cover_all),
		cmocka_unit_test(test_checksum_seeds_are_part_of_the_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
