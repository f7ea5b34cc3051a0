/*
 * The client's transmission (proto.md, Transmission): calls out, replies in.
 *
 * A call waits, is sent, is answered and is done; answered may come before sent is over (a server
 * may refuse a write while its data is still on the way), so `done` runs when both are true: until
 * then its memory may be in use.
 *
 *   input: HEADER --reply with data--> DATA --all there--> HEADER      any --nonsense--> FAILED
 *
 * Replies are found by their cookie: the number of a slot in the table of outstanding calls and the
 * slot's round. A cookie that names no outstanding call ends the connection.
 */
#include "lib/nbd/nbd_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

#define IN_FLIGHT 64u

enum client_state {
	CLIENT_HEADER,
	CLIENT_DATA,
	CLIENT_FAILED,
	CLIENT_CLOSED,
	CLIENT_STATE_COUNT,
};

static const uint8_t next_states[CLIENT_STATE_COUNT] = {
	[CLIENT_HEADER] = BIT(CLIENT_DATA) | BIT(CLIENT_FAILED) | BIT(CLIENT_CLOSED),
	[CLIENT_DATA] = BIT(CLIENT_HEADER) | BIT(CLIENT_CLOSED),
	[CLIENT_FAILED] = BIT(CLIENT_CLOSED),
};

struct slot {
	struct nbd_call *call; /* NULL: free */
	uint32_t round;
	uint32_t next_free;
};

enum goodbye { GOODBYE_NONE, GOODBYE_ASKED, GOODBYE_QUEUED, GOODBYE_SENT };

struct nbd_client {
	struct nbd_host *host;
	struct nbd_remote remote;
	enum client_state state;
	enum goodbye goodbye;
	const char *why;
	uint32_t outstanding; /* given and not done */
	uint32_t slot_count, first_free;
	/* input */
	uint8_t header[sizeof(struct nbd_simple_reply)];
	uint32_t used;
	struct nbd_call *current; /* in DATA */
	uint32_t data_used;
	/* output */
	struct cds_list_head waiting; /* for a slot */
	struct cds_list_head sending;
	size_t sent; /* bytes of the first one that have gone */
	struct nbd_call disc;
	struct slot slots[];
};

/* The only place that writes client->state. */
static void enter(struct nbd_client *client, enum client_state next)
{
	assert(next_states[client->state] & BIT(next));
	client->state = next;
}

static void fail(struct nbd_client *client, const char *why)
{
	client->why = why;
	enter(client, CLIENT_FAILED);
	client->host->wake(client->host);
}

/* ---- calls out ---- */

static uint64_t cookie_of(const struct nbd_client *client, uint32_t slot)
{
	return (uint64_t)client->slots[slot].round << 32 | slot;
}

static void queue(struct nbd_client *client, struct nbd_call *call, uint64_t cookie)
{
	call->header = (struct nbd_request_header){
		.magic = to_be32(NBD_REQUEST_MAGIC),
		.flags = to_be16(call->flags),
		.type = to_be16(call->type),
		.cookie = to_be64(cookie),
		.offset = to_be64(call->offset),
		.length = to_be32(call->length),
	};
	if (cds_list_empty(&client->sending))
		client->host->wake(client->host);
	cds_list_add_tail(&call->link, &client->sending);
}

/* Give slots to those who wait; then say goodbye, if nobody is left. */
static void advance(struct nbd_client *client)
{
	while (!cds_list_empty(&client->waiting) && client->first_free != UINT32_MAX) {
		struct nbd_call *call =
			cds_list_first_entry(&client->waiting, struct nbd_call, link);
		struct slot *slot = &client->slots[client->first_free];
		call->slot = client->first_free;
		client->first_free = slot->next_free;
		slot->call = call;
		slot->round++;
		cds_list_del(&call->link);
		queue(client, call, cookie_of(client, call->slot));
	}
	if (client->goodbye == GOODBYE_ASKED && client->outstanding == 0) {
		client->goodbye = GOODBYE_QUEUED;
		queue(client, &client->disc, 0);
	}
}

static int check_call(const struct nbd_client *client, const struct nbd_call *call)
{
	const struct nbd_remote *remote = &client->remote;
	const struct nbd_command *command = NULL;

	for (const struct nbd_command *row = nbd_standard_commands; row->name; row++)
		if (row->number == call->type)
			command = row;
	if (!command || (command->traits & NBD_COMMAND_ENDS))
		return -EOPNOTSUPP;
	if ((command->traits & NBD_COMMAND_WRITES) && (remote->flags & NBD_FLAG_READ_ONLY))
		return -EPERM;
	if ((remote->flags & command->needs) != command->needs)
		return -EOPNOTSUPP;
	if ((call->flags & NBD_CMD_FLAG_FUA) && !(remote->flags & NBD_FLAG_SEND_FUA))
		return -EOPNOTSUPP;
	if ((command->traits & NBD_COMMAND_RANGE) &&
	    (call->length == 0 || !range_is_within(call->offset, call->length, remote->size)))
		return -EINVAL;
	if ((command->traits & NBD_COMMAND_BOUNDED) && call->length > remote->block_maximum)
		return -EINVAL;
	return 0;
}

int nbd_client_call(struct nbd_client *client, struct nbd_call *call)
{
	int rc = check_call(client, call);

	assert(client->goodbye == GOODBYE_NONE);
	if (client->state >= CLIENT_FAILED)
		return -E_CLOSED;
	if (rc < 0)
		return rc;
	call->is_sent = call->is_answered = false;
	call->result = 0;
	client->outstanding++;
	cds_list_add_tail(&call->link, &client->waiting);
	advance(client);
	return 0;
}

void nbd_client_disconnect(struct nbd_client *client)
{
	if (client->goodbye != GOODBYE_NONE || client->state >= CLIENT_FAILED)
		return;
	client->goodbye = GOODBYE_ASKED;
	advance(client);
}

/* A call that was sent whole and answered. */
static void finish_if_over(struct nbd_client *client, struct nbd_call *call)
{
	if (!call->is_sent || !call->is_answered)
		return;
	struct slot *slot = &client->slots[call->slot];
	slot->call = NULL;
	slot->next_free = client->first_free;
	client->first_free = call->slot;
	client->outstanding--;
	call->done(call, call->result);
	advance(client);
}

static size_t size_of_call(const struct nbd_call *call)
{
	return sizeof(call->header) + (call->type == NBD_CMD_WRITE ? call->length : 0);
}

unsigned nbd_client_output(struct nbd_client *client, struct iovec *iov, unsigned max)
{
	size_t skip = client->sent;
	unsigned count = 0;
	struct nbd_call *call;

	if (client->state >= CLIENT_FAILED)
		return 0;
	cds_list_for_each_entry(call, &client->sending, link) {
		uint32_t parts = call->type == NBD_CMD_WRITE ? call->slice_count : 0;
		for (uint32_t i = 0; i <= parts && count < max; i++) {
			uint8_t *at = i ? call->slices[i - 1].data : (uint8_t *)&call->header;
			size_t size = i ? call->slices[i - 1].size : sizeof(call->header);
			size_t gone = min_of(skip, size);
			skip -= gone;
			if (gone == size)
				continue;
			iov[count].iov_base = at + gone;
			iov[count++].iov_len = size - gone;
		}
		if (count == max)
			break;
	}
	return count;
}

void nbd_client_sent(struct nbd_client *client, size_t bytes)
{
	client->sent += bytes;
	while (!cds_list_empty(&client->sending)) {
		struct nbd_call *call =
			cds_list_first_entry(&client->sending, struct nbd_call, link);
		if (client->sent < size_of_call(call))
			break;
		client->sent -= size_of_call(call);
		cds_list_del(&call->link);
		call->is_sent = true;
		if (call == &client->disc)
			client->goodbye = GOODBYE_SENT;
		else
			finish_if_over(client, call);
	}
}

/* ---- replies in ---- */

/* What proto.md allows a server to say; anything else is an I/O error to us. */
static int rc_of_error(uint32_t error)
{
	static const uint8_t known[] = {NBD_EPERM,  NBD_EIO,	   NBD_ENOMEM,	NBD_EINVAL,
					NBD_ENOSPC, NBD_EOVERFLOW, NBD_ENOTSUP, NBD_ESHUTDOWN};

	for (size_t i = 0; i < ARRAY_COUNT(known); i++)
		if (known[i] == error)
			return -(int)error; /* the numbers are those of Linux */
	return error ? -EIO : 0;
}
_Static_assert(NBD_ENOTSUP == EOPNOTSUPP && NBD_ESHUTDOWN == ESHUTDOWN, "Linux");
_Static_assert(NBD_EOVERFLOW == EOVERFLOW && NBD_ENOSPC == ENOSPC, "Linux");

static void answered(struct nbd_client *client, struct nbd_call *call, int result)
{
	call->is_answered = true;
	call->result = result;
	finish_if_over(client, call);
}

static void on_reply(struct nbd_client *client)
{
	const struct nbd_simple_reply *reply = (const void *)client->header;
	uint64_t cookie = from_be64(reply->cookie);
	uint32_t slot = (uint32_t)cookie;
	int rc = rc_of_error(from_be32(reply->error));

	client->used = 0;
	if (from_be32(reply->magic) != NBD_SIMPLE_REPLY_MAGIC) {
		fail(client, "a reply without its magic number");
		return;
	}
	if (slot >= client->slot_count || !client->slots[slot].call ||
	    cookie_of(client, slot) != cookie || client->slots[slot].call->is_answered) {
		fail(client, "a reply to nothing that was asked");
		return;
	}
	struct nbd_call *call = client->slots[slot].call;
	if (call->type == NBD_CMD_READ && rc == 0) {
		client->current = call;
		client->data_used = 0;
		enter(client, CLIENT_DATA);
	} else {
		answered(client, call, rc);
	}
}

void nbd_client_feed(struct nbd_client *client, const void *data, size_t size)
{
	const uint8_t *at = data;

	while (size > 0 && client->state < CLIENT_FAILED) {
		struct iovec into = {client->header + client->used,
				     sizeof(client->header) - client->used};
		bool is_data = nbd_client_want(client, &into);
		size_t n = min_of(size, into.iov_len);
		memcpy(into.iov_base, at, n);
		at += n;
		size -= n;
		if (is_data) {
			nbd_client_filled(client, n);
			continue;
		}
		client->used += (uint32_t)n;
		if (client->used == sizeof(client->header))
			on_reply(client);
	}
}

bool nbd_client_want(struct nbd_client *client, struct iovec *out)
{
	if (client->state != CLIENT_DATA)
		return false;
	out->iov_base = (uint8_t *)client->current->into + client->data_used;
	out->iov_len = client->current->length - client->data_used;
	return true;
}

void nbd_client_filled(struct nbd_client *client, size_t bytes)
{
	struct nbd_call *call = client->current;

	assert(client->state == CLIENT_DATA && bytes <= call->length - client->data_used);
	client->data_used += (uint32_t)bytes;
	if (client->data_used < call->length)
		return;
	client->current = NULL;
	enter(client, CLIENT_HEADER);
	answered(client, call, 0);
}

/* ---- life ---- */

struct nbd_client *nbd_client_new(const struct nbd_remote *remote, uint32_t in_flight_max,
				  struct nbd_host *host)
{
	uint32_t count = in_flight_max ? in_flight_max : IN_FLIGHT;
	struct nbd_client *client = calloc(1, sizeof(*client) + count * sizeof(struct slot));

	if (!client)
		return NULL;
	client->host = host;
	client->remote = *remote;
	client->why = "";
	client->slot_count = count;
	for (uint32_t i = 0; i < count; i++)
		client->slots[i].next_free = i + 1 < count ? i + 1 : UINT32_MAX;
	client->disc.type = NBD_CMD_DISC;
	CDS_INIT_LIST_HEAD(&client->waiting);
	CDS_INIT_LIST_HEAD(&client->sending);
	return client;
}

void nbd_client_free(struct nbd_client *client)
{
	if (!client)
		return;
	assert(client->state == CLIENT_CLOSED && client->outstanding == 0);
	free(client);
}

void nbd_client_close(struct nbd_client *client)
{
	if (client->state == CLIENT_CLOSED)
		return;
	enter(client, CLIENT_CLOSED);
	client->current = NULL;
	CDS_INIT_LIST_HEAD(&client->sending);
	for (uint32_t i = 0; i < client->slot_count; i++) {
		struct nbd_call *call = client->slots[i].call;
		client->slots[i].call = NULL;
		if (!call)
			continue;
		client->outstanding--;
		/* An answer that had come is an answer. */
		call->done(call, call->is_answered ? call->result : -E_CLOSED);
	}
	while (!cds_list_empty(&client->waiting)) {
		struct nbd_call *call =
			cds_list_first_entry(&client->waiting, struct nbd_call, link);
		cds_list_del(&call->link);
		client->outstanding--;
		call->done(call, -E_CLOSED);
	}
}

int nbd_client_error(const struct nbd_client *client, const char **why)
{
	if (why)
		*why = client->why;
	return client->state == CLIENT_FAILED ? -E_PROTOCOL : 0;
}

bool nbd_client_is_finished(const struct nbd_client *client)
{
	return client->goodbye == GOODBYE_SENT;
}

uint32_t nbd_client_in_flight(const struct nbd_client *client)
{
	return client->outstanding;
}
