/* Payload in transmission: whose memory it is received in, how replies are cut, and what is allocated. */
#include "tests/unit/count_allocations.h"
#include "tests/unit/nbd_dialog.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

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

	dialog_write(&d, 1, 0, 10, 1);
	server_reply(&d.server, 0, 1);
	dialog_write(&d, 2, 0, 10, 2); /* no memory for it */
	server_reply(&d.server, ENOMEM_ON_WIRE, 2);
	dialog_write(&d, 3, 1, 10, 3);
	server_reply(&d.server, EPERM_ON_WIRE, 3);
	client_request(&d.client, 0, READ, 4, 0, 10);
	server_reply(&d.server, 0, 4);
	blob_add(&d.server, "p", (size_t)10, 1);
	placed = 0;
	dialog_play_device(&d, &options, device_is_open);
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
		dialog_read(&d, i);
	dialog_play_device(&d, &options, device_is_open);
}

static void test_private_bytes_are_the_embedders(void **state)
{
	struct peer_options options = {.holds_requests = true, .limits = {.private_size = 100}};
	struct peer peer;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 40; i++) {
		peer_feed_request(&peer, FLUSH, i, 0, 0);
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
	unsigned long before = 0;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 64; i++) {
		client_request(&client, 0, i % 2 ? READ : WRITE, i, 0, 4096);
		if (!(i % 2))
			blob_add(&client, "p", (size_t)4096, (int)i);
	}
	peer.out = (struct blob){.data = malloc(sizeof(out)), .room = sizeof(out)};
	for (int round = 0; round < 50; round++) {
		if (round == 2)
			before = count_allocations();
		peer.out.size = 0;
		/* In pieces that cut requests, so that payload is received in place, too. */
		for (size_t at = 0; at < client.size; at += 10000)
			peer_feed(&peer, client.data + at, min_of(client.size - at, (size_t)10000));
		assert_int_equal(peer.held_count, 64);
		while (peer.held_count)
			peer_answer(&peer, peer.held_count / 2, 0);
		peer_send(&peer);
	}
	assert_int_equal(count_allocations(), before);
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
		dialog_play_device(&d, &options, device_is_open);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_payload_in_one_slice_is_not_copied),
		cmocka_unit_test(test_missing_payload_is_received_in_place),
		cmocka_unit_test(test_embedder_places_payload_and_refuses_early),
		cmocka_unit_test(test_embedder_lends_memory_of_requests),
		cmocka_unit_test(test_private_bytes_are_the_embedders),
		cmocka_unit_test(test_steady_state_does_not_allocate),
		cmocka_unit_test(test_reads_are_answered_with_many_slices),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
