/* Negotiation as it should not be: what is refused, and how, and what is bounded (see test_nbd_listener.c). */
#include "tests/unit/nbd_dialog.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

/* ---- refusals ---- */

static void test_unknown_options_are_refused_and_skipped(void **state)
{
	static const uint32_t numbers[] = {0, 12, 31, 32, 0x53460001, 0x7654321, 0xffffffff};

	for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
		struct dialog d = dialog_of(FIXED);
		client_option(&d.client, numbers[i], "IHAVEOPT and more", 17);
		server_text(&d.server, numbers[i], UNSUP, TEXT_UNKNOWN);
		client_option(&d.client, numbers[i], NULL, 0);
		server_text(&d.server, numbers[i], UNSUP, TEXT_UNKNOWN);
		dialog_abort(&d);
		dialog_play_listener(&d, NULL, listener_is_closed_by_rule);
	}
}

static void test_options_of_later_issues_are_refused(void **state)
{
	static const struct {
		uint32_t number;
		const char *text;
	} rows[] = {
		{4, "PEEK_EXPORT was withdrawn; use INFO"},
		{5, "this server does not offer TLS"},
		{8, "this server does not send structured replies"},
		{9, "this server has no metadata contexts"},
		{10, "this server has no metadata contexts"},
		{11, "this server does not send extended headers"},
	};
	struct dialog d = dialog_of(FIXED);

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		client_option(&d.client, rows[i].number, "data", i % 2 ? 4 : 0);
		server_text(&d.server, rows[i].number, UNSUP, rows[i].text);
	}
	dialog_abort(&d);
	dialog_play_listener(&d, NULL, listener_is_closed_by_rule);
}

/* Others took the rest of an option for the next one. */
static void test_stray_data_is_refused_and_never_parsed(void **state)
{
	struct dialog d = dialog_of(FIXED);
	struct blob inner = {0};

	client_option(&inner, 2, NULL, 0); /* an ABORT, inside of the data */
	client_option(&d.client, 3, inner.data, inner.size);
	server_text(&d.server, 3, INVALID, TEXT_NO_DATA);
	struct blob go = {0};
	blob_add(&go, "4 s 2 2 1", 4ull, "disk", 1ull, 3ull, 0ull); /* a byte too many */
	client_option(&d.client, 7, go.data, go.size);
	server_text(&d.server, 7, INVALID, TEXT_LENGTHS);
	client_option(&d.client, 6, go.data, go.size - 2); /* one too few */
	server_text(&d.server, 6, INVALID, TEXT_LENGTHS);
	client_option(&d.client, 7, go.data, 5);
	server_text(&d.server, 7, INVALID, TEXT_TOO_SHORT);
	client_option(&d.client, 7, NULL, 0);
	server_text(&d.server, 7, INVALID, TEXT_TOO_SHORT);
	dialog_abort(&d);
	blob_free(&inner);
	blob_free(&go);
	dialog_play_listener(&d, NULL, listener_is_closed_by_rule);
}

static void test_lengths_that_lie_are_refused(void **state)
{
	static const uint64_t sizes[] = {5, 7, 0x7fffffff, 0xfffffffa, 0xffffffff};
	struct dialog d = dialog_of(FIXED);

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		struct blob go = {0};
		blob_add(&go, "4 s 2", sizes[i], "disk", 0ull);
		client_option(&d.client, 7, go.data, go.size);
		server_text(&d.server, 7, INVALID, TEXT_LENGTHS);
		blob_free(&go);
	}
	struct blob go = {0};
	blob_add(&go, "4 s 2 2", 4ull, "disk", 65535ull, 3ull);
	client_option(&d.client, 7, go.data, go.size);
	server_text(&d.server, 7, INVALID, TEXT_LENGTHS);
	blob_free(&go);
	dialog_abort(&d);
	dialog_play_listener(&d, NULL, listener_is_closed_by_rule);
}

/* Others cut names at NUL, or take anything. */
static void test_names_that_are_not_text_are_refused(void **state)
{
	static const char *const names[] = {"4 s 1 s 2", "4 1 s 1 2"};
	struct dialog d = dialog_of(FIXED);
	struct blob go = {0};

	blob_add(&go, names[0], 6ull, "disk", 0ull, "x", 0ull); /* disk\0x */
	client_option(&d.client, 7, go.data, go.size);
	server_text(&d.server, 7, INVALID, TEXT_NAME);
	go.size = 0;
	blob_add(&go, names[1], 6ull, 0xc0ull, "disk", 0x80ull, 0ull); /* not UTF-8 */
	client_option(&d.client, 6, go.data, go.size);
	server_text(&d.server, 6, INVALID, TEXT_NAME);
	dialog_abort(&d);
	blob_free(&go);
	dialog_play_listener(&d, NULL, listener_is_closed_by_rule);

	static const char *const bad[] = {"disk\0x", "disk\xff", "disk\n", "\xed\xa0\x80xx"};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		d = dialog_of(FIXED);
		client_option(&d.client, 1, bad[i], 5);
		dialog_play_listener(&d, NULL, listener_is_dropped);
	}
}

static void go_with_name_of(struct blob *blob, size_t size)
{
	struct blob go = {0};

	blob_add(&go, "4", (uint64_t)size);
	for (size_t i = 0; i < size; i++)
		blob_append(&go, "n", 1);
	blob_add(&go, "2", 0ull);
	client_option(blob, 7, go.data, go.size);
	blob_free(&go);
}

/* Not split everywhere: the transcript is long and its parts are short ones' parts. */
static void test_names_have_4096_bytes_at_most(void **state)
{
	struct peer_options options = {.open_rc = -ENOENT, .open_text = "no such export"};
	struct peer peer;
	struct blob client = {0}, server = {0};

	client_hello(&client, FIXED);
	server_greeting(&server);
	go_with_name_of(&client, 4096);
	server_text(&server, 7, UNKNOWN, "no such export");
	go_with_name_of(&client, 4097);
	server_text(&server, 7, TOO_BIG, "the export's name is too long");
	go_with_name_of(&client, 9000);
	server_text(&server, 7, TOO_BIG, TEXT_TOO_LONG);
	peer_init(&peer, &options);
	peer_send(&peer);
	assert_int_equal(peer_feed(&peer, client.data, client.size), client.size);
	assert_int_equal(peer.out.size, server.size);
	assert_memory_equal(peer.out.data, server.data, server.size);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_OPTION_HEADER);
	peer_done(&peer);

	/* EXPORT_NAME cannot be refused politely: 4096 is opened, 4097 is dropped by its header. */
	for (uint64_t size = 4096; size <= 4097; size++) {
		client.size = 4;
		blob_add(&client, "s 4 4", "IHAVEOPT", 1ull, size);
		options.open_rc = 0;
		peer_init(&peer, &options);
		(void)peer_feed(&peer, client.data, client.size);
		assert_int_equal(nbd_listener_state(peer.listener),
				 size == 4096 ? NBD_LISTENER_OPTION_DATA : NBD_LISTENER_CLOSED);
		peer_done(&peer);
	}
	blob_free(&client);
	blob_free(&server);
}

static void test_unknown_client_flags_are_dropped(void **state)
{
	static const uint32_t flags[] = {4, 8, 0x80000000, 0xffffffff, 7};

	for (size_t i = 0; i < ARRAY_COUNT(flags); i++) {
		struct dialog d = dialog_of(flags[i]);
		client_option(&d.client, 3, NULL, 0);
		dialog_play_listener(&d, NULL, listener_is_dropped);
	}
}

static void test_option_without_magic_is_dropped(void **state)
{
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 3, NULL, 0);
	d.client.data[4] ^= 0x20;
	client_option(&d.client, 3, NULL, 0);
	dialog_play_listener(&d, NULL, listener_is_dropped);
}

/* An oldstyle server's client sends a request at once. */
static void test_oldstyle_client_is_dropped(void **state)
{
	struct dialog d = {0};

	server_greeting(&d.server);
	client_request(&d.client, 0, 0, 1, 0, 4096);
	dialog_play_listener(&d, NULL, listener_is_dropped);
}

static void test_client_without_fixed_newstyle_gets_no_replies(void **state)
{
	static const uint32_t options[] = {2, 3, 5, 6, 7, 8, 99};

	for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
		struct dialog d = dialog_of(0);
		client_option(&d.client, options[i], NULL, 0);
		client_option(&d.client, 1, "disk", 4);
		dialog_play_listener(&d, NULL, listener_is_dropped);
	}
}

static void test_refused_export_name_is_dropped(void **state)
{
	struct peer_options options = {.open_rc = -ENOENT};
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 1, "other", 5);
	client_option(&d.client, 1, "disk", 4);
	dialog_play_listener(&d, &options, listener_is_dropped);
}

static void test_errors_of_the_backend_have_their_replies(void **state)
{
	static const struct {
		int rc;
		uint32_t type;
		const char *text, *sent;
	} rows[] = {
		{-ENOENT, UNKNOWN, NULL, "No such file or directory"},
		{-E_NOT_FOUND, UNKNOWN, "volume 'x' does not exist", "volume 'x' does not exist"},
		{-EACCES, POLICY, NULL, "Permission denied"},
		{-EBUSY, POLICY, NULL, "Device or resource busy"},
		{-EINVAL, INVALID, "bad name", "bad name"},
		{-E_SHUTDOWN, SHUTDOWN, NULL, "shutting down"},
		{-E2BIG, TOO_BIG, NULL, "Argument list too long"},
		{-EOPNOTSUPP, PLATFORM, NULL, "Operation not supported"},
		{-EIO, UNKNOWN, NULL, "Input/output error"},
		/* Others send raw bytes: what is not text is cut off. */
		{-ENOENT, UNKNOWN, "caf\xc3\xa9 \xff raw", "caf\xc3\xa9 "},
	};
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct peer_options options = {.open_rc = rows[i].rc, .open_text = rows[i].text};
		struct dialog d = dialog_of(FIXED);
		client_go(&d.client, 6, "x", 0);
		client_go(&d.client, 7, "x", 1, 3);
		server_text(&d.server, 6, rows[i].type, rows[i].sent);
		server_text(&d.server, 7, rows[i].type, rows[i].sent);
		dialog_abort(&d);
		dialog_play_listener(&d, &options, listener_is_closed_by_rule);
	}
}

static void test_backend_with_impossible_sizes_is_refused_and_closed(void **state)
{
	static const struct nbd_export exports[] = {
		{.size = 1ull << 63},
		{.block_minimum = 3},
		{.block_minimum = 131072, .block_preferred = 131072},
		{.block_preferred = 256},
		{.block_minimum = 8192, .block_preferred = 4096},
		{.block_maximum = 1024},
	};
	for (size_t i = 0; i < ARRAY_COUNT(exports); i++) {
		struct peer_options options = {.export = exports[i]};
		struct dialog d = dialog_of(FIXED);
		client_go(&d.client, 7, "x", 0);
		server_text(&d.server, 7, UNKNOWN,
			    "the export has a size or block sizes that NBD cannot express");
		dialog_abort(&d);
		dialog_play_listener(&d, &options, listener_is_closed_by_rule);
	}
}

/* ---- bounds ---- */

/* Others wait for 4 GiB. */
static void test_endless_option_is_refused_at_once(void **state)
{
	struct dialog d = dialog_of(FIXED);

	blob_add(&d.client, "s 4 4", "IHAVEOPT", 3ull, 0xffffffffull);
	server_text(&d.server, 3, TOO_BIG, TEXT_TOO_MUCH);
	dialog_play_listener(&d, NULL, listener_is_dropped);
}

static void test_sum_of_option_data_is_bounded(void **state)
{
	struct peer_options options = {.limits = {.option_bytes_max = 100}};
	struct dialog d = dialog_of(FIXED);
	char data[50] = {0};

	for (int i = 0; i < 3; i++)
		client_option(&d.client, 99, data, sizeof(data));
	server_text(&d.server, 99, UNSUP, TEXT_UNKNOWN);
	server_text(&d.server, 99, UNSUP, TEXT_UNKNOWN);
	server_text(&d.server, 99, TOO_BIG, TEXT_TOO_MUCH);
	dialog_play_listener(&d, &options, listener_is_dropped);
}

static void test_number_of_options_is_bounded(void **state)
{
	struct peer_options options = {.limits = {.options_max = 2}};
	struct dialog d = dialog_of(FIXED);

	for (int i = 0; i < 3; i++)
		client_option(&d.client, 99, NULL, 0);
	server_text(&d.server, 99, UNSUP, TEXT_UNKNOWN);
	server_text(&d.server, 99, UNSUP, TEXT_UNKNOWN);
	dialog_play_listener(&d, &options, listener_is_dropped);
}

static void test_listing_is_bounded_and_says_so(void **state)
{
	static const char *const names[] = {"a", "b", "c", NULL};
	struct peer_options options = {.names = names, .limits = {.list_max = 2}};
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 3, NULL, 0);
	server_option(&d.server, 3, 2, "\0\0\0\1a", 5);
	server_option(&d.server, 3, 2, "\0\0\0\1b", 5);
	server_text(&d.server, 3, TOO_BIG, "only the first 2 exports are listed");
	dialog_abort(&d);
	dialog_play_listener(&d, &options, listener_is_closed_by_rule);
}

/* Ten thousand exports pass through the same 20 KiB, and come out whole and in order. */
static void test_long_listing_is_paged(void **state)
{
	enum { COUNT = 10000 };
	static char texts[COUNT][16];
	static const char *names[COUNT + 1];
	struct blob client = {0}, server = {0};
	struct peer peer;

	server_greeting(&server);
	for (int i = 0; i < COUNT; i++) {
		(void)snprintf(texts[i], sizeof(texts[i]), "volume-%d", i);
		names[i] = texts[i];
		server_option(&server, 3, 2, NULL, 0);
		server.size -= 4;
		blob_add(&server, "4 4 s", (uint64_t)strlen(texts[i]) + 4,
			 (uint64_t)strlen(texts[i]), texts[i]);
	}
	server_option(&server, 3, 1, NULL, 0);
	client_hello(&client, FIXED);
	client_option(&client, 3, NULL, 0);
	for (int later = 0; later < 2; later++) {
		struct peer_options options = {.names = names, .lists_later = later};
		peer_init(&peer, &options);
		peer_send(&peer);
		assert_int_equal(peer_feed(&peer, client.data, client.size), client.size);
		while (nbd_listener_state(peer.listener) == NBD_LISTENER_LISTING) {
			assert_true(later);
			peer_list_now(&peer);
			peer_send(&peer);
		}
		assert_int_equal(peer.out.size, server.size);
		assert_memory_equal(peer.out.data, server.data, server.size);
		peer_done(&peer);
	}
	blob_free(&client);
	blob_free(&server);
}

/* A client that sends on without reading is not answered on: the output would have no bound. */
static void test_options_wait_until_earlier_replies_have_gone(void **state)
{
	struct blob client = {0};
	struct peer peer;

	peer_init(&peer, NULL);
	client_hello(&client, FIXED);
	client_option(&client, 99, NULL, 0);
	size_t first = client.size;
	client_go(&client, 7, "disk", 0);
	peer.is_muted = true; /* the greeting has not gone either */
	assert_int_equal(peer_feed(&peer, client.data, client.size), first);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_OPTION_READY);
	peer.is_muted = false;
	peer_send(&peer);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_OPTION_HEADER);
	assert_int_equal(peer_feed(&peer, client.data + first, client.size - first),
			 client.size - first);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_DONE);
	peer_done(&peer);
	blob_free(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown_options_are_refused_and_skipped),
		cmocka_unit_test(test_options_of_later_issues_are_refused),
		cmocka_unit_test(test_stray_data_is_refused_and_never_parsed),
		cmocka_unit_test(test_lengths_that_lie_are_refused),
		cmocka_unit_test(test_names_that_are_not_text_are_refused),
		cmocka_unit_test(test_names_have_4096_bytes_at_most),
		cmocka_unit_test(test_unknown_client_flags_are_dropped),
		cmocka_unit_test(test_option_without_magic_is_dropped),
		cmocka_unit_test(test_oldstyle_client_is_dropped),
		cmocka_unit_test(test_client_without_fixed_newstyle_gets_no_replies),
		cmocka_unit_test(test_refused_export_name_is_dropped),
		cmocka_unit_test(test_errors_of_the_backend_have_their_replies),
		cmocka_unit_test(test_backend_with_impossible_sizes_is_refused_and_closed),
		cmocka_unit_test(test_endless_option_is_refused_at_once),
		cmocka_unit_test(test_sum_of_option_data_is_bounded),
		cmocka_unit_test(test_number_of_options_is_bounded),
		cmocka_unit_test(test_listing_is_bounded_and_says_so),
		cmocka_unit_test(test_long_listing_is_paged),
		cmocka_unit_test(test_options_wait_until_earlier_replies_have_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
