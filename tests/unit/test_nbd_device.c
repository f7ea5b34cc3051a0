/*
 * Transmission, byte by byte as proto.md says: see test_nbd_listener.c. The program is linked with
 * its allocators wrapped, so that it can count.
 */
#include "tests/unit/nbd_peer.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

#define EPERM_ON_WIRE	  1u
#define EIO_ON_WIRE	  5u
#define ENOMEM_ON_WIRE	  12u
#define EINVAL_ON_WIRE	  22u
#define ENOSPC_ON_WIRE	  28u
#define EOVERFLOW_ON_WIRE 75u
#define ENOTSUP_ON_WIRE	  95u
#define ESHUTDOWN_ON_WIRE 108u

enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS, RESIZE };
enum { FUA = 1, NO_HOLE = 2, DF = 4, REQ_ONE = 8, FAST = 16, PAYLOAD_LEN = 32 };

/* ---- counting allocations ---- */

static unsigned allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

void *__wrap_malloc(size_t size)
{
	allocations++;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	allocations++;
	return __real_calloc(count, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	allocations++;
	return __real_aligned_alloc(align, size);
}

/* ---- helpers ---- */

struct dialog {
	struct blob client;
	struct blob server;
};

static void play(struct dialog *d, const struct peer_options *options,
		 void (*check)(struct peer *peer))
{
	check_transcript(options, true, &d->client, &d->server, check);
	blob_free(&d->client);
	blob_free(&d->server);
}

static void add_write(struct dialog *d, uint64_t cookie, uint64_t offset, size_t size, int number)
{
	client_request(&d->client, 0, WRITE, cookie, offset, (uint32_t)size);
	blob_add(&d->client, "p", size, number);
}

/* A read of what is still zero: shows that both sides are in step. */
static void add_read(struct dialog *d, uint64_t cookie)
{
	client_request(&d->client, 0, READ, cookie, PEER_DISK - 3, 3);
	server_reply(&d->server, 0, cookie);
	blob_add(&d->server, "z", (size_t)3);
}

static void feed_request(struct peer *peer, uint16_t type, uint64_t cookie, uint64_t offset,
			 uint32_t length)
{
	struct blob client = {0};

	client_request(&client, 0, type, cookie, offset, length);
	if (type == WRITE)
		blob_add(&client, "p", (size_t)length, (int)cookie);
	assert_int_equal(peer_feed(peer, client.data, client.size), client.size);
	blob_free(&client);
}

static void expect_sent(struct peer *peer, struct blob *server)
{
	assert_int_equal(peer->out.size, server->size);
	assert_memory_equal(peer->out.data, server->data, server->size);
	peer->out.size = server->size = 0;
}

static void is_open(struct peer *peer)
{
	assert_int_equal(nbd_device_state(peer->device), NBD_DEVICE_HEADER);
	assert_int_equal(nbd_device_in_flight(peer->device), 0);
}

static void nothing_was_handed(struct peer *peer)
{
	is_open(peer);
	assert_int_equal(peer->handled, 1); /* the read at the end */
}

static void is_drained(struct peer *peer)
{
	assert_int_equal(nbd_device_state(peer->device), NBD_DEVICE_DRAINED);
	assert_string_equal(nbd_device_reason(peer->device), "");
}

static void has_failed(struct peer *peer)
{
	assert_int_equal(nbd_device_state(peer->device), NBD_DEVICE_FAILED);
	assert_string_not_equal(nbd_device_reason(peer->device), "");
}

/* ---- commands ---- */

static void all_were_handed(struct peer *peer)
{
	is_open(peer);
	assert_int_equal(peer->flushes, 1);
	assert_int_equal(peer->trims, 1);
	assert_int_equal(peer->caches, 1);
	assert_int_equal(peer->zeroes, 2);
}

static void test_every_command_is_served_at_any_offset_and_length(void **state)
{
	struct dialog d = {0};

	add_write(&d, 0x0102030405060708ull, 1, 1, 1);
	server_reply(&d.server, 0, 0x0102030405060708ull);
	add_write(&d, UINT64_MAX, 4095, 33, 2);
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
	play(&d, NULL, all_were_handed);
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
		play(&d, NULL, is_open);
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
	add_read(&d, 9);
	play(&d, NULL, nothing_was_handed);
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
		add_read(&d, 1000);
		play(&d, &options, nothing_was_handed);
	}
}

static void test_refused_write_consumes_a_whole_request_as_payload(void **state)
{
	struct dialog d = {0};

	client_request(&d.client, 0, WRITE, 1, PEER_DISK, 28);
	client_request(&d.client, 0, DISC, 2, 0, 0);
	server_reply(&d.server, ENOSPC_ON_WIRE, 1);
	add_read(&d, 3);
	play(&d, NULL, nothing_was_handed);
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
	play(&d, &options, is_open);
}

static void test_maximum_binds_reads_and_writes_only(void **state)
{
	struct peer_options options = {.export = {.block_maximum = 4}};
	struct dialog d = {0};

	add_write(&d, 1, 0, 5, 1);
	server_reply(&d.server, EINVAL_ON_WIRE, 1);
	add_write(&d, 2, 0, 4, 1);
	server_reply(&d.server, 0, 2);
	client_request(&d.client, 0, READ, 3, 0, 5);
	server_reply(&d.server, EINVAL_ON_WIRE, 3);
	client_request(&d.client, 0, ZEROES, 4, 0, PEER_DISK);
	server_reply(&d.server, 0, 4);
	client_request(&d.client, 0, TRIM, 5, 0, PEER_DISK);
	server_reply(&d.server, 0, 5);
	play(&d, &options, is_open);
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
	expect_sent(&peer, &server);
	for (uint64_t left = UINT32_MAX; left > 0;) {
		struct slice in = {.data = junk,
				   .size = (uint32_t)min_of(left, sizeof(junk) + 0ull)};
		assert_int_equal(nbd_device_feed(peer.device, in), in.size);
		left -= in.size;
	}
	feed_request(&peer, FLUSH, 2, 0, 0);
	server_reply(&server, 0, 2);
	expect_sent(&peer, &server);
	assert_int_equal(peer.handled, 1);
	peer_done(&peer);
	blob_free(&client);
	blob_free(&server);
}

static void test_bad_magic_is_a_hard_disconnect(void **state)
{
	struct dialog d = {0};

	add_read(&d, 1);
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
		has_failed(&peer);
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
		expect_sent(&peer, &server);
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
	feed_request(&peer, READ, 1, 0, 4096);
	feed_request(&peer, READ, 2, 0, 4);
	peer_answer(&peer, 0, -EIO);
	peer_answer(&peer, 0, 0);
	peer_send(&peer);
	server_reply(&server, EIO_ON_WIRE, 1);
	server_reply(&server, 0, 2);
	blob_add(&server, "z", (size_t)4);
	expect_sent(&peer, &server);
	peer_done(&peer);
	blob_free(&server);
}

/* ---- many in flight ---- */

static void test_replies_go_out_in_the_order_they_are_given(void **state)
{
	struct peer_options options = {.holds_requests = true, .send_max = 3};
	struct blob server = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 40; i++)
		feed_request(&peer, WRITE, i, i * 16, 16);
	assert_int_equal(nbd_device_in_flight(peer.device), 40);
	unsigned woken = peer.woken;
	for (uint64_t i = 0; i < 40; i++) {
		peer_answer(&peer, peer.held_count - 1, 0);
		server_reply(&server, 0, 39 - i);
		assert_int_equal(peer.woken, woken + 1); /* once: there is something to send */
	}
	peer_send(&peer);
	expect_sent(&peer, &server);
	peer_done(&peer);
	blob_free(&server);
}

static void test_replies_are_gathered_in_one_call(void **state)
{
	struct peer_options options = {.holds_requests = true};
	struct iovec iov[64];
	struct peer peer;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 40; i++)
		feed_request(&peer, FLUSH, i, 0, 0);
	while (peer.held_count)
		peer_answer(&peer, 0, 0);
	assert_int_equal(nbd_device_output(peer.device, iov, 64), 40);
	assert_int_equal(nbd_device_output(peer.device, iov, 7), 7);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(iov[i < 7 ? i : 6].iov_len, 16);
		if (i == 39)
			nbd_device_sent(peer.device, 40 * 16);
	}
	assert_int_equal(nbd_device_in_flight(peer.device), 0);
	peer_done(&peer);
}

static void test_requests_beyond_the_limit_stop_the_input(void **state)
{
	struct peer_options options = {.holds_requests = true, .limits = {.in_flight_max = 2}};
	struct blob client = {0};

	for (uint64_t i = 0; i < 5; i++) {
		client_request(&client, 0, WRITE, i, 0, 3);
		blob_add(&client, "s", "abc");
	}
	client_request(&client, 0x8000, WRITE, 5, 0, 2); /* refused, but it needs room too */
	blob_add(&client, "s", "ab");
	for (size_t step = 1; step <= client.size; step += step < 70 ? 1 : 50) {
		struct peer peer;
		size_t at = 0;
		peer_init_device(&peer, &options);
		while (at < client.size) {
			size_t n = min_of(step, client.size - at);
			unsigned woken = peer.woken;
			size_t taken = peer_feed(&peer, client.data + at, n);
			at += taken;
			assert_true(peer.held_count <= 2);
			if (taken == n)
				continue;
			assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_BLOCKED);
			peer_answer(&peer, 0, 0);
			peer_send(&peer);
			assert_true(peer.woken > woken);
		}
		while (peer.held_count) {
			peer_answer(&peer, 0, 0);
			peer_send(&peer);
			peer_feed(&peer, NULL, 0);
			nbd_device_feed(peer.device, (struct slice){0});
			peer_send(&peer);
		}
		assert_int_equal(peer.handled, 5);
		assert_int_equal(peer.out.size, 6 * 16);
		is_open(&peer);
		peer_done(&peer);
	}
	blob_free(&client);
}

static void test_bytes_beyond_the_limit_stop_the_input_but_one_request_always_passes(void **state)
{
	struct peer_options options = {.holds_requests = true,
				       .limits = {.in_flight_bytes_max = 100}};
	struct blob client = {0};
	struct peer peer;

	client_request(&client, 0, READ, 1, 0, 4096);
	client_request(&client, 0, READ, 2, 0, 60);
	client_request(&client, 0, FLUSH, 3, 0, 0);
	client_request(&client, 0, READ, 4, 0, 60);
	peer_init_device(&peer, &options);
	assert_int_equal(peer_feed(&peer, client.data, client.size), 56);
	assert_int_equal(peer.held_count, 1);
	peer_answer(&peer, 0, 0);
	peer_send(&peer);
	assert_int_equal(peer_feed(&peer, client.data + 56, client.size - 56), 56);
	assert_int_equal(peer.held_count, 2);
	/* Room is made by a reply that was sent, not by one that was given. */
	peer.is_muted = true;
	peer_answer(&peer, 0, 0);
	nbd_device_feed(peer.device, (struct slice){0});
	assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_BLOCKED);
	peer.is_muted = false;
	unsigned woken = peer.woken;
	peer_send(&peer);
	assert_true(peer.woken > woken); /* there is room: feed again */
	nbd_device_feed(peer.device, (struct slice){0});
	assert_int_equal(peer.held_count, 2);
	peer_done(&peer);
	blob_free(&client);
}

/* ---- payload without copies ---- */

static void test_payload_in_one_slice_is_not_copied(void **state)
{
	struct peer_options options = {.holds_requests = true};
	struct blob client = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 3; i++) {
		client_request(&client, 0, WRITE, i, 0, 1000);
		blob_add(&client, "p", (size_t)1000, (int)i);
	}
	struct buffer *buffer = buffer_new(peer.host.buffers, 8192);
	memcpy(buffer->data, client.data, client.size);
	assert_int_equal(nbd_device_feed(peer.device, slice_of(buffer, 0, (uint32_t)client.size)),
			 client.size);
	assert_int_equal(buffer->refs, 4);
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(peer.held[i]->payload.data, buffer->data + i * 1028 + 28);
	assert_int_equal(nbd_device_stats(peer.device)->copied, 0);
	while (peer.held_count)
		peer_answer(&peer, 0, 0);
	assert_int_equal(buffer->refs, 1);
	buffer_put(buffer);
	peer_done(&peer);
	blob_free(&client);
}

static void test_missing_payload_is_received_in_place(void **state)
{
	struct peer_options options = {.holds_requests = true};
	struct blob client = {0};
	struct iovec iov;
	struct peer peer;

	client_request(&client, 0, WRITE, 1, 0, 40000);
	blob_add(&client, "p", (size_t)40000, 1);
	peer_init_device(&peer, &options);
	assert_false(nbd_device_want(peer.device, &iov));
	peer_feed(&peer, client.data, 28 + 100);
	assert_true(nbd_device_want(peer.device, &iov));
	assert_int_equal(iov.iov_len, 39900);
	assert_int_equal((uintptr_t)iov.iov_base % BUFFER_ALIGN, 100);
	memcpy(iov.iov_base, client.data + 128, 30000);
	nbd_device_filled(peer.device, 30000);
	assert_true(nbd_device_want(peer.device, &iov));
	assert_int_equal(iov.iov_len, 9900);
	memcpy(iov.iov_base, client.data + 30128, 9900);
	nbd_device_filled(peer.device, 9900);
	assert_false(nbd_device_want(peer.device, &iov));
	assert_int_equal(peer.held_count, 1);
	assert_int_equal(peer.held[0]->payload.size, 40000);
	assert_memory_equal(peer.held[0]->payload.data, client.data + 28, 40000);
	assert_int_equal(nbd_device_stats(peer.device)->copied, 100);
	peer_done(&peer);
	blob_free(&client);
}

static unsigned placed;

static int place_in_static_memory(struct nbd_request *request, struct slice *out)
{
	static uint8_t memory[64];

	placed++;
	if (request->cookie == 2)
		return -ENOMEM;
	*out = (struct slice){.data = memory, .size = (uint32_t)request->length};
	return 0;
}

static int refuse_odd_offsets(struct nbd_request *request)
{
	return request->offset % 2 ? -EACCES : 0;
}

static void replace_callbacks(struct nbd_callbacks *callbacks)
{
	callbacks->read_payload = place_in_static_memory;
	callbacks->read_request = refuse_odd_offsets;
}

static void test_embedder_places_payload_and_refuses_early(void **state)
{
	struct peer_options options = {.callbacks = replace_callbacks};
	struct dialog d = {0};

	add_write(&d, 1, 0, 10, 1);
	server_reply(&d.server, 0, 1);
	add_write(&d, 2, 0, 10, 2); /* no memory for it */
	server_reply(&d.server, ENOMEM_ON_WIRE, 2);
	add_write(&d, 3, 1, 10, 3);
	server_reply(&d.server, EPERM_ON_WIRE, 3);
	client_request(&d.client, 0, READ, 4, 0, 10);
	server_reply(&d.server, 0, 4);
	blob_add(&d.server, "p", (size_t)10, 1);
	placed = 0;
	play(&d, &options, is_open);
	assert_true(placed > 0);
}

static unsigned lent;

static struct nbd_request *lend_request(struct nbd_device *device, size_t size)
{
	static _Alignas(64) uint8_t memory[1024];

	assert_true(size <= sizeof(memory));
	return lent++ == 0 ? (void *)memory : NULL;
}

static void take_request_back(struct nbd_device *device, struct nbd_request *request)
{
	lent = 0;
}

static void lend_requests(struct nbd_callbacks *callbacks)
{
	callbacks->alloc_request = lend_request;
	callbacks->free_request = take_request_back;
	lent = 0;
}

/* One request of memory is enough: the input waits, nothing fails. */
static void test_embedder_lends_memory_of_requests(void **state)
{
	struct peer_options options = {.callbacks = lend_requests, .limits = {.private_size = 100}};
	struct dialog d = {0};

	for (uint64_t i = 0; i < 4; i++)
		add_read(&d, i);
	play(&d, &options, is_open);
}

static void test_private_bytes_are_the_embedders(void **state)
{
	struct peer_options options = {.holds_requests = true, .limits = {.private_size = 100}};
	struct peer peer;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 40; i++) {
		feed_request(&peer, FLUSH, i, 0, 0);
		uint8_t *bytes = nbd_request_private(peer.held[i]);
		assert_int_equal((uintptr_t)bytes % 16, 0);
		memset(bytes, (int)i, 100);
	}
	for (unsigned i = 0; i < 40; i++)
		for (unsigned n = 0; n < 100; n++)
			assert_int_equal(((uint8_t *)nbd_request_private(peer.held[i]))[n], i);
	peer_done(&peer);
}

static void test_steady_state_does_not_allocate(void **state)
{
	struct peer_options options = {.holds_requests = true};
	static uint8_t out[1 << 20];
	struct blob client = {0};
	struct peer peer;
	unsigned before = 0;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 64; i++) {
		client_request(&client, 0, i % 2 ? READ : WRITE, i, 0, 4096);
		if (!(i % 2))
			blob_add(&client, "p", (size_t)4096, (int)i);
	}
	peer.out = (struct blob){.data = __real_malloc(sizeof(out)), .room = sizeof(out)};
	for (int round = 0; round < 50; round++) {
		if (round == 2)
			before = allocations;
		peer.out.size = 0;
		/* In pieces that cut requests, so that payload is received in place, too. */
		for (size_t at = 0; at < client.size; at += 10000)
			peer_feed(&peer, client.data + at, min_of(client.size - at, (size_t)10000));
		assert_int_equal(peer.held_count, 64);
		while (peer.held_count)
			peer_answer(&peer, peer.held_count / 2, 0);
		peer_send(&peer);
	}
	assert_int_equal(allocations, before);
	assert_true(before > 0);
	assert_int_equal(peer.handled, 50 * 64);
	peer_done(&peer);
	blob_free(&client);
}

/* ---- long and sliced replies ---- */

static struct slice many[9];

static void reply_in_slices(struct nbd_request *request)
{
	struct peer *peer = nbd_device_handle(request->device);
	unsigned count = request->cookie % 2 ? 9 : 3;
	uint32_t each = (uint32_t)request->length / count;

	peer->handled++;
	for (unsigned i = 0; i < count; i++) {
		struct buffer *buffer = buffer_new(peer->host.buffers, each);
		memset(buffer->data, 'a' + (int)i, each);
		many[i] = slice_of(buffer, 0, each);
	}
	nbd_request_reply(request, 0, many, count);
}

static void slice_replies(struct nbd_callbacks *callbacks)
{
	callbacks->handle_request = reply_in_slices;
}

static void test_reads_are_answered_with_many_slices(void **state)
{
	for (uint64_t cookie = 0; cookie < 2; cookie++) {
		struct peer_options options = {.callbacks = slice_replies};
		struct dialog d = {0};
		client_request(&d.client, 0, READ, cookie, 0, 18);
		server_reply(&d.server, 0, cookie);
		blob_add(&d.server, "s", cookie ? "aabbccddeeffgghhii" : "aaaaaabbbbbbcccccc");
		play(&d, &options, is_open);
	}
}

/* ---- ends ---- */

/* Others drop the replies, or answer what was queued with ESHUTDOWN. */
static void test_disc_and_half_close_leave_requests_in_flight_answered(void **state)
{
	for (int is_disc = 0; is_disc < 2; is_disc++) {
		struct peer_options options = {.holds_requests = true};
		struct blob server = {0};
		struct peer peer;
		peer_init_device(&peer, &options);
		feed_request(&peer, WRITE, 1, 0, 4);
		feed_request(&peer, READ, 2, 0, 4);
		if (is_disc)
			feed_request(&peer, DISC, 3, 0, 0);
		else
			peer_eof(&peer);
		assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_DRAINING);
		feed_request(&peer, FLUSH, 4, 0, 0); /* dropped */
		assert_int_equal(peer.held_count, 2);
		peer_answer(&peer, 0, 0);
		peer_send(&peer);
		assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_DRAINING);
		peer_answer(&peer, 0, 0);
		peer_send(&peer);
		is_drained(&peer);
		server_reply(&server, 0, 1);
		server_reply(&server, 0, 2);
		blob_add(&server, "p", (size_t)4, 1);
		expect_sent(&peer, &server);
		assert_int_equal(peer.closed, 0);
		peer_done(&peer);
		blob_free(&server);
	}
}

static void test_disc_with_odd_fields_still_ends(void **state)
{
	struct dialog d = {0};

	add_read(&d, 1);
	client_request(&d.client, 0xffff, DISC, 2, 77, 88);
	blob_add(&d.client, "s", "anything");
	play(&d, NULL, is_drained);
}

/* A write reaches the backend whole or not at all. */
static void test_client_that_vanishes_in_a_request_leaves_nothing(void **state)
{
	struct blob client = {0};

	client_request(&client, 0, WRITE, 1, 0, 50);
	blob_add(&client, "p", (size_t)50, 1);
	for (int in_place = 0; in_place < 2; in_place++)
		for (size_t cut = 0; cut <= client.size; cut++) {
			struct peer_options options = {.in_place = in_place};
			struct peer peer;
			peer_init_device(&peer, &options);
			peer_feed(&peer, client.data, min_of(cut, (size_t)40));
			if (cut > 40)
				peer_feed(&peer, client.data + 40, cut - 40);
			peer_eof(&peer);
			bool is_boundary = cut == 0 || cut == client.size;
			assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_DRAINED);
			assert_int_equal(!*nbd_device_reason(peer.device), is_boundary);
			assert_int_equal(peer.handled, cut == client.size);
			assert_int_equal(peer.disk[0] != 0, cut == client.size);
			peer_done(&peer);
		}
	blob_free(&client);
}

static void test_half_close_while_blocked_still_serves_the_waiting_request(void **state)
{
	struct peer_options options = {.holds_requests = true, .limits = {.in_flight_max = 1}};
	struct blob client = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	client_request(&client, 0, FLUSH, 1, 0, 0);
	client_request(&client, 0, FLUSH, 2, 0, 0);
	assert_int_equal(peer_feed(&peer, client.data, client.size), client.size);
	assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_BLOCKED);
	peer_eof(&peer);
	peer_answer(&peer, 0, 0);
	peer_send(&peer);
	nbd_device_feed(peer.device, (struct slice){0});
	assert_int_equal(peer.held_count, 1);
	assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_DRAINING);
	peer_answer(&peer, 0, 0);
	peer_send(&peer);
	is_drained(&peer);
	assert_int_equal(peer.out.size, 32);
	peer_done(&peer);
	blob_free(&client);
}

static void test_lost_connection_waits_for_the_backend_and_closes_once(void **state)
{
	struct peer_options options = {.holds_requests = true};
	struct peer peer;

	peer_init_device(&peer, &options);
	feed_request(&peer, READ, 1, 0, 4);
	feed_request(&peer, WRITE, 2, 0, 4);
	feed_request(&peer, READ, 3, 0, 4);
	peer.is_muted = true;
	peer_answer(&peer, 0, 0); /* its reply is never sent */
	nbd_device_close(peer.device);
	assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_CLOSED);
	assert_int_equal(peer.dropped, 1);
	assert_int_equal(peer.closed, 0);
	peer_answer(&peer, 1, 0);
	assert_int_equal(peer.closed, 0);
	unsigned woken = peer.woken;
	peer_answer(&peer, 0, 0);
	assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_GONE);
	assert_true(peer.woken > woken);
	assert_int_equal(peer.closed, 1);
	assert_int_equal(peer.dropped, 3);
	assert_int_equal(peer.disk[0], pattern_byte(2, 0)); /* the write happened, unanswered */
	nbd_device_close(peer.device);
	assert_int_equal(peer.closed, 1);
	peer_done(&peer);
}

static void test_shutdown_refuses_new_requests_and_finishes_old_ones(void **state)
{
	struct peer_options options = {.holds_requests = true};
	struct blob server = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	feed_request(&peer, READ, 1, 0, 4);
	nbd_device_shutdown(peer.device);
	assert_true(nbd_device_is_open(peer.device));
	feed_request(&peer, WRITE, 2, 0, 4);
	feed_request(&peer, FLUSH, 3, 0, 0);
	server_reply(&server, ESHUTDOWN_ON_WIRE, 2);
	server_reply(&server, ESHUTDOWN_ON_WIRE, 3);
	expect_sent(&peer, &server);
	peer_answer(&peer, 0, 0);
	peer_send(&peer);
	server_reply(&server, 0, 1);
	blob_add(&server, "z", (size_t)4);
	expect_sent(&peer, &server);
	is_drained(&peer);
	assert_int_equal(peer.handled, 1);
	peer_done(&peer);

	/* In the middle of a payload that is being received in place: its memory stays. */
	peer_init_device(&peer, NULL);
	struct blob client = {0};
	struct iovec iov;
	client_request(&client, 0, WRITE, 1, 0, 4096);
	peer_feed(&peer, client.data, client.size);
	assert_true(nbd_device_want(peer.device, &iov));
	nbd_device_shutdown(peer.device);
	is_drained(&peer);
	memset(iov.iov_base, 1, iov.iov_len);
	nbd_device_filled(peer.device, iov.iov_len);
	assert_int_equal(peer.handled, 0);
	peer_done(&peer);
	blob_free(&client);
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
	play(&d, &options, is_open);
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
		cmocka_unit_test(test_replies_go_out_in_the_order_they_are_given),
		cmocka_unit_test(test_replies_are_gathered_in_one_call),
		cmocka_unit_test(test_requests_beyond_the_limit_stop_the_input),
		cmocka_unit_test(
			test_bytes_beyond_the_limit_stop_the_input_but_one_request_always_passes),
		cmocka_unit_test(test_payload_in_one_slice_is_not_copied),
		cmocka_unit_test(test_missing_payload_is_received_in_place),
		cmocka_unit_test(test_embedder_places_payload_and_refuses_early),
		cmocka_unit_test(test_embedder_lends_memory_of_requests),
		cmocka_unit_test(test_private_bytes_are_the_embedders),
		cmocka_unit_test(test_steady_state_does_not_allocate),
		cmocka_unit_test(test_reads_are_answered_with_many_slices),
		cmocka_unit_test(test_disc_and_half_close_leave_requests_in_flight_answered),
		cmocka_unit_test(test_disc_with_odd_fields_still_ends),
		cmocka_unit_test(test_client_that_vanishes_in_a_request_leaves_nothing),
		cmocka_unit_test(test_half_close_while_blocked_still_serves_the_waiting_request),
		cmocka_unit_test(test_lost_connection_waits_for_the_backend_and_closes_once),
		cmocka_unit_test(test_shutdown_refuses_new_requests_and_finishes_old_ones),
		cmocka_unit_test(test_commands_of_an_embedder_need_their_negotiation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
