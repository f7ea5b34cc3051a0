/* What the connector says byte by byte, and what it makes of servers that follow the protocol and of others. */
#include "tests/unit/nbd_us.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_connector_says_what_the_specification_wants(void **state)
{
	static const struct {
		enum nbd_goal goal;
		uint32_t option;
	} rows[] = {{NBD_GOAL_GO, 7}, {NBD_GOAL_INFO, 6}, {NBD_GOAL_LIST, 3}};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct blob server = {0}, client = {0};
		struct us us;
		us_init(&us, rows[i].goal, "disk");
		server_greeting(&server);
		for (size_t n = 0; n < server.size; n++) {
			us_send(&us, 1);
			assert_int_equal(us.out.size, 0); /* not before the greeting is whole */
			us_feed(&us, server.data + n, 1);
		}
		us_send(&us, SIZE_MAX);
		client_hello(&client, 3);
		if (rows[i].option == 3)
			client_option(&client, 3, NULL, 0);
		else
			client_go(&client, rows[i].option, "disk", 3, 1, 2, 3);
		assert_int_equal(us.out.size, client.size);
		assert_memory_equal(us.out.data, client.data, client.size);
		us_done(&us);
		blob_free(&server);
		blob_free(&client);
	}
}

/* Play @server against a new connector, whole and in single bytes; then @check. */
static void play(enum nbd_goal goal, const struct blob *server, void (*check)(struct us *us))
{
	for (size_t step = 1; step <= server->size; step += step == 1 ? server->size : 7) {
		struct us us;
		us_init(&us, goal, "disk");
		for (size_t at = 0; at < server->size; at += step) {
			us_feed(&us, server->data + at, min_of(step, server->size - at));
			us_send(&us, 3);
		}
		check(&us);
		us_done(&us);
	}
}

static void told_all(struct us *us)
{
	const struct nbd_remote *remote = nbd_connector_remote(us->connector);

	assert_int_equal(us_state(us), NBD_CONNECTOR_DONE);
	assert_int_equal(nbd_connector_result(us->connector, NULL), 0);
	assert_int_equal(remote->size, 12345);
	assert_int_equal(remote->flags, 5);
	assert_true(remote->has_block_sizes);
	assert_int_equal(remote->block_minimum, 512);
	assert_int_equal(remote->block_maximum, 65536);
	assert_string_equal(remote->name, "canon");
}

static void test_connector_understands_all_information(void **state)
{
	struct blob server = {0};

	server_greeting(&server);
	server_option(&server, 7, 3, "\x12\x34what is this", 14); /* unknown: ignored */
	server_info_export(&server, 7, 12345, 5);
	server_info_block_size(&server, 7, 512, 4096, 65536);
	server_option(&server, 7, 3, "\0\1canon", 7);
	server_option(&server, 7, 1, NULL, 0);
	play(NBD_GOAL_GO, &server, told_all);
	blob_free(&server);
}

static void fell_back(struct us *us)
{
	const char tail[] = "IHAVEOPT\0\0\0\1\0\0\0\4disk";

	assert_int_equal(us_state(us), NBD_CONNECTOR_DONE);
	assert_int_equal(nbd_connector_remote(us->connector)->size, 777);
	assert_int_equal(nbd_connector_remote(us->connector)->flags, 1);
	assert_memory_equal(us->out.data + us->out.size - 20, tail, 20);
}

static void test_connector_falls_back_to_export_name(void **state)
{
	struct blob server = {0};

	server_greeting(&server);
	server_text(&server, 7, 0x80000001, "never heard of it");
	blob_add(&server, "8 2", 777ull, 1ull);
	play(NBD_GOAL_GO, &server, fell_back);

	/* A server that is not fixed newstyle, and sends zeroes. */
	server.size = 0;
	blob_add(&server, "s s 2 8 2 z", "NBDMAGIC", "IHAVEOPT", 0ull, 777ull, 1ull, (size_t)124);
	play(NBD_GOAL_GO, &server, fell_back);
	blob_free(&server);
}

static int wanted_rc;
static const char *wanted_text;

static void failed(struct us *us)
{
	struct error err = {0};

	assert_int_equal(us_state(us), NBD_CONNECTOR_FAILED);
	assert_int_equal(nbd_connector_result(us->connector, &err), wanted_rc);
	if (wanted_text)
		assert_non_null(strstr(err.text, wanted_text));
}

static void test_connector_reports_refusals_with_the_servers_text(void **state)
{
	static const struct {
		uint32_t type;
		int rc;
	} rows[] = {
		{2, -EPERM},  {3, -EINVAL},	 {4, -EOPNOTSUPP},
		{5, -EPERM},  {6, -E_NOT_FOUND}, {7, -E_SHUTDOWN},
		{8, -EINVAL}, {9, -E2BIG},	 {77, -E_PROTOCOL},
	};
	struct blob server = {0};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		server.size = 0;
		server_greeting(&server);
		server_text(&server, 7, 0x80000000u + rows[i].type, "because of the weather");
		wanted_rc = rows[i].rc;
		wanted_text = ": because of the weather";
		play(NBD_GOAL_GO, &server, failed);
	}
	blob_free(&server);
}

static void test_connector_fails_on_servers_that_break_the_protocol(void **state)
{
	static const char *const formats[] = {
		"HTTP/1.0 400 Bad Request",				    /* not NBD */
		"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\0\0\0\0\0\0\0", /* oldstyle */
		"NBDMAGICwhatever..",
	};
	struct blob server = {0};

	wanted_rc = -E_PROTOCOL;
	wanted_text = NULL;
	for (size_t i = 0; i < ARRAY_COUNT(formats); i++) {
		server.size = 0;
		blob_append(&server, formats[i], 18);
		blob_add(&server, "z", (size_t)200);
		play(NBD_GOAL_GO, &server, failed);
	}
	for (int i = 0; i < 9; i++) {
		server.size = 0;
		server_greeting(&server);
		if (i == 0)
			server_option(&server, 6, 1, NULL, 0); /* of another option */
		else if (i == 1)
			server_option(&server, 7, 1, NULL, 0); /* no size was told */
		else if (i == 2)
			server_option(&server, 7, 1, "x", 1);
		else if (i == 3)
			server_option(&server, 7, 3, "\0\0short", 7);
		else if (i == 4)
			server_option(&server, 7, 3, "x", 1);
		else if (i == 5)
			server_option(&server, 7, 2, "\0\0\0\0", 4); /* a listing */
		else if (i == 6)
			server_info_export(&server, 7, UINT64_MAX, 1);
		else if (i == 7)
			server_info_block_size(&server, 7, 3, 4096, 4096);
		else
			blob_add(&server, "8 4 4 4", 0x3e889045565a9ull, 7ull, 3ull, 0xffffffffull);
		play(NBD_GOAL_GO, &server, failed);
	}
	blob_free(&server);
}

static void test_connector_tells_where_the_server_left(void **state)
{
	struct us us;

	us_init(&us, NBD_GOAL_GO, "disk");
	nbd_connector_eof(us.connector);
	wanted_rc = -E_CLOSED;
	wanted_text = NULL;
	failed(&us);
	us_done(&us);
	us_init(&us, NBD_GOAL_GO, "not\ntext");
	wanted_rc = -EINVAL;
	failed(&us);
	us_done(&us);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connector_says_what_the_specification_wants),
		cmocka_unit_test(test_connector_understands_all_information),
		cmocka_unit_test(test_connector_falls_back_to_export_name),
		cmocka_unit_test(test_connector_reports_refusals_with_the_servers_text),
		cmocka_unit_test(test_connector_fails_on_servers_that_break_the_protocol),
		cmocka_unit_test(test_connector_tells_where_the_server_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
