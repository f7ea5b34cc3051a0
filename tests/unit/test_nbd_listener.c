/*
 * Negotiation, byte by byte as proto.md says. Every transcript runs whole and split at every position. What is refused
 * is in test_nbd_refusals.c.
 */
#include "tests/unit/nbd_dialog.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

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
	dialog_play_listener(&d, &options, listener_is_negotiated);
}

static void test_go_without_requests_tells_size_flags_and_block_sizes(void **state)
{
	struct dialog d = dialog_of(FIXED);

	client_go(&d.client, 7, "", 0);
	server_info_export(&d.server, 7, PEER_DISK, FLAGS_ON_WIRE);
	server_info_block_size(&d.server, 7, 1, 4096, PAYLOAD_MAX);
	server_option(&d.server, 7, 1, NULL, 0); /* and no zeroes, whatever was agreed on */
	dialog_play_listener(&d, NULL, listener_is_negotiated);
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
	dialog_play_listener(&d, NULL, listener_is_negotiated);
}

static void test_export_name_sends_zeroes_unless_agreed_otherwise(void **state)
{
	for (uint32_t flags = 0; flags < 4; flags++) {
		struct dialog d = dialog_of(flags);
		client_option(&d.client, 1, "disk", 4);
		blob_add(&d.server, "8 2", (uint64_t)PEER_DISK, (uint64_t)FLAGS_ON_WIRE);
		if (!(flags & 2))
			blob_add(&d.server, "z", (size_t)124);
		dialog_play_listener(&d, NULL, listener_is_negotiated);
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
	dialog_play_listener(&d, NULL, listener_is_negotiated);

	d = dialog_of(FIXED);
	client_go(&d.client, 6, "disk", 0);
	server_info_export(&d.server, 6, PEER_DISK, FLAGS_ON_WIRE);
	server_info_block_size(&d.server, 6, 1, 4096, PAYLOAD_MAX);
	server_option(&d.server, 6, 1, NULL, 0);
	dialog_abort(&d);
	dialog_play_listener(&d, NULL, info_was_closed);
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
		dialog_play_listener(&d, &options, listener_is_negotiated);
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
	dialog_abort(&d);
	dialog_play_listener(&d, &options, listener_is_closed_by_rule);
}

static void test_abort_is_acknowledged_whatever_data_it_has(void **state)
{
	char data[9000] = {0};
	struct dialog d = dialog_of(FIXED);

	client_option(&d.client, 2, data, 100);
	server_option(&d.server, 2, 1, NULL, 0);
	/* What follows is dropped. */
	client_option(&d.client, 3, NULL, 0);
	dialog_play_listener(&d, NULL, listener_is_closed_by_rule);
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
		listener_is_closed(&peer);
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
	listener_is_closed_by_rule(&peer);
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
	dialog_play_listener(&d, &options, has_features);
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
	dialog_play_listener(&d, &options, listener_is_negotiated);
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
