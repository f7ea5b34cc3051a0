/*
 * Outside bytes into the NBD listener and device.
 *
 * LLVMFuzzerTestOneInput() plays one input: 16 bytes of control (how the server is set up, how the
 * stream is cut, when the backend answers), then what the client sends. Whatever that is, nothing
 * may crash, leak, get stuck with input that it could take, or close an export twice: the peer of
 * tests/unit checks that at its end. With -fsanitize=fuzzer and -DFUZZ_ENGINE it is a libFuzzer
 * target; else main() plays generated dialogs, some of them damaged, from a seed:
 *
 *   fuzz_nbd_server [ROUNDS [SEED]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/unit/nbd_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CONTROL 16u

enum mode { /* bits of control[0] */
	    MODE_TRANSMISSION = 1u << 0,
	    MODE_HOLDS = 1u << 1,
	    MODE_IN_PLACE = 1u << 2,
	    MODE_LATER = 1u << 3,
	    MODE_READ_ONLY = 1u << 4,
	    MODE_TIGHT = 1u << 5,
	    MODE_FAILS = 1u << 6,
	    MODE_MUTED = 1u << 7,
};

static struct peer_options options_of(uint8_t mode)
{
	struct peer_options options = {
		.export = {.flags = PEER_FLAGS | NBD_FLAG_SEND_FAST_ZERO, .description = "d"},
		.holds_requests = mode & MODE_HOLDS,
		.in_place = mode & MODE_IN_PLACE,
		.opens_later = mode & MODE_LATER,
		.lists_later = mode & MODE_LATER,
		.open_rc = mode & MODE_FAILS ? -ENOENT : 0,
		.send_max = mode & MODE_TIGHT ? 9 : 0,
	};

	if (mode & MODE_READ_ONLY)
		options.export.flags |= NBD_FLAG_READ_ONLY;
	if (mode & MODE_TIGHT)
		options.limits = (struct nbd_limits){.in_flight_max = 3,
						     .in_flight_bytes_max = 9000,
						     .payload_max = 8192,
						     .options_max = 20,
						     .option_bytes_max = 10000,
						     .list_max = 1};
	return options;
}

/* What the backend or the operator does between two pieces of input. */
static void happen(struct peer *peer, uint8_t event)
{
	bool is_negotiating = peer->listener && !peer->device;
	enum nbd_listener_state state =
		is_negotiating ? nbd_listener_state(peer->listener) : NBD_LISTENER_DONE;

	if (state == NBD_LISTENER_OPENING && event % 2)
		peer_open_now(peer);
	else if (state == NBD_LISTENER_LISTING && event % 2 && peer->list_cursor)
		peer_list_now(peer);
	else if (peer->held_count > 0 && event % 4)
		peer_answer(peer, event % peer->held_count, event % 16 == 1 ? -EIO : 0);
	else if (event == 0xfe && peer->device)
		nbd_device_shutdown(peer->device);
	else if (event == 0xfd && is_negotiating)
		nbd_listener_shutdown(peer->listener);
	else if (event == 0xfc)
		peer_eof(peer);
	peer->is_muted = event == 0xfb;
	peer_send(peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct peer peer;

	if (size < CONTROL)
		return 0;
	const uint8_t *control = data;
	struct peer_options options = options_of(control[0]);
	if (control[0] & MODE_TRANSMISSION)
		peer_init_device(&peer, &options);
	else
		peer_init(&peer, &options);
	peer_send(&peer);
	size_t at = CONTROL, turns = 0;
	/* The bound is for input that is held back: each turn may or may not make room. */
	while (at < size && turns < 4 * size) {
		uint8_t cut = control[1 + turns % 7];
		size_t n = min_of(size - at, cut == 0xff ? size : 1 + (size_t)cut * cut / 16);
		at += peer_feed(&peer, data + at, n);
		happen(&peer, (uint8_t)(control[8 + turns % 8] + (turns / 8) * 7));
		turns++;
	}
	if (control[1] & 1)
		peer_eof(&peer);
	peer_done(&peer);
	return 0;
}

#ifndef FUZZ_ENGINE

static void add_option(struct blob *blob, struct random *random)
{
	static const uint32_t numbers[] = {1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12, 0x53460001};
	uint32_t number = numbers[random_below(random, ARRAY_COUNT(numbers))];
	char name[64] = "disk";

	if (number == 6 || number == 7) {
		client_go(blob, number, random_below(random, 4) ? name : "", 2, 3, 1);
		return;
	}
	client_option(blob, number, name, number == 3 ? 0 : random_below(random, sizeof(name)));
}

static void add_request(struct blob *blob, struct random *random)
{
	static const uint16_t flags[] = {0, 0, 0, 0, 1, 2, 16, 4, 0x8000};
	uint16_t type = (uint16_t)random_below(random, 10);
	uint64_t offset = random_below(random, PEER_DISK + 100);
	uint32_t length = (uint32_t)random_below(random, random_below(random, 8) ? 64 : 9000);

	if (type == 2 && random_below(random, 4))
		type = 1;
	client_request(blob, flags[random_below(random, ARRAY_COUNT(flags))], type,
		       random_u64(random), type == 3 ? 0 : offset, type == 3 ? 0 : length);
	if (type == 1)
		blob_add(blob, "p", (size_t)length, (int)offset);
}

static void add_dialog(struct blob *blob, struct random *random, uint8_t mode)
{
	if (!(mode & MODE_TRANSMISSION)) {
		client_hello(blob, (uint32_t)random_below(random, 4));
		for (uint64_t i = random_below(random, 6); i > 0; i--)
			add_option(blob, random);
		client_go(blob, 7, "disk", 0);
	}
	for (uint64_t i = random_below(random, 30); i > 0; i--)
		add_request(blob, random);
}

static void damage(struct blob *blob, struct random *random)
{
	for (uint64_t i = random_below(random, 5); i > 0 && blob->size > CONTROL; i--) {
		size_t at = CONTROL + random_below(random, blob->size - CONTROL);
		if (random_below(random, 3))
			blob->data[at] ^= (uint8_t)(1u << random_below(random, 8));
		else if (random_below(random, 2))
			blob->data[at] = (uint8_t)random_u64(random);
		else
			blob->size = at;
	}
}

int main(int argc, char **argv)
{
	uint64_t rounds = 20000, seed = 1;
	struct blob blob = {0};
	struct random random;

	if ((argc > 1 && text_parse_u64(argv[1], UINT64_MAX, &rounds) < 0) ||
	    (argc > 2 && text_parse_u64(argv[2], UINT64_MAX, &seed) < 0)) {
		fprintf(stderr, "usage: fuzz_nbd_server [ROUNDS [SEED]]\n");
		return 2;
	}
	printf("%" PRIu64 " rounds from seed %" PRIu64 "\n", rounds, seed);
	random_init(&random, seed);
	for (uint64_t i = 0; i < rounds; i++) {
		blob.size = 0;
		for (unsigned n = 0; n < CONTROL; n++)
			blob_add(&blob, "1", random_u64(&random) & 0xff);
		if (random_below(&random, 8))
			add_dialog(&blob, &random, blob.data[0]);
		else
			for (uint64_t n = random_below(&random, 300); n > 0; n--)
				blob_add(&blob, "1", random_u64(&random) & 0xff);
		if (random_below(&random, 2))
			damage(&blob, &random);
		(void)LLVMFuzzerTestOneInput(blob.data, blob.size);
	}
	blob_free(&blob);
	return 0;
}

#endif
