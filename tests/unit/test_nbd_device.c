/* Transmission, byte by byte as proto.md says: what is asked, and what is refused (see test_nbd_listener.c). */
#include "tests/unit/nbd_dialog.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

/* ---- commands ---- */

static void all_were_handed(struct peer *peer)
{
	device_is_open(peer);
	assert_int_equal(peer->flushes, 1);
	assert_int_equal(peer->trims, 1);
	assert_int_equal(peer->caches, 1);
	assert_int_equal(peer->zeroes, 2);
}

static void test_every_command_is_served_at_any_offset_and_length(void **state)
{
	struct dialog d = {0};

	dialog_write(&d, 0x0102030405060708ull, 1, 1, 1);
	server_reply(&d.server, 0, 0x0102030405060708ull);
	dialog_write(&d, UINT64_MAX, 4095, 33, 2);
	server_reply(&d.server, 0, UINT64_MAX);
	client_request(&d.client, 0, READ, 3, 0, 3);
	server_reply(&d.server, 0, 3);
	blob_add(&d.server, "z p z", (size_t)1, (size_t)1, 1, (size_t)1);
	client_request(&d.client, 0, READ, 3, 4095, 33);
	server_reply(&d.server, 0, 3);
	blob_add(&d.server, "p", (size_t)33, 2);
	client_request(&d.client, 0, FLUSH, 4, 0, 0);
	server_reply(&d.server, 0, 4);
	client_request(&d.client, 0, TRIM, 5, 7, 9);
	server_reply(&d.server, 0, 5);
	client_request(&d.client, 0, CACHE, 6, 0, PEER_DISK);
	server_reply(&d.server, 0, 6);
	client_request(&d.client, 0, ZEROES, 7, 4096, 31);
	server_reply(&d.server, 0, 7);
	client_request(&d.client, NO_HOLE, ZEROES, 8, PEER_DISK - 1, 1);
	server_reply(&d.server, 0, 8);
	client_request(&d.client, 0, READ, 9, 4095, 33);
	server_reply(&d.server, 0, 9);
	size_t at = d.server.size;
	blob_add(&d.server, "p", (size_t)33, 2);
	memset(d.server.data + at + 1, 0, 31);
	dialog_play_device(&d, NULL, all_were_handed);
}

static void test_fua_is_accepted_with_every_command(void **state)
{
	static const uint16_t types[] = {READ, FLUSH, TRIM, CACHE, ZEROES};

	for (size_t i = 0; i < ARRAY_COUNT(types); i++) {
		struct dialog d = {0};
		client_request(&d.client, FUA, types[i], 1, 0, types[i] == FLUSH ? 0 : 2);
		server_reply(&d.server, 0, 1);
		if (types[i] == READ)
			blob_add(&d.server, "z", (size_t)2);
		dialog_play_device(&d, NULL, device_is_open);
	}
}

static void test_flags_reach_the_backend(void **state)
{
	struct peer_options options = {.export = {.flags = PEER_FLAGS | NBD_FLAG_SEND_FAST_ZERO}};
	struct blob client = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	client_request(&client, FUA | NO_HOLE | FAST, ZEROES, 1, 0, 1);
	peer_feed(&peer, client.data, client.size);
	assert_int_equal(peer.last_flags, FUA | NO_HOLE | FAST);
	peer_done(&peer);
	blob_free(&client);
}

static void test_requests_of_no_bytes_succeed_without_the_backend(void **state)
{
	static const uint16_t types[] = {READ, WRITE, TRIM, CACHE, ZEROES};
	struct dialog d = {0};

	for (size_t i = 0; i < ARRAY_COUNT(types); i++) {
		client_request(&d.client, 0, types[i], i, i % 2 ? PEER_DISK : 5, 0);
		server_reply(&d.server, 0, i);
	}
	dialog_read(&d, 9);
	dialog_play_device(&d, NULL, nothing_was_handed);
}

/* ---- refusals ---- */

static const struct refusal {
	uint16_t export_flags; /* 0: PEER_FLAGS */
	uint16_t type;
	uint16_t flags;
	uint32_t error;
	uint64_t offset;
	uint32_t length;
} refusals[] = {
	/* Out of range; sums that overflow. */
	{0, READ, 0, EINVAL_ON_WIRE, PEER_DISK, 1},
	{0, READ, 0, EINVAL_ON_WIRE, PEER_DISK - 1, 2},
	{0, READ, 0, EINVAL_ON_WIRE, UINT64_MAX, 1},
	{0, READ, 0, EINVAL_ON_WIRE, UINT64_MAX - 1, 2},
	{0, READ, 0, EINVAL_ON_WIRE, PEER_DISK + 1, 0},
	{0, WRITE, 0, ENOSPC_ON_WIRE, PEER_DISK, 1},
	{0, WRITE, 0, ENOSPC_ON_WIRE, PEER_DISK - 1, 2},
	{0, WRITE, 0, ENOSPC_ON_WIRE, UINT64_MAX, 3},
	{0, ZEROES, 0, ENOSPC_ON_WIRE, PEER_DISK - 1, 2},
	{0, ZEROES, 0, ENOSPC_ON_WIRE, 0, UINT32_MAX},
	{0, TRIM, 0, EINVAL_ON_WIRE, PEER_DISK - 1, 2},
	{0, CACHE, 0, EINVAL_ON_WIRE, PEER_DISK - 1, 2},
	/* Longer than anyone may ask for. */
	{0, READ, 0, EINVAL_ON_WIRE, 0, (32u << 20) + 1},
	{0, READ, 0, EINVAL_ON_WIRE, 0, UINT32_MAX},
	/* Reserved fields. */
	{0, FLUSH, 0, EINVAL_ON_WIRE, 1, 0},
	{0, FLUSH, 0, EINVAL_ON_WIRE, 0, 1},
	/* Unknown commands. */
	{0, STATUS, 0, EINVAL_ON_WIRE, 0, 1},
	{0, STATUS, REQ_ONE, EINVAL_ON_WIRE, 0, 1},
	{0, RESIZE, 0, EINVAL_ON_WIRE, 4096, 0},
	{0, 9, 0, EINVAL_ON_WIRE, 0, 1},
	{0, 15, 0, EINVAL_ON_WIRE, 0, 1},
	{0, 16, 0, EINVAL_ON_WIRE, 0, 1},
	{0, 0xb000, 0, EINVAL_ON_WIRE, 0, 1},
	{0, 0xffff, 0, EINVAL_ON_WIRE, 0, 1},
	/* Flags that are unknown, of another command, or not advertised. */
	{0, READ, 0x8000, EINVAL_ON_WIRE, 0, 1},
	{0, READ, 64, EINVAL_ON_WIRE, 0, 1},
	{0, READ, NO_HOLE, EINVAL_ON_WIRE, 0, 1},
	{0, READ, DF, EINVAL_ON_WIRE, 0, 1},
	{0, READ, PAYLOAD_LEN, EINVAL_ON_WIRE, 0, 1},
	{0, WRITE, NO_HOLE, EINVAL_ON_WIRE, 0, 5},
	{0, WRITE, FAST, EINVAL_ON_WIRE, 0, 5},
	{0, WRITE, PAYLOAD_LEN, EINVAL_ON_WIRE, 0, 5},
	{0, TRIM, NO_HOLE, EINVAL_ON_WIRE, 0, 1},
	{0, FLUSH, REQ_ONE, EINVAL_ON_WIRE, 0, 0},
	{0, CACHE, DF, EINVAL_ON_WIRE, 0, 1},
	{0, ZEROES, FAST, EINVAL_ON_WIRE, 0, 1},
	{NBD_FLAG_ROTATIONAL, WRITE, FUA, EINVAL_ON_WIRE, 0, 5},
	{NBD_FLAG_ROTATIONAL, READ, FUA, EINVAL_ON_WIRE, 0, 5},
	/* Commands that were not advertised. */
	{NBD_FLAG_ROTATIONAL, FLUSH, 0, EINVAL_ON_WIRE, 0, 0},
	{NBD_FLAG_ROTATIONAL, TRIM, 0, EINVAL_ON_WIRE, 0, 1},
	{NBD_FLAG_ROTATIONAL, CACHE, 0, EINVAL_ON_WIRE, 0, 1},
	{NBD_FLAG_ROTATIONAL, ZEROES, 0, EINVAL_ON_WIRE, 0, 1},
	/* Read-only. */
	{NBD_FLAG_READ_ONLY, WRITE, 0, EPERM_ON_WIRE, 0, 5},
	{NBD_FLAG_READ_ONLY, WRITE, 0, EPERM_ON_WIRE, PEER_DISK, 5},
	{NBD_FLAG_READ_ONLY, WRITE, 0x8000, EPERM_ON_WIRE, 0, 5},
	{NBD_FLAG_READ_ONLY, TRIM, 0, EPERM_ON_WIRE, 0, 1},
	{NBD_FLAG_READ_ONLY, ZEROES, 0, EPERM_ON_WIRE, 0, 1},
};

/* And the payload of a refused write is consumed, be it requests in disguise. */
static void test_refusals_have_the_right_error_and_keep_in_step(void **state)
{
	for (size_t i = 0; i < ARRAY_COUNT(refusals); i++) {
		const struct refusal *r = &refusals[i];
		struct peer_options options = {.export = {.flags = r->export_flags}};
		struct dialog d = {0};
		client_request(&d.client, r->flags, r->type, i, r->offset, r->length);
		for (uint32_t n = 0; r->type == WRITE && n < r->length; n++)
			blob_add(&d.client, "1", 0x25ull);
		server_reply(&d.server, r->error, i);
		dialog_read(&d, 1000);
		dialog_play_device(&d, &options, nothing_was_handed);
	}
}

static void test_refused_write_consumes_a_whole_request_as_payload(void **state)
{
	struct dialog d = {0};

	client_request(&d.client, 0, WRITE, 1, PEER_DISK, 28);
	client_request(&d.client, 0, DISC, 2, 0, 0);
	server_reply(&d.server, ENOSPC_ON_WIRE, 1);
	dialog_read(&d, 3);
	dialog_play_device(&d, NULL, nothing_was_handed);
}

static void test_unaligned_requests_are_refused_if_a_minimum_was_told(void **state)
{
	struct peer_options options = {.export = {.block_minimum = 512}};
	struct dialog d = {0};

	client_request(&d.client, 0, READ, 1, 1, 512);
	server_reply(&d.server, EINVAL_ON_WIRE, 1);
	client_request(&d.client, 0, READ, 2, 512, 511);
	server_reply(&d.server, EINVAL_ON_WIRE, 2);
	client_request(&d.client, 0, WRITE, 3, 512, 3);
	blob_add(&d.client, "s", "abc");
	server_reply(&d.server, EINVAL_ON_WIRE, 3);
	client_request(&d.client, 0, TRIM, 4, 512, 1024);
	server_reply(&d.server, 0, 4);
	dialog_play_device(&d, &options, device_is_open);
}

static void test_maximum_binds_reads_and_writes_only(void **state)
{
	struct peer_options options = {.export = {.block_maximum = 4}};
	struct dialog d = {0};

	dialog_write(&d, 1, 0, 5, 1);
	server_reply(&d.server, EINVAL_ON_WIRE, 1);
	dialog_write(&d, 2, 0, 4, 1);
	server_reply(&d.server, 0, 2);
	client_request(&d.client, 0, READ, 3, 0, 5);
	server_reply(&d.server, EINVAL_ON_WIRE, 3);
	client_request(&d.client, 0, ZEROES, 4, 0, PEER_DISK);
	server_reply(&d.server, 0, 4);
	client_request(&d.client, 0, TRIM, 5, 0, PEER_DISK);
	server_reply(&d.server, 0, 5);
	dialog_play_device(&d, &options, device_is_open);
}

/* 4 GiB of payload are skipped without memory; afterwards all is as before. */
static void test_oversized_write_is_skipped(void **state)
{
	static uint8_t junk[1 << 20];
	struct blob client = {0}, server = {0};
	struct peer peer;

	peer_init_device(&peer, NULL);
	client_request(&client, 0, WRITE, 1, 0, UINT32_MAX);
	peer_feed(&peer, client.data, client.size);
	server_reply(&server, EINVAL_ON_WIRE, 1);
	peer_expect_sent(&peer, &server);
	for (uint64_t left = UINT32_MAX; left > 0;) {
		struct slice in = {.data = junk,
				   .size = (uint32_t)min_of(left, sizeof(junk) + 0ull)};
		assert_int_equal(nbd_device_feed(peer.device, in), in.size);
		left -= in.size;
	}
	peer_feed_request(&peer, FLUSH, 2, 0, 0);
	server_reply(&server, 0, 2);
	peer_expect_sent(&peer, &server);
	assert_int_equal(peer.handled, 1);
	peer_done(&peer);
	blob_free(&client);
	blob_free(&server);
}

static void test_bad_magic_is_a_hard_disconnect(void **state)
{
	struct dialog d = {0};

	dialog_read(&d, 1);
	client_request(&d.client, 0, READ, 2, 0, 1);
	d.client.data[28] ^= 1;
	client_request(&d.client, 0, READ, 3, 0, 1);
	d.server.size = 0; /* what had not gone yet may be lost */
	struct peer peer;
	for (size_t step = 1; step <= d.client.size; step++) {
		peer_init_device(&peer, NULL);
		peer.is_muted = true;
		for (size_t at = 0; at < d.client.size; at += step)
			peer_feed(&peer, d.client.data + at, min_of(step, d.client.size - at));
		peer.is_muted = false;
		peer_send(&peer);
		device_has_failed(&peer);
		assert_int_equal(peer.out.size, 0);
		assert_int_equal(peer.handled, 1);
		peer_done(&peer);
	}
	blob_free(&d.client);
	blob_free(&d.server);
}

/* ---- errors of the backend ---- */

static void test_errors_are_mapped_and_legal(void **state)
{
	static const struct {
		int rc;
		uint16_t flags;
		uint32_t error;
	} rows[] = {
		{-EPERM, 0, EPERM_ON_WIRE},
		{-EROFS, 0, EPERM_ON_WIRE},
		{-EACCES, 0, EPERM_ON_WIRE},
		{-EIO, 0, EIO_ON_WIRE},
		{-ENOMEM, 0, ENOMEM_ON_WIRE},
		{-EINVAL, 0, EINVAL_ON_WIRE},
		{-ENOSPC, 0, ENOSPC_ON_WIRE},
		{-EDQUOT, 0, ENOSPC_ON_WIRE},
		{-EFBIG, 0, ENOSPC_ON_WIRE},
		{-ESHUTDOWN, 0, ESHUTDOWN_ON_WIRE},
		{-E_SHUTDOWN, 0, ESHUTDOWN_ON_WIRE},
		{-E_STALE_GENERATION, 0, ESHUTDOWN_ON_WIRE},
		{-E_LOST_WRITES, 0, EIO_ON_WIRE},
		{-E_CHECKSUM, 0, EIO_ON_WIRE},
		{-ETIMEDOUT, 0, EIO_ON_WIRE},
		{-1000000, 0, EIO_ON_WIRE},
		/* Legal as an answer to FAST_ZERO only, or to DF only. */
		{-EOPNOTSUPP, FAST, ENOTSUP_ON_WIRE},
		{-EOPNOTSUPP, 0, EINVAL_ON_WIRE},
		{-EOVERFLOW, 0, EINVAL_ON_WIRE},
	};
	struct peer_options options = {
		.export = {.flags = PEER_FLAGS | NBD_FLAG_SEND_FAST_ZERO},
		.holds_requests = true,
	};
	struct blob client = {0}, server = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		client.size = 0;
		client_request(&client, rows[i].flags, ZEROES, i, 0, 1);
		peer_feed(&peer, client.data, client.size);
		peer_answer(&peer, 0, rows[i].rc);
		peer_send(&peer);
		server_reply(&server, rows[i].error, i);
		peer_expect_sent(&peer, &server);
	}
	peer_done(&peer);
	assert_int_equal(nbd_error_of(-EOVERFLOW), EOVERFLOW_ON_WIRE);
	assert_int_equal(nbd_error_of(0), 0);
	blob_free(&client);
	blob_free(&server);
}

static void test_failed_read_sends_no_data(void **state)
{
	struct peer_options options = {.holds_requests = true};
	struct blob server = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	peer_feed_request(&peer, READ, 1, 0, 4096);
	peer_feed_request(&peer, READ, 2, 0, 4);
	peer_answer(&peer, 0, -EIO);
	peer_answer(&peer, 0, 0);
	peer_send(&peer);
	server_reply(&server, EIO_ON_WIRE, 1);
	server_reply(&server, 0, 2);
	blob_add(&server, "z", (size_t)4);
	peer_expect_sent(&peer, &server);
	peer_done(&peer);
	blob_free(&server);
}

/* ---- the table ---- */

static void on_vendor(struct nbd_request *request)
{
	struct peer *peer = nbd_device_handle(request->device);

	peer->handled++;
	nbd_request_reply(request, request->payload.size == 3 ? 0 : -EIO, NULL, 0);
}

static void add_command(struct nbd_server *server)
{
	static const struct nbd_command rows[] = {
		{.number = 0xb001,
		 .name = "X_TAKE",
		 .traits = NBD_COMMAND_PAYLOAD | NBD_COMMAND_BOUNDED,
		 .handle = on_vendor},
		{.number = 0xb002,
		 .name = "X_LATER",
		 .requires = NBD_FEATURE_USER,
		 .handle = on_vendor},
	};

	for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
		assert_int_equal(nbd_server_add_command(server, &rows[i]), 0);
		assert_int_equal(nbd_server_add_command(server, &rows[i]), -EEXIST);
	}
}

static void test_commands_of_an_embedder_need_their_negotiation(void **state)
{
	struct peer_options options = {.tune = add_command};
	struct dialog d = {0};

	client_request(&d.client, 0, 0xb001, 1, UINT64_MAX, 3);
	blob_add(&d.client, "s", "abc");
	server_reply(&d.server, 0, 1);
	client_request(&d.client, 0, 0xb002, 2, 0, 0);
	server_reply(&d.server, EINVAL_ON_WIRE, 2);
	client_request(&d.client, 0, 0xb003, 3, 0, 0);
	server_reply(&d.server, EINVAL_ON_WIRE, 3);
	dialog_play_device(&d, &options, device_is_open);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_command_is_served_at_any_offset_and_length),
		cmocka_unit_test(test_fua_is_accepted_with_every_command),
		cmocka_unit_test(test_flags_reach_the_backend),
		cmocka_unit_test(test_requests_of_no_bytes_succeed_without_the_backend),
		cmocka_unit_test(test_refusals_have_the_right_error_and_keep_in_step),
		cmocka_unit_test(test_refused_write_consumes_a_whole_request_as_payload),
		cmocka_unit_test(test_unaligned_requests_are_refused_if_a_minimum_was_told),
		cmocka_unit_test(test_maximum_binds_reads_and_writes_only),
		cmocka_unit_test(test_oversized_write_is_skipped),
		cmocka_unit_test(test_bad_magic_is_a_hard_disconnect),
		cmocka_unit_test(test_errors_are_mapped_and_legal),
		cmocka_unit_test(test_failed_read_sends_no_data),
		cmocka_unit_test(test_commands_of_an_embedder_need_their_negotiation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
