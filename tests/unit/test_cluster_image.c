/* The image and the commands as bytes: round trips, garbage, and how long 10,000 volumes take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/unit/cluster_script.h"

#define OK PROTO_STATUS_OK

/* A map with something of everything in it. */
static void build(struct script *script)
{
	struct cluster_property properties[] = {{"access", "shared"}, {"iops", "500"}};
	uint32_t store;

	script_start(script);
	script_format(script, 4, 3, 16);
	for (unsigned i = 0; i < 10; i++) {
		char name[16];
		struct text text = text_of(name, sizeof(name));

		text_append(&text, "vol-%u", i);
		assert_int_equal(script_run(script, 1,
					    cluster_command_volume_create(name, MIB * (i + 1), 0,
									  properties, i % 3)),
				 OK);
		assert_int_equal(
			script_run(script, 2,
				   cluster_command_volume_open(
					   script->result.id,
					   cluster_node(script->map, 1 + i % 4)->session, i % 2)),
			OK);
	}
	store = script_pg(script, 0)->target[1];
	assert_int_equal(script_restart(script, 2, LOG_STORE_UNCLEAN), OK);
	assert_int_equal(script_run(script, 1, cluster_command_shutdown()), OK);
	assert_int_equal(script_dead(script, 1, 3), OK);
	assert_int_equal(script_restart(script, 3, 0), OK);
	store = 0;
	for (uint32_t i = 0; i < 16; i++) {
		const struct cluster_pg *pg = script_pg(script, i);

		if (pg->primary && cluster_pg_wants_join(script->map, pg, 3)) {
			store++;
			assert_int_equal(script_run(script, 3, cluster_command_pg_join(i, 3, 2)),
					 OK);
		}
	}
	assert_true(store > 0);
	assert_int_equal(script_run(script, 1, cluster_command_setting("grace", 2345)), OK);
}

static void seal(uint8_t *data, size_t size)
{
	struct log_image *image = (void *)data;

	if (size < sizeof(*image))
		return;
	image->size = to_le64(size);
	image->crc = to_le32(0);
	image->crc = to_le32(crc32c(data, size));
}

static void test_image_round_trip_is_exact(void **state)
{
	struct script script;
	struct cluster_map *copy = NULL;
	struct error err = {0};
	void *data, *again;
	size_t size, size_again;

	(void)state;
	build(&script);
	assert_int_equal(cluster_encode(script.map, &data, &size), 0);
	assert_int_equal(cluster_decode(data, size, &copy, &err), 0);
	assert_int_equal(cluster_encode(copy, &again, &size_again), 0);
	assert_int_equal(size, size_again);
	assert_memory_equal(data, again, size);
	assert_int_equal(cluster_setting(copy, CLUSTER_SETTING_GRACE), 2345);
	assert_true(cluster_index(copy) == cluster_index(script.map));
	assert_non_null(cluster_volume_by_name(copy, "vol-7"));
	/* A sheep that sleeps through it sees it in the image. */
	assert_true(cluster_shutdown_index(copy) > cluster_node(copy, 1)->session);
	assert_true(cluster_shutdown_index(copy) < cluster_node(copy, 3)->session);
	print_message("%zu bytes: 4 nodes, 16 PGs, 10 volumes\n", size);
	cluster_map_put(copy);
	free(data);
	free(again);
	script_stop(&script);
}

static void test_empty_map_has_an_image(void **state)
{
	struct cluster_map *map = cluster_map_new(), *copy = NULL;
	void *data;
	size_t size;

	(void)state;
	assert_int_equal(cluster_check(map, NULL), 0);
	assert_int_equal(cluster_encode(map, &data, &size), 0);
	assert_int_equal(cluster_decode(data, size, &copy, NULL), 0);
	assert_false(cluster_is_formatted(copy));
	free(data);
	cluster_map_put(map);
	cluster_map_put(copy);
}

/* Cut anywhere: refused, whether or not the CRC was made to fit. */
static void test_cut_image_is_refused(void **state)
{
	struct script script;
	struct error err;
	uint8_t *copy;
	void *data;
	size_t size;

	(void)state;
	build(&script);
	assert_int_equal(cluster_encode(script.map, &data, &size), 0);
	copy = malloc(size + 8);
	for (size_t cut = 0; cut < size; cut += cut < 200 ? 1 : 13) {
		struct cluster_map *map = NULL;

		memcpy(copy, data, size);
		assert_int_equal(cluster_decode(copy, cut, &map, &err), -E_CORRUPT);
		seal(copy, cut);
		assert_true(cluster_decode(copy, cut, &map, &err) < 0);
		assert_true(err.text[0]);
		assert_null(map);
	}
	memcpy(copy, data, size);
	memset(copy + size, 0, 8);
	seal(copy, size + 8);
	assert_int_equal(cluster_decode(copy, size + 8, &(struct cluster_map *){NULL}, &err),
			 -E_CORRUPT);
	free(copy);
	free(data);
	script_stop(&script);
}

/*
 * Bytes changed at random with a good CRC: refused, or a map that keeps every invariant
 * and has that image. The trap: changes that no field sees would prove nothing.
 */
static void test_hostile_images_never_make_a_bad_map(void **state)
{
	struct script script;
	struct random random;
	uint8_t *copy;
	void *data;
	size_t size;
	unsigned refused = 0, accepted = 0;

	(void)state;
	build(&script);
	assert_int_equal(cluster_encode(script.map, &data, &size), 0);
	copy = malloc(size);
	random_init(&random, 4711);
	for (unsigned i = 0; i < 30000; i++) {
		struct cluster_map *map = NULL;
		unsigned changes = 1 + (unsigned)random_below(&random, 3);

		memcpy(copy, data, size);
		while (changes--) {
			size_t at = (size_t)random_below(&random, size);

			copy[at] = random_below(&random, 2)
					   ? (uint8_t)random_u64(&random)
					   : (uint8_t)(copy[at] ^ (1u << random_below(&random, 8)));
		}
		seal(copy, size);
		if (cluster_decode(copy, size, &map, NULL) < 0) {
			refused++;
			continue;
		}
		accepted++;
		assert_int_equal(cluster_check(map, NULL), 0);
		cluster_map_put(map);
	}
	print_message("%u refused, %u accepted\n", refused, accepted);
	assert_true(refused > 5000 && accepted > 500);
	free(copy);
	free(data);
	script_stop(&script);
}

static void test_image_of_another_version_says_so(void **state)
{
	struct cluster_map *map = cluster_map_new(), *copy = NULL;
	struct error err = {0};
	void *data;
	size_t size;

	(void)state;
	assert_int_equal(cluster_encode(map, &data, &size), 0);
	((struct log_image *)data)->version = to_le32(LOG_IMAGE_VERSION + 1);
	seal(data, size);
	assert_int_equal(cluster_decode(data, size, &copy, &err), -E_WRONG_VERSION);
	assert_non_null(strstr(err.text, "version 2"));
	free(data);
	cluster_map_put(map);
}

/* ---- commands ---- */

static void test_broken_commands_change_nothing_but_the_index(void **state)
{
	struct script script;
	struct cluster_command *command;
	struct random random;
	uint8_t *copy;
	unsigned parsed = 0;

	(void)state;
	build(&script);
	command = cluster_command_volume_create("x", 512, 0, NULL, 0);
	cluster_command_sign(command, &script.nodes[1].proposer);
	copy = malloc(command->size);
	for (uint32_t cut = 0; cut < command->size; cut++) {
		assert_int_equal(script_apply(&script, command->data, cut), PROTO_STATUS_PROTOCOL);
		assert_int_equal(script.result.type, 0);
	}
	random_init(&random, 9);
	for (unsigned i = 0; i < 2000; i++) {
		struct log_command *header = (void *)copy;

		memcpy(copy, command->data, command->size);
		copy[random_below(&random, command->size)] ^=
			(uint8_t)(1u << random_below(&random, 8));
		assert_int_equal(script_apply(&script, copy, command->size), PROTO_STATUS_PROTOCOL);
		/* With a CRC that fits it is judged by what it says. */
		header->crc = to_le32(0);
		header->crc = to_le32(crc32c(copy, command->size));
		parsed += cluster_command_check(copy, command->size, NULL) == OK;
		(void)script_apply(&script, copy, command->size);
	}
	assert_true(parsed > 1000);
	free(copy);
	cluster_command_free(command);
	script_stop(&script);
}

/* docs/protocol/cluster-log.md shows these bytes. */
static void test_bytes_of_a_command_are_as_documented(void **state)
{
	static const uint8_t expected[] = {
		0x53, 0x50, 0x4c, 0x43, 0x01, 0x00, 0x03, 0x00, 0x38, 0x00, 0x00, 0x00, 0xb7, 0x5f,
		0xaa, 0x2c, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x88, 0x77, 0x66, 0x55,
		0x44, 0x33, 0x22, 0x11, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00,
		0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
	};
	struct cluster_proposer proposer = {
		.node = 1, .start = 0x1122334455667788ull, .sequence = 6};
	struct cluster_command *command = cluster_command_dead(2, 3);

	(void)state;
	cluster_command_sign(command, &proposer);
	assert_int_equal(command->size, sizeof(expected));
	assert_memory_equal(command->data, expected, sizeof(expected));
	assert_int_equal(cluster_command_check(expected, sizeof(expected), NULL), OK);
	cluster_command_free(command);
}

static enum proto_status check_with(const struct cluster_command *command, size_t at, uint8_t value)
{
	uint8_t copy[2048];
	struct log_command *header = (void *)copy;

	assert_true(command->size <= sizeof(copy));
	memcpy(copy, command->data, command->size);
	copy[sizeof(*header) + at] = value;
	header->crc = to_le32(0);
	header->crc = to_le32(crc32c(copy, command->size));
	return cluster_command_check(copy, command->size, NULL);
}

static void test_reserved_fields_and_unknown_flags_are_refused(void **state)
{
	struct cluster_command *command = cluster_command_dead(2, 3);

	(void)state;
	assert_int_equal(check_with(command, 8, 9), OK);
	assert_int_equal(check_with(command, offsetof(struct log_node_incarnation, reserved), 1),
			 PROTO_STATUS_UNSUPPORTED);
	cluster_command_free(command);
	command = cluster_command_volume_open(1, 2, LOG_OPEN_READ_ONLY);
	assert_int_equal(check_with(command, offsetof(struct log_volume_open, flags), 1), OK);
	assert_int_equal(check_with(command, offsetof(struct log_volume_open, flags), 2),
			 PROTO_STATUS_UNSUPPORTED);
	assert_int_equal(check_with(command, offsetof(struct log_volume_open, reserved) + 3, 1),
			 PROTO_STATUS_UNSUPPORTED);
	cluster_command_free(command);
}

static void test_a_proposer_knows_its_own_commands(void **state)
{
	struct cluster_proposer proposer = {.node = 1, .start = 77};
	struct cluster_command *command = cluster_command_dead(2, 3);

	(void)state;
	cluster_command_sign(command, &proposer);
	assert_int_equal(proposer.sequence, 1);
	assert_int_equal(cluster_command_sequence(command->data, command->size, 77), 1);
	assert_int_equal(cluster_command_sequence(command->data, command->size, 78), 0);
	assert_int_equal(cluster_command_sequence(command->data, 10, 77), 0);
	assert_string_equal(cluster_command_name(LOG_DEAD), "DEAD");
	assert_string_equal(cluster_command_name((enum log_type)14), "unknown");
	cluster_command_free(command);
}

static void test_texts_that_do_not_fit_make_no_command(void **state)
{
	char longest[LOG_VALUE_SIZE + 1];

	(void)state;
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_null(cluster_command_volume_create(longest, 512, 0, NULL, 0));
	assert_null(cluster_command_volume_set(1, "x", longest));
	assert_null(cluster_command_volume_set(1, longest, "x"));
	assert_null(cluster_command_setting(longest, 1));
	assert_null(cluster_command_volume_rename(1, "a", longest));
}

/* ---- size and time ---- */

static double seconds(void)
{
	struct timespec now;

	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void test_ten_thousand_volumes(void **state)
{
	struct script script;
	struct cluster_map *copy;
	double begin, create, end;
	void *data;
	size_t size;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 256);
	script.is_quick = true;
	script.image_every = 0;
	begin = seconds();
	for (unsigned i = 0; i < 10000; i++) {
		char name[16];
		struct text text = text_of(name, sizeof(name));

		text_append(&text, "vol-%u", i);
		assert_int_equal(script_run(&script, 1,
					    cluster_command_volume_create(name, GIB, 0, NULL, 0)),
				 OK);
	}
	create = seconds();
	assert_int_equal(cluster_encode(script.map, &data, &size), 0);
	assert_int_equal(cluster_decode(data, size, &copy, NULL), 0);
	end = seconds();
	/* Each command is applied to two maps. */
	print_message("10,000 volumes: %.2f us a create, image of %zu KiB there and back %.0f ms\n",
		      (create - begin) / 20000 * 1e6, size / 1024, (end - create) * 1e3);
	assert_true(create - begin < 10);
	assert_int_equal(cluster_volume_count(copy), 10000);
	begin = seconds();
	assert_int_equal(script_dead(&script, 1, 2), OK);
	print_message("death of a node with 256 PGs and 10,000 volumes: %.2f ms\n",
		      (seconds() - begin) / 2 * 1e3);
	free(data);
	cluster_map_put(copy);
	script_stop(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_image_round_trip_is_exact),
		cmocka_unit_test(test_empty_map_has_an_image),
		cmocka_unit_test(test_cut_image_is_refused),
		cmocka_unit_test(test_hostile_images_never_make_a_bad_map),
		cmocka_unit_test(test_image_of_another_version_says_so),
		cmocka_unit_test(test_broken_commands_change_nothing_but_the_index),
		cmocka_unit_test(test_bytes_of_a_command_are_as_documented),
		cmocka_unit_test(test_reserved_fields_and_unknown_flags_are_refused),
		cmocka_unit_test(test_a_proposer_knows_its_own_commands),
		cmocka_unit_test(test_texts_that_do_not_fit_make_no_command),
		cmocka_unit_test(test_ten_thousand_volumes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
