/* Many requests under way in transmission, and its ends: what is answered still, and what is left behind. */
#include "tests/unit/nbd_dialog.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/size.h"

/* ---- many in flight ---- */

static void test_replies_go_out_in_the_order_they_are_given(void **state)
{
	struct peer_options options = {.holds_requests = true, .send_max = 3};
	struct blob server = {0};
	struct peer peer;

	peer_init_device(&peer, &options);
	for (uint64_t i = 0; i < 40; i++)
		peer_feed_request(&peer, WRITE, i, i * 16, 16);
	assert_int_equal(nbd_device_in_flight(peer.device), 40);
	unsigned woken = peer.woken;
	for (uint64_t i = 0; i < 40; i++) {
		peer_answer(&peer, peer.held_count - 1, 0);
		server_reply(&server, 0, 39 - i);
		assert_int_equal(peer.woken, woken + 1); /* once: there is something to send */
	}
	peer_send(&peer);
	peer_expect_sent(&peer, &server);
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
		peer_feed_request(&peer, FLUSH, i, 0, 0);
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
		device_is_open(&peer);
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

/* ---- ends ---- */

/* Others drop the replies, or answer what was queued with ESHUTDOWN. */
static void test_disc_and_half_close_leave_requests_in_flight_answered(void **state)
{
	for (int is_disc = 0; is_disc < 2; is_disc++) {
		struct peer_options options = {.holds_requests = true};
		struct blob server = {0};
		struct peer peer;
		peer_init_device(&peer, &options);
		peer_feed_request(&peer, WRITE, 1, 0, 4);
		peer_feed_request(&peer, READ, 2, 0, 4);
		if (is_disc)
			peer_feed_request(&peer, DISC, 3, 0, 0);
		else
			peer_eof(&peer);
		assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_DRAINING);
		peer_feed_request(&peer, FLUSH, 4, 0, 0); /* dropped */
		assert_int_equal(peer.held_count, 2);
		peer_answer(&peer, 0, 0);
		peer_send(&peer);
		assert_int_equal(nbd_device_state(peer.device), NBD_DEVICE_DRAINING);
		peer_answer(&peer, 0, 0);
		peer_send(&peer);
		device_is_drained(&peer);
		server_reply(&server, 0, 1);
		server_reply(&server, 0, 2);
		blob_add(&server, "p", (size_t)4, 1);
		peer_expect_sent(&peer, &server);
		assert_int_equal(peer.closed, 0);
		peer_done(&peer);
		blob_free(&server);
	}
}

static void test_disc_with_odd_fields_still_ends(void **state)
{
	struct dialog d = {0};

	dialog_read(&d, 1);
	client_request(&d.client, 0xffff, DISC, 2, 77, 88);
	blob_add(&d.client, "s", "anything");
	dialog_play_device(&d, NULL, device_is_drained);
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
	device_is_drained(&peer);
	assert_int_equal(peer.out.size, 32);
	peer_done(&peer);
	blob_free(&client);
}

static void test_lost_connection_waits_for_the_backend_and_closes_once(void **state)
{
	struct peer_options options = {.holds_requests = true};
	struct peer peer;

	peer_init_device(&peer, &options);
	peer_feed_request(&peer, READ, 1, 0, 4);
	peer_feed_request(&peer, WRITE, 2, 0, 4);
	peer_feed_request(&peer, READ, 3, 0, 4);
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
	peer_feed_request(&peer, READ, 1, 0, 4);
	nbd_device_shutdown(peer.device);
	assert_true(nbd_device_is_open(peer.device));
	peer_feed_request(&peer, WRITE, 2, 0, 4);
	peer_feed_request(&peer, FLUSH, 3, 0, 0);
	server_reply(&server, ESHUTDOWN_ON_WIRE, 2);
	server_reply(&server, ESHUTDOWN_ON_WIRE, 3);
	peer_expect_sent(&peer, &server);
	peer_answer(&peer, 0, 0);
	peer_send(&peer);
	server_reply(&server, 0, 1);
	blob_add(&server, "z", (size_t)4);
	peer_expect_sent(&peer, &server);
	device_is_drained(&peer);
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
	device_is_drained(&peer);
	memset(iov.iov_base, 1, iov.iov_len);
	nbd_device_filled(peer.device, iov.iov_len);
	assert_int_equal(peer.handled, 0);
	peer_done(&peer);
	blob_free(&client);
	blob_free(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replies_go_out_in_the_order_they_are_given),
		cmocka_unit_test(test_replies_are_gathered_in_one_call),
		cmocka_unit_test(test_requests_beyond_the_limit_stop_the_input),
		cmocka_unit_test(
			test_bytes_beyond_the_limit_stop_the_input_but_one_request_always_passes),
		cmocka_unit_test(test_disc_and_half_close_leave_requests_in_flight_answered),
		cmocka_unit_test(test_disc_with_odd_fields_still_ends),
		cmocka_unit_test(test_client_that_vanishes_in_a_request_leaves_nothing),
		cmocka_unit_test(test_half_close_while_blocked_still_serves_the_waiting_request),
		cmocka_unit_test(test_lost_connection_waits_for_the_backend_and_closes_once),
		cmocka_unit_test(test_shutdown_refuses_new_requests_and_finishes_old_ones),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
