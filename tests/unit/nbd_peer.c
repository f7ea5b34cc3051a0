#include "tests/unit/nbd_peer.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

/* ---- bytes ---- */

void blob_append(struct blob *blob, const void *data, size_t size)
{
	if (blob->size + size > blob->room) {
		blob->room = (blob->size + size) * 2;
		blob->data = realloc(blob->data, blob->room);
		assert(blob->data);
	}
	if (size > 0)
		memcpy(blob->data + blob->size, data, size);
	blob->size += size;
}

void blob_free(struct blob *blob)
{
	free(blob->data);
	*blob = (struct blob){0};
}

uint8_t pattern_byte(int number, size_t index)
{
	return (uint8_t)((unsigned)number * 37u + index * 11u + index / 251u + 1u);
}

static void add_number(struct blob *blob, unsigned size, uint64_t value)
{
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> 8 * (size - 1 - i));
		blob_append(blob, &byte, 1);
	}
}

static void add_run(struct blob *blob, size_t size, bool is_zero, int number)
{
	for (size_t i = 0; i < size; i++) {
		uint8_t byte = is_zero ? 0 : pattern_byte(number, i);
		blob_append(blob, &byte, 1);
	}
}

void blob_add(struct blob *blob, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	for (const char *at = format; *at; at++) {
		if (*at >= '1' && *at <= '8') {
			add_number(blob, (unsigned)(*at - '0'), va_arg(ap, uint64_t));
		} else if (*at == 's') {
			const char *string = va_arg(ap, const char *);
			blob_append(blob, string, strlen(string));
		} else if (*at == 'z') {
			add_run(blob, va_arg(ap, size_t), true, 0);
		} else if (*at == 'p') {
			size_t size = va_arg(ap, size_t);
			add_run(blob, size, false, va_arg(ap, int));
		} else {
			assert(*at == ' ');
		}
	}
	va_end(ap);
}

/* The numbers below are the specification's, not include/proto/nbd.h's: two hands, one protocol. */

void client_hello(struct blob *blob, uint32_t flags)
{
	blob_add(blob, "4", (uint64_t)flags);
}

void client_option(struct blob *blob, uint32_t option, const void *data, size_t size)
{
	blob_add(blob, "8 4 4", 0x49484156454f5054ull, (uint64_t)option, (uint64_t)size);
	blob_append(blob, data, size);
}

void client_go(struct blob *blob, uint32_t option, const char *name, unsigned infos, ...)
{
	struct blob data = {0};
	va_list ap;

	blob_add(&data, "4 s 2", (uint64_t)strlen(name), name, (uint64_t)infos);
	va_start(ap, infos);
	for (unsigned i = 0; i < infos; i++)
		blob_add(&data, "2", (uint64_t)va_arg(ap, int));
	va_end(ap);
	client_option(blob, option, data.data, data.size);
	blob_free(&data);
}

void client_request(struct blob *blob, uint16_t flags, uint16_t type, uint64_t cookie,
		    uint64_t offset, uint32_t length)
{
	blob_add(blob, "4 2 2 8 8 4", 0x25609513ull, (uint64_t)flags, (uint64_t)type, cookie,
		 offset, (uint64_t)length);
}

void server_greeting(struct blob *blob)
{
	blob_add(blob, "s s 2", "NBDMAGIC", "IHAVEOPT", 3ull);
}

void server_option(struct blob *blob, uint32_t option, uint32_t type, const void *data, size_t size)
{
	blob_add(blob, "8 4 4 4", 0x3e889045565a9ull, (uint64_t)option, (uint64_t)type,
		 (uint64_t)size);
	blob_append(blob, data, size);
}

void server_text(struct blob *blob, uint32_t option, uint32_t type, const char *text)
{
	server_option(blob, option, type, text, strlen(text));
}

void server_info_export(struct blob *blob, uint32_t option, uint64_t size, uint16_t flags)
{
	server_option(blob, option, 3, NULL, 0);
	blob->size -= 4;
	blob_add(blob, "4 2 8 2", 12ull, 0ull, size, (uint64_t)flags);
}

void server_info_block_size(struct blob *blob, uint32_t option, uint32_t minimum,
			    uint32_t preferred, uint32_t maximum)
{
	server_option(blob, option, 3, NULL, 0);
	blob->size -= 4;
	blob_add(blob, "4 2 4 4 4", 14ull, 3ull, (uint64_t)minimum, (uint64_t)preferred,
		 (uint64_t)maximum);
}

void server_reply(struct blob *blob, uint32_t error, uint64_t cookie)
{
	blob_add(blob, "4 4 8", 0x67446698ull, (uint64_t)error, cookie);
}

/* ---- the backend ---- */

static void on_wake(struct nbd_host *host)
{
	struct peer *peer = container_of_type(host, struct peer, host);

	peer->woken++;
}

static void on_open(struct nbd_listener *listener, const char *name, enum nbd_open_purpose purpose)
{
	struct peer *peer = nbd_listener_context(listener);

	if (!peer->options.opens_later)
		peer_open_now(peer);
}

void peer_open_now(struct peer *peer)
{
	struct nbd_export export = peer->options.export;

	export.handle = peer;
	if (peer->options.open_rc == 0)
		peer->opened++;
	nbd_listener_open_done(peer->listener, peer->options.open_rc,
			       peer->options.open_rc ? NULL : &export, peer->options.open_text);
}

static void on_list(struct nbd_listener *listener, uint64_t *cursor)
{
	struct peer *peer = nbd_listener_context(listener);

	peer->list_cursor = cursor;
	if (!peer->options.lists_later)
		peer_list_now(peer);
}

void peer_list_now(struct peer *peer)
{
	static const char *const only[] = {"disk", NULL};
	const char *const *names = peer->options.names ? peer->options.names : only;
	int rc = 0;

	for (; names[*peer->list_cursor]; (*peer->list_cursor)++) {
		rc = nbd_listener_list_add(peer->listener, names[*peer->list_cursor],
					   peer->options.export.description);
		if (rc == -EAGAIN)
			return;
		if (rc == -E2BIG)
			break;
	}
	nbd_listener_list_done(peer->listener, rc == -EINVAL ? 0 : rc, NULL);
}

static void on_cancel(struct nbd_listener *listener)
{
	((struct peer *)nbd_listener_context(listener))->cancelled++;
}

static void on_close(void *context, void *handle)
{
	struct peer *peer = context;

	assert(handle == peer);
	peer->closed++;
}

static void answer_read(struct peer *peer, struct nbd_request *request)
{
	uint32_t size = (uint32_t)request->length;
	struct buffer *buffer = buffer_new(peer->host.buffers, size);

	assert(buffer);
	memcpy(buffer->data, peer->disk + request->offset, size);
	struct slice data = slice_of(buffer, 0, size);
	nbd_request_reply(request, 0, &data, 1);
}

static void answer(struct peer *peer, struct nbd_request *request)
{
	uint8_t *at = peer->disk + request->offset;

	if (request->type == NBD_CMD_READ) {
		answer_read(peer, request);
		return;
	}
	if (request->type == NBD_CMD_WRITE)
		memcpy(at, request->payload.data, request->payload.size);
	if (request->type == NBD_CMD_WRITE_ZEROES)
		memset(at, 0, request->length);
	peer->flushes += request->type == NBD_CMD_FLUSH;
	peer->trims += request->type == NBD_CMD_TRIM;
	peer->caches += request->type == NBD_CMD_CACHE;
	peer->zeroes += request->type == NBD_CMD_WRITE_ZEROES;
	nbd_request_reply(request, 0, NULL, 0);
}

static void on_request(struct nbd_request *request)
{
	struct peer *peer = nbd_device_handle(request->device);

	peer->handled++;
	peer->last_flags = request->flags;
	if (!peer->options.holds_requests) {
		answer(peer, request);
		return;
	}
	assert(peer->held_count < PEER_HELD_MAX);
	peer->held[peer->held_count++] = request;
}

void peer_answer(struct peer *peer, unsigned index, int rc)
{
	struct nbd_request *request = peer->held[index];

	assert(index < peer->held_count);
	peer->held_count--;
	memmove(peer->held + index, peer->held + index + 1,
		(peer->held_count - index) * sizeof(*peer->held));
	if (rc)
		nbd_request_reply(request, rc, NULL, 0);
	else
		answer(peer, request);
}

static void on_reply_done(struct nbd_request *request, int result)
{
	struct peer *peer = nbd_device_handle(request->device);

	peer->done++;
	peer->dropped += result != 0;
}

/* ---- the peer ---- */

static void init_common(struct peer *peer, const struct peer_options *options)
{
	struct nbd_callbacks callbacks = {
		.handle_request = on_request,
		.open = on_open,
		.list = on_list,
		.cancel = on_cancel,
		.close = on_close,
		.reply_done = on_reply_done,
	};

	*peer = (struct peer){0};
	if (options)
		peer->options = *options;
	if (!peer->options.export.size)
		peer->options.export.size = PEER_DISK;
	if (!peer->options.export.flags)
		peer->options.export.flags = PEER_FLAGS;
	if (peer->options.callbacks)
		peer->options.callbacks(&callbacks);
	peer->server = nbd_server_new(&callbacks, &peer->options.limits);
	assert(peer->server);
	if (peer->options.tune)
		peer->options.tune(peer->server);
	peer->disk = calloc(1, PEER_DISK);
	assert(peer->disk);
	peer->host = (struct nbd_host){
		.wake = on_wake,
		.buffers = buffer_cache_new(1 << 20),
		.context = peer,
	};
}

void peer_init(struct peer *peer, const struct peer_options *options)
{
	init_common(peer, options);
	peer->listener = nbd_listener_new(peer->server, &peer->host);
	assert(peer->listener);
}

void peer_init_device(struct peer *peer, const struct peer_options *options)
{
	init_common(peer, options);
	const struct nbd_export *export = &peer->options.export;
	struct nbd_session session = {
		.size = export->size,
		.flags = export->flags | NBD_FLAG_HAS_FLAGS,
		.block_minimum = export->block_minimum ? export->block_minimum : 1,
		.block_maximum = export->block_maximum ? export->block_maximum : 32 << 20,
		.handle = peer,
	};
	peer->opened++;
	peer->device = nbd_device_new(peer->server, &session, &peer->host);
	assert(peer->device);
}

void peer_done(struct peer *peer)
{
	nbd_listener_free(peer->listener);
	if (peer->device) {
		nbd_device_close(peer->device);
		while (peer->held_count > 0)
			peer_answer(peer, 0, -EIO);
		assert(nbd_device_state(peer->device) == NBD_DEVICE_GONE);
		nbd_device_free(peer->device);
	}
	assert(peer->opened == peer->closed);
	assert(peer->done == peer->handled);
	assert(buffer_cache_busy(peer->host.buffers) == 0);
	buffer_cache_free(peer->host.buffers);
	nbd_server_free(peer->server);
	blob_free(&peer->out);
	free(peer->disk);
}

static unsigned output(struct peer *peer, struct iovec *iov, unsigned max)
{
	unsigned count = 0;

	if (peer->listener)
		count = nbd_listener_output(peer->listener, iov, max);
	if (count == 0 && peer->device)
		count = nbd_device_output(peer->device, iov, max);
	return count;
}

void peer_send(struct peer *peer)
{
	struct iovec iov[7];
	unsigned count;

	while (!peer->is_muted && (count = output(peer, iov, ARRAY_COUNT(iov))) > 0) {
		bool is_listener =
			peer->listener && nbd_listener_output(peer->listener, iov, 1) > 0;
		size_t max = peer->options.send_max ? peer->options.send_max : SIZE_MAX;
		size_t sent = 0;
		count = output(peer, iov, ARRAY_COUNT(iov));
		for (unsigned i = 0; i < count && sent < max; i++) {
			size_t n = min_of(iov[i].iov_len, max - sent);
			assert(n > 0);
			blob_append(&peer->out, iov[i].iov_base, n);
			sent += n;
		}
		if (is_listener)
			nbd_listener_sent(peer->listener, sent);
		else
			nbd_device_sent(peer->device, sent);
	}
}

/* One step; 0: nothing moves. */
static size_t feed_device(struct peer *peer, const uint8_t *data, size_t size)
{
	struct iovec in_place;

	if (peer->options.in_place && nbd_device_want(peer->device, &in_place)) {
		size_t n = min_of(in_place.iov_len, size);
		memcpy(in_place.iov_base, data, n);
		nbd_device_filled(peer->device, n);
		return n;
	}
	/* As a host would: in a buffer of its own, of which payload may become a part. */
	struct buffer *buffer = buffer_new(peer->host.buffers, (uint32_t)size);
	assert(buffer);
	memcpy(buffer->data, data, size);
	size_t n = nbd_device_feed(peer->device, slice_of(buffer, 0, (uint32_t)size));
	if (buffer->refs == 1) /* what is not kept must not be looked at any more */
		memset(buffer->data, 0xee, size);
	buffer_put(buffer);
	return n;
}

static size_t feed_once(struct peer *peer, const uint8_t *data, size_t size)
{
	if (peer->listener && nbd_listener_state(peer->listener) != NBD_LISTENER_DONE)
		return nbd_listener_feed(peer->listener, data, size);
	if (!peer->device) {
		peer->device = nbd_listener_start_device(peer->listener);
		assert(peer->device);
	}
	return feed_device(peer, data, size);
}

size_t peer_feed(struct peer *peer, const void *data, size_t size)
{
	const uint8_t *at = data;
	size_t left = size;
	unsigned idle = 0;

	/* Twice without progress: output was sent in between and did not help. */
	while (left > 0 && idle < 2) {
		size_t n = feed_once(peer, at, left);
		at += n;
		left -= n;
		idle = n ? 0 : idle + 1;
		peer_send(peer);
	}
	peer_send(peer);
	/* The last header may wait for room that the replies above have made. */
	if (peer->device && nbd_device_state(peer->device) == NBD_DEVICE_BLOCKED) {
		(void)nbd_device_feed(peer->device, (struct slice){0});
		peer_send(peer);
	}
	return size - left;
}

void peer_eof(struct peer *peer)
{
	if (peer->listener)
		nbd_listener_eof(peer->listener);
	if (peer->device)
		nbd_device_eof(peer->device);
	peer_send(peer);
}

/* ---- transcripts ---- */

static void run(const struct peer_options *options, bool starts_in_transmission,
		const struct blob *client, const struct blob *server,
		void (*check)(struct peer *peer), size_t split, size_t step)
{
	struct peer peer;

	if (starts_in_transmission)
		peer_init_device(&peer, options);
	else
		peer_init(&peer, options);
	peer_send(&peer);
	for (size_t at = 0; at < client->size;) {
		size_t end = at < split ? split : client->size;
		size_t n = min_of(end - at, step);
		assert_int_equal(peer_feed(&peer, client->data + at, n), n);
		at += n;
	}
	/* What came out first tells more than a difference of sizes. */
	size_t common = min_of(peer.out.size, server->size);
	assert_memory_equal(peer.out.data, server->data, common);
	assert_int_equal(peer.out.size, server->size);
	if (check)
		check(&peer);
	peer_done(&peer);
}

void check_transcript(const struct peer_options *options, bool starts_in_transmission,
		      const struct blob *client, const struct blob *server,
		      void (*check)(struct peer *peer))
{
	struct peer_options variant = options ? *options : (struct peer_options){0};

	for (int in_place = 0; in_place < 2; in_place++) {
		variant.in_place = in_place;
		variant.send_max = 0;
		run(&variant, starts_in_transmission, client, server, check, 0, SIZE_MAX);
		run(&variant, starts_in_transmission, client, server, check, 0, 1);
		for (size_t split = 1; split < client->size; split++)
			run(&variant, starts_in_transmission, client, server, check, split,
			    SIZE_MAX);
		variant.send_max = 1;
		run(&variant, starts_in_transmission, client, server, check, 0, SIZE_MAX);
		variant.send_max = 5;
		run(&variant, starts_in_transmission, client, server, check, 0, 7);
	}
}
