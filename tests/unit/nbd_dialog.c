#include "tests/unit/nbd_dialog.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- negotiation ---- */

struct dialog dialog_of(uint32_t flags)
{
	struct dialog d = {0};

	server_greeting(&d.server);
	client_hello(&d.client, flags);
	return d;
}

void dialog_play_listener(struct dialog *d, const struct peer_options *options,
			  void (*check)(struct peer *peer))
{
	check_transcript(options, false, &d->client, &d->server, check);
	blob_free(&d->client);
	blob_free(&d->server);
}

/* The tail that shows that both sides are still in step: ABORT and its ACK. */
void dialog_abort(struct dialog *d)
{
	client_option(&d->client, 2, NULL, 0);
	server_option(&d->server, 2, 1, NULL, 0);
}

void listener_is_closed(struct peer *peer)
{
	assert_int_equal(nbd_listener_state(peer->listener), NBD_LISTENER_CLOSED);
	assert_null(peer->device);
}

void listener_is_closed_by_rule(struct peer *peer)
{
	listener_is_closed(peer);
	assert_string_equal(nbd_listener_reason(peer->listener), "");
}

void listener_is_dropped(struct peer *peer)
{
	listener_is_closed(peer);
	assert_string_not_equal(nbd_listener_reason(peer->listener), "");
	assert_int_equal(peer->opened, peer->closed);
}

void listener_is_negotiated(struct peer *peer)
{
	assert_int_equal(nbd_listener_state(peer->listener), NBD_LISTENER_DONE);
}

void info_was_closed(struct peer *peer)
{
	listener_is_closed_by_rule(peer);
	assert_int_equal(peer->opened, 1);
	assert_int_equal(peer->closed, 1);
}

/* ---- transmission ---- */

void dialog_play_device(struct dialog *d, const struct peer_options *options,
			void (*check)(struct peer *peer))
{
	check_transcript(options, true, &d->client, &d->server, check);
	blob_free(&d->client);
	blob_free(&d->server);
}

void dialog_write(struct dialog *d, uint64_t cookie, uint64_t offset, size_t size, int number)
{
	client_request(&d->client, 0, WRITE, cookie, offset, (uint32_t)size);
	blob_add(&d->client, "p", size, number);
}

/* A read of what is still zero: shows that both sides are in step. */
void dialog_read(struct dialog *d, uint64_t cookie)
{
	client_request(&d->client, 0, READ, cookie, PEER_DISK - 3, 3);
	server_reply(&d->server, 0, cookie);
	blob_add(&d->server, "z", (size_t)3);
}

void peer_feed_request(struct peer *peer, uint16_t type, uint64_t cookie, uint64_t offset,
		       uint32_t length)
{
	struct blob client = {0};

	client_request(&client, 0, type, cookie, offset, length);
	if (type == WRITE)
		blob_add(&client, "p", (size_t)length, (int)cookie);
	assert_int_equal(peer_feed(peer, client.data, client.size), client.size);
	blob_free(&client);
}

void peer_expect_sent(struct peer *peer, struct blob *server)
{
	assert_int_equal(peer->out.size, server->size);
	assert_memory_equal(peer->out.data, server->data, server->size);
	peer->out.size = server->size = 0;
}

void device_is_open(struct peer *peer)
{
	assert_int_equal(nbd_device_state(peer->device), NBD_DEVICE_HEADER);
	assert_int_equal(nbd_device_in_flight(peer->device), 0);
}

void nothing_was_handed(struct peer *peer)
{
	device_is_open(peer);
	assert_int_equal(peer->handled, 1); /* the read at the end */
}

void device_is_drained(struct peer *peer)
{
	assert_int_equal(nbd_device_state(peer->device), NBD_DEVICE_DRAINED);
	assert_string_equal(nbd_device_reason(peer->device), "");
}

void device_has_failed(struct peer *peer)
{
	assert_int_equal(nbd_device_state(peer->device), NBD_DEVICE_FAILED);
	assert_string_not_equal(nbd_device_reason(peer->device), "");
}
