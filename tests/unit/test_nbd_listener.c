/*
 * Negotiation, byte by byte as proto.md says. Numbers are written out, so that a wrong constant of
 * include/proto/nbd.h is seen. Every transcript runs whole and split at every position.
 */
#include "tests/unit/nbd_peer.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

#define FIXED	       1u
#define FIXED_NOZERO   3u
#define UNSUP	       0x80000001u
#define POLICY	       0x80000002u
#define INVALID	       0x80000003u
#define PLATFORM       0x80000004u
#define UNKNOWN	       0x80000006u
#define SHUTDOWN       0x80000007u
#define TOO_BIG	       0x80000009u
#define FLAGS_ON_WIRE  (PEER_FLAGS | 1u)
#define PAYLOAD_MAX    (32u << 20)

#define TEXT_UNKNOWN   "this option is not known here"
#define TEXT_LENGTHS   "the lengths inside of the option do not add up"
#define TEXT_NAME      "the export's name is not UTF-8, or has control characters"
#define TEXT_NO_DATA   "this option takes no data"
#define TEXT_TOO_LONG  "the option's data is too long"
#define TEXT_TOO_SHORT "the option's data is too short"
#define TEXT_TOO_MUCH  "too much option data on one connection"

struct dialog {
	struct blob client;
	struct blob server;
};

static struct dialog dialog_of(uint32_t flags)
{
	struct dialog d = {0};

	server_greeting(&d.server);
	client_hello(&d.client, flags);
	return d;
}

static void play(struct dialog *d, const struct peer_options *options,
		 void (*check)(struct peer *peer))
{
	check_transcript(options, false, &d->client, &d->server, check);
	blob_free(&d->client);
	blob_free(&d->server);
}

/* The tail that shows that both sides are still in step: ABORT and its ACK. */
static void add_abort(struct dialog *d)
{
	client_option(&d->client, 2, NULL, 0);
	server_option(&d->server, 2, 1, NULL, 0);
}

static void is_closed(struct peer *peer)
{
	assert_int_equal(nbd_listener_state(peer->listener), NBD_LISTENER_CLOSED);
	assert_null(peer->device);
}

static void is_closed_by_rule(struct peer *peer)
{
	is_closed(peer);
	assert_string_equal(nbd_listener_reason(peer->listener), "");
}

static void is_dropped(struct peer *peer)
{
	is_closed(peer);
	assert_string_not_equal(nbd_listener_reason(peer->listener), "");
	assert_int_equal(peer->opened, peer->closed);
}

static void is_negotiated(struct peer *peer)
{
	assert_int_equal(nbd_listener_state(peer->listener), NBD_LISTENER_DONE);
}

static void info_was_closed(struct peer *peer)
{
	is_closed_by_rule(peer);
	assert_int_equal(peer->opened, 1);
	assert_int_equal(peer->closed, 1);
}

/* ---- entering transmission ---- */

static void test_go_tells_everything_that_is_asked_for(void **state)
{
	struct peer_options options = {.export = {.description = "for \xc3\xa4ll",
						  .name = "disk",
						  .block_minimum = 512,
						  .block_preferred = 8192,
						  .block_maximum = 1 << 20}};
	struct dialog d = dialog_of(FIXED_NOZERO);

	/* Twice the same and unknown kinds of information: answered once, ignored. */
	client_go(&d.client, 7, "disk", 6, 3, 1, 2, 0, 1, 0x1234);
	server_info_export(&d.server, 7, PEER_DISK, FLAGS_ON_WIRE);
	server_info_block_size(&d.server, 7, 512, 8192, 1 << 20);
	server_text(&d.server, 7, 3, "xxdisk");
	memcpy(d.server.data + d.server.size - 6, "\0\1", 2);
	server_text(&d.server, 7, 3, "xxfor \xc3\xa4ll");
	memcpy(d.server.data + d.server.size - 10, "\0\2", 2);
	server_option(&d.server, 7, 1, NULL, 0);
	play(&d, &options, is_negotiated);
}

static void test_go_without_requests_tells_size_flags_and_block_sizes(void **state)
{
	struct dialog d = dialog_of(FIXED);

	client_go(&d.client, 7, "", 0);
	server_info_export(&d.server, 7, PEER_DISK, FLAGS_ON_WIRE);
	server_info_block_size(&d.server, 7, 1, 4096, PAYLOAD_MAX);
	server_option(&d.server, 7, 1, NULL, 0); /* and no zeroes, whatever was agreed on */
	play(&d, NULL, is_negotiated);
}

static void test_requests_right_behind_go_are_served(void **state)
{
	struct dialog d = dialog_of(FIXED);

	client_go(&d.client, 7, "disk", 0);
	client_request(&d.client, 0, 1, 77, 100, 5);
	blob_add(&d.client, "s", "hello");
	client_request(&d.client, 0, 0, 78, 98, 9);
	server_info_export(&d.server, 7, PEER_DISK, FLAGS_ON_WIRE);
	server_info_block_size(&d.server, 7, 1, 4096, PAYLOAD_MAX);
	server_option(&d.server, 7, 1, NULL, 0);
	server_reply(&d.server, 0, 77);
	server_reply(&d.server, 0, 78);
	blob_add(&d.server, "1 1 s 1 1", 0ull, 0ull, "hello", 0ull, 0ull);
	play(&d, NULL, is_negotiated);
}

static void test_export_name_sends_zeroes_unless_agreed_otherwise(void **state)
{
	for (uint32_t flags = 0; flags < 4; flags++) {
		struct dialog d = dialog_of(flags);
		client_option(&d.client, 1, "disk", 4);
		blob_add(&d.server, "8 2", (uint64_t)PEER_DISK, (uint64_t)FLAGS_ON_WIRE);
		if (!(flags & 2))
			blob_add(&d.server, "z", (size_t)124);
		play(&d, NULL, is_negotiated);
	}
}

static void test_info_then_go_tell_the_same_and_info_is_closed(void **state)
{
	struct dialog d = dialog_of(FIXED);

	for (uint32_t option = 6; option < 8; option++) {
		client_go(&d.client, option, "disk", 1, 3);
		server_info_export(&d.server, option, PEER_DISK, FLAGS_ON_WIRE);
		server_info_block_size(&d.server, option, 1, 4096, PAYLOAD_MAX);
		server_option(&d.server, option, 1, NULL, 0);
	}
	play(&d, NULL, is_negotiated);

	d = dialog_of(FIXED);
	client_go(&d.client, 6, "disk", 0);
	server_info_export(&d.server, 6, PEER_DISK, FLAGS_ON_WIRE);
	server_info_block_size(&d.server, 6, 1, 4096, PAYLOAD_MAX);
	server_option(&d.server, 6, 1, NULL, 0);
	add_abort(&d);
	play(&d, NULL, info_was_closed);
}

static void test_flags_that_cannot_be_true_are_left_out(void **state)
{
	static const struct {
		uint16_t given, sent;
	} rows[] = {
		{NBD_FLAG_READ_ONLY | PEER_FLAGS | NBD_FLAG_SEND_FAST_ZERO,
		 1 | 2 | 4 | 8 | 0x100 | 0x400},
		{NBD_FLAG_SEND_FAST_ZERO, 1},
		{NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_SEND_WRITE_ZEROES, 1 | 0x40 | 0x800},
		{NBD_FLAG_SEND_DF | NBD_FLAG_SEND_RESIZE | NBD_FLAG_ROTATIONAL |
			 NBD_FLAG_BLOCK_STATUS_PAYLOAD,
		 1 | 0x10},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		struct peer_options options = {.export = {.flags = rows[i].given}};
		struct dialog d = dialog_of(FIXED_NOZERO);
		client_option(&d.client, 1, "", 0);
		blob_add(&d.server, "8 2", (uint64_t)PEER_DISK, (uint64_t)rows[i].sent);
		play(&d, &options, is_negotiated);
	}
}

/* ---- LIST and ABORT ---- */

static void test_list_gives_names_and_descriptions(void **state)
{
	static const char *const names[] = {"a", "", "z\xc3\xa4", NULL};
	struct peer_options options = {.names = names, .export = {.description = "text"}};
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 3, NULL, 0);
	server_option(&d.server, 3, 2, "\0\0\0\1atext", 9);
	server_option(&d.server, 3, 2, "\0\0\0\0text", 8);
	server_option(&d.server, 3, 2, "\0\0\0\3z\xc3\xa4text", 11);
	server_option(&d.server, 3, 1, NULL, 0);
	add_abort(&d);
	play(&d, &options, is_closed_by_rule);
}

static void test_abort_is_acknowledged_whatever_data_it_has(void **state)
{
	char data[9000] = {0};
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 2, data, 100);
	server_option(&d.server, 2, 1, NULL, 0);
	/* What follows is dropped. */
	client_option(&d.client, 3, NULL, 0);
	play(&d, NULL, is_closed_by_rule);
}

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
		add_abort(&d);
		play(&d, NULL, is_closed_by_rule);
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
	add_abort(&d);
	play(&d, NULL, is_closed_by_rule);
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
	add_abort(&d);
	blob_free(&inner);
	blob_free(&go);
	play(&d, NULL, is_closed_by_rule);
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
	add_abort(&d);
	play(&d, NULL, is_closed_by_rule);
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
	add_abort(&d);
	blob_free(&go);
	play(&d, NULL, is_closed_by_rule);

	static const char *const bad[] = {"disk\0x", "disk\xff", "disk\n", "\xed\xa0\x80xx"};
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		d = dialog_of(FIXED);
		client_option(&d.client, 1, bad[i], 5);
		play(&d, NULL, is_dropped);
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
		play(&d, NULL, is_dropped);
	}
}

static void test_option_without_magic_is_dropped(void **state)
{
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 3, NULL, 0);
	d.client.data[4] ^= 0x20;
	client_option(&d.client, 3, NULL, 0);
	play(&d, NULL, is_dropped);
}

/* An oldstyle server's client sends a request at once. */
static void test_oldstyle_client_is_dropped(void **state)
{
	struct dialog d = {0};

	server_greeting(&d.server);
	client_request(&d.client, 0, 0, 1, 0, 4096);
	play(&d, NULL, is_dropped);
}

static void test_client_without_fixed_newstyle_gets_no_replies(void **state)
{
	static const uint32_t options[] = {2, 3, 5, 6, 7, 8, 99};

	for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
		struct dialog d = dialog_of(0);
		client_option(&d.client, options[i], NULL, 0);
		client_option(&d.client, 1, "disk", 4);
		play(&d, NULL, is_dropped);
	}
}

static void test_refused_export_name_is_dropped(void **state)
{
	struct peer_options options = {.open_rc = -ENOENT};
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 1, "other", 5);
	client_option(&d.client, 1, "disk", 4);
	play(&d, &options, is_dropped);
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
		add_abort(&d);
		play(&d, &options, is_closed_by_rule);
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
		add_abort(&d);
		play(&d, &options, is_closed_by_rule);
	}
}

/* ---- bounds ---- */

/* Others wait for 4 GiB. */
static void test_endless_option_is_refused_at_once(void **state)
{
	struct dialog d = dialog_of(FIXED);

	blob_add(&d.client, "s 4 4", "IHAVEOPT", 3ull, 0xffffffffull);
	server_text(&d.server, 3, TOO_BIG, TEXT_TOO_MUCH);
	play(&d, NULL, is_dropped);
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
	play(&d, &options, is_dropped);
}

static void test_number_of_options_is_bounded(void **state)
{
	struct peer_options options = {.limits = {.options_max = 2}};
	struct dialog d = dialog_of(FIXED);

	for (int i = 0; i < 3; i++)
		client_option(&d.client, 99, NULL, 0);
	server_text(&d.server, 99, UNSUP, TEXT_UNKNOWN);
	server_text(&d.server, 99, UNSUP, TEXT_UNKNOWN);
	play(&d, &options, is_dropped);
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
	add_abort(&d);
	play(&d, &options, is_closed_by_rule);
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

/* ---- answers that come later ---- */

static void test_export_opened_later_holds_the_input_back(void **state)
{
	struct peer_options options = {.opens_later = true};
	struct blob client = {0};
	struct peer peer;

	peer_init(&peer, &options);
	peer_send(&peer);
	client_hello(&client, FIXED);
	client_go(&client, 7, "disk", 0);
	size_t until = client.size;
	client_request(&client, 0, 3, 1, 0, 0);
	size_t before = peer.out.size;
	assert_int_equal(peer_feed(&peer, client.data, client.size), until);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_OPENING);
	assert_int_equal(peer.out.size, before);
	unsigned woken = peer.woken;
	peer_open_now(&peer);
	assert_true(peer.woken > woken);
	assert_int_equal(peer_feed(&peer, client.data + until, client.size - until),
			 client.size - until);
	assert_int_equal(peer.flushes, 1);
	assert_int_equal(peer.cancelled, 0);
	peer_done(&peer);
	blob_free(&client);
}

static void test_connection_that_ends_while_opening_cancels(void **state)
{
	struct peer_options options = {.opens_later = true, .lists_later = true};
	struct blob client = {0};
	struct peer peer;

	for (uint32_t option = 3; option <= 7; option += 4) {
		client.size = 0;
		client_hello(&client, FIXED);
		client_go(&client, option, "disk", 0);
		if (option == 3) {
			client.size = 4;
			client_option(&client, 3, NULL, 0);
		}
		peer_init(&peer, &options);
		peer_feed(&peer, client.data, client.size);
		nbd_listener_free(peer.listener);
		peer.listener = NULL;
		assert_int_equal(peer.cancelled, 1);
		peer_done(&peer);
	}
	blob_free(&client);
}

/* Half-closed behind its question: the answer is still sent, and the export closed. */
static void test_client_that_half_closes_gets_its_answer(void **state)
{
	struct peer_options options = {.opens_later = true, .lists_later = true};
	struct blob client = {0};
	struct peer peer;

	client_hello(&client, FIXED);
	client_option(&client, 3, NULL, 0);
	peer_init(&peer, &options);
	peer_feed(&peer, client.data, client.size);
	peer_eof(&peer);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_LISTING);
	peer_list_now(&peer);
	size_t before = peer.out.size;
	peer_send(&peer);
	assert_true(peer.out.size > before);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_CLOSED);
	assert_string_equal(nbd_listener_reason(peer.listener), "");
	peer_done(&peer);

	client.size = 4;
	client_go(&client, 7, "", 0);
	peer_init(&peer, &options);
	peer_feed(&peer, client.data, client.size);
	peer_eof(&peer);
	peer_open_now(&peer);
	assert_int_equal(nbd_listener_state(peer.listener), NBD_LISTENER_DONE);
	assert_int_equal(peer.closed, 0);
	peer_done(&peer); /* checks that it was closed: nobody took the session */
	blob_free(&client);
}

static void test_end_of_stream_is_told_from_a_torn_message(void **state)
{
	struct blob client = {0};

	client_hello(&client, FIXED);
	client_option(&client, 99, "data", 4);
	for (size_t cut = 0; cut <= client.size; cut++) {
		struct peer peer;
		bool is_boundary = cut == 4 || cut == client.size;
		peer_init(&peer, NULL);
		peer_send(&peer);
		peer_feed(&peer, client.data, cut);
		peer_eof(&peer);
		is_closed(&peer);
		assert_int_equal(*nbd_listener_reason(peer.listener) == '\0', is_boundary);
		peer_done(&peer);
	}
	blob_free(&client);
}

static void test_shutdown_refuses_all_but_abort(void **state)
{
	static const char text[] = "the server is shutting down";
	struct blob client = {0}, server = {0};
	struct peer peer;

	client_hello(&client, FIXED);
	client_option(&client, 3, NULL, 0);
	client_go(&client, 7, "disk", 0);
	client_option(&client, 99, "x", 1);
	client_option(&client, 2, NULL, 0);
	server_greeting(&server);
	server_text(&server, 3, SHUTDOWN, text);
	server_text(&server, 7, SHUTDOWN, text);
	server_text(&server, 99, SHUTDOWN, text);
	server_option(&server, 2, 1, NULL, 0);
	peer_init(&peer, NULL);
	nbd_listener_shutdown(peer.listener);
	peer_send(&peer);
	peer_feed(&peer, client.data, client.size);
	assert_int_equal(peer.out.size, server.size);
	assert_memory_equal(peer.out.data, server.data, server.size);
	is_closed_by_rule(&peer);
	peer_done(&peer);
	blob_free(&client);
	blob_free(&server);
}

/* ---- the table ---- */

static void on_echo(struct nbd_listener *listener, const struct nbd_option *option,
		    struct bytes_reader data)
{
	size_t size = data.left;

	nbd_listener_reply(listener, 0x53460009, bytes_take(&data, size), size);
	nbd_listener_ack(listener, NBD_FEATURE_USER);
}

static const struct nbd_option echo = {
	.number = 0x53460001,
	.name = "X_ECHO",
	.length_min = 1,
	.length_max = 8,
	.phases = NBD_PHASE_FIXED,
	.handle = on_echo,
};
static const struct nbd_option granted = {
	.number = 12,
	.name = "X_GRANTED",
	.phases = NBD_PHASE_FIXED,
	.reply_type = NBD_REP_ACK,
	.grants = NBD_FEATURE_USER << 1,
};

static void add_rows(struct nbd_server *server)
{
	assert_int_equal(nbd_server_add_option(server, &echo), 0);
	assert_int_equal(nbd_server_add_option(server, &granted), 0);
	assert_int_equal(nbd_server_add_option(server, &echo), -EEXIST);
	assert_ptr_equal(nbd_server_option(server, echo.number), &echo);
	assert_ptr_equal(nbd_server_option(server, 12), &granted);
}

static void has_features(struct peer *peer)
{
	assert_int_equal(nbd_listener_features(peer->listener) / NBD_FEATURE_USER, 3);
}

static void test_options_of_an_embedder_are_served(void **state)
{
	struct peer_options options = {.tune = add_rows};
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 0x53460001, "ping", 4);
	server_option(&d.server, 0x53460001, 0x53460009, "ping", 4);
	server_option(&d.server, 0x53460001, 1, NULL, 0);
	client_option(&d.client, 0x53460001, "ping pong", 9);
	server_text(&d.server, 0x53460001, TOO_BIG, TEXT_TOO_LONG);
	client_option(&d.client, 12, NULL, 0);
	server_option(&d.server, 12, 1, NULL, 0);
	client_option(&d.client, 12, "x", 1);
	server_text(&d.server, 12, INVALID, TEXT_NO_DATA);
	play(&d, &options, has_features);
}

static void ignore_request(struct nbd_request *request)
{
}

static void test_rows_that_are_not_sound_are_refused(void **state)
{
	struct nbd_callbacks callbacks = {.handle_request = ignore_request};
	struct nbd_server *server = nbd_server_new(&callbacks, NULL);
	struct nbd_option option = echo;
	struct nbd_command command = {.number = 9, .name = "X"};

	option.number = NBD_OPT_GO;
	assert_int_equal(nbd_server_add_option(server, &option), -EEXIST);
	option.number = 0x12345678;
	assert_int_equal(nbd_server_add_option(server, &option), -EINVAL);
	option = echo;
	option.handle = NULL;
	assert_int_equal(nbd_server_add_option(server, &option), -EINVAL);
	option = echo;
	option.length_max = 1 << 20;
	assert_int_equal(nbd_server_add_option(server, &option), -EINVAL);
	command.number = NBD_CMD_READ;
	assert_int_equal(nbd_server_add_command(server, &command), -EEXIST);
	command.number = 0xc000;
	assert_int_equal(nbd_server_add_command(server, &command), -EINVAL);
	command.number = 9;
	command.traits = NBD_COMMAND_PAYLOAD; /* but unbounded */
	assert_int_equal(nbd_server_add_command(server, &command), -EINVAL);
	nbd_server_free(server);
}

static void test_vendor_options_are_many_and_all_found(void **state)
{
	struct nbd_callbacks callbacks = {.handle_request = ignore_request};
	struct nbd_server *server = nbd_server_new(&callbacks, NULL);
	static struct nbd_option rows[33];

	for (uint32_t i = 0; i < ARRAY_COUNT(rows); i++) {
		rows[i] = echo;
		rows[i].number = 0x53460000 + i * 1021;
		assert_int_equal(nbd_server_add_option(server, &rows[i]), i < 32 ? 0 : -ENOSPC);
	}
	for (uint32_t i = 0; i < 32; i++)
		assert_ptr_equal(nbd_server_option(server, rows[i].number), &rows[i]);
	assert_null(nbd_server_option(server, 0x5346ffff));
	nbd_server_free(server);
}

/* Without callbacks but handle_request there is one export. */
static void use_defaults(struct nbd_callbacks *callbacks)
{
	static const struct nbd_export export = {.size = 4096, .name = "only", .flags = 4};

	*callbacks = (struct nbd_callbacks){
		.handle_request = callbacks->handle_request,
		.export = &export,
	};
}

static void test_server_without_callbacks_has_one_export(void **state)
{
	struct peer_options options = {.callbacks = use_defaults};
	struct dialog d = dialog_of(FIXED_NOZERO);

	client_option(&d.client, 3, NULL, 0);
	server_option(&d.server, 3, 2, "\0\0\0\4only", 8);
	server_option(&d.server, 3, 1, NULL, 0);
	client_go(&d.client, 6, "other", 0);
	server_text(&d.server, 6, UNKNOWN, "No such file or directory");
	client_option(&d.client, 1, "", 0);
	blob_add(&d.server, "8 2", 4096ull, 5ull);
	play(&d, &options, is_negotiated);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_go_tells_everything_that_is_asked_for),
		cmocka_unit_test(test_go_without_requests_tells_size_flags_and_block_sizes),
		cmocka_unit_test(test_requests_right_behind_go_are_served),
		cmocka_unit_test(test_export_name_sends_zeroes_unless_agreed_otherwise),
		cmocka_unit_test(test_info_then_go_tell_the_same_and_info_is_closed),
		cmocka_unit_test(test_flags_that_cannot_be_true_are_left_out),
		cmocka_unit_test(test_list_gives_names_and_descriptions),
		cmocka_unit_test(test_abort_is_acknowledged_whatever_data_it_has),
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
		cmocka_unit_test(test_export_opened_later_holds_the_input_back),
		cmocka_unit_test(test_connection_that_ends_while_opening_cancels),
		cmocka_unit_test(test_client_that_half_closes_gets_its_answer),
		cmocka_unit_test(test_end_of_stream_is_told_from_a_torn_message),
		cmocka_unit_test(test_shutdown_refuses_all_but_abort),
		cmocka_unit_test(test_options_of_an_embedder_are_served),
		cmocka_unit_test(test_rows_that_are_not_sound_are_refused),
		cmocka_unit_test(test_vendor_options_are_many_and_all_found),
		cmocka_unit_test(test_server_without_callbacks_has_one_export),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
