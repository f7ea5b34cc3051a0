/* The outbox: what is sent is what was put in, in whatever portions the socket takes it. */
#include "tests/unit/wire_frames.h"

enum { MESSAGES = 200 };

struct sender {
	struct wire_outbox outbox;
	struct wire_message messages[MESSAGES];
	struct slice slices[MESSAGES][5];
	unsigned sent;
};

static void on_sent(struct wire_outbox *outbox, struct wire_message *message)
{
	struct sender *sender = container_of_type(outbox, struct sender, outbox);

	assert_ptr_equal(message, &sender->messages[sender->sent]);
	wire_message_done(message);
	sender->sent++;
}

/* Whatever a send takes at a time, the bytes are those of the frames in their order. */
static void test_output_in_any_portion_is_the_same_bytes(void **state)
{
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct sender *sender = calloc(1, sizeof(*sender));
	struct random random;
	uint8_t *want = malloc(8 << 20), *have = malloc(8 << 20), *data = malloc(1 << 20);

	for (unsigned round = 0; round < 20; round++) {
		size_t want_size = 0, have_size = 0;
		random_init(&random, round + 1);
		wire_outbox_init(&sender->outbox, on_sent);
		sender->sent = 0;
		for (unsigned i = 0; i < MESSAGES; i++) {
			struct test_frame frame = {
				.op = 1,
				.request = i + 1,
				.body_size = (uint32_t)random_below(&random, i % 7 ? 64 : 4097),
				.payload_size = (uint32_t)random_below(&random, i % 5 ? 1 : 20000),
			};
			uint8_t *at = want + want_size;
			want_size += test_encode(at, &frame, i);
			uint32_t count = 0;
			for (uint32_t from = 0; from < frame.payload_size; count++) {
				uint32_t part = count == 4 ? frame.payload_size - from
							   : frame.payload_size / 4;
				part = max_of(min_of(part, frame.payload_size - from), 1u);
				sender->slices[i][count] = (struct slice){
					.data = at + FRAME_HEADER_SIZE + frame.body_size + from,
					.size = part,
				};
				from += part;
			}
			struct wire_message_spec spec = {
				.magic = FRAME_MAGIC_PEER,
				.op = 1,
				.request = 1,
				.body = at + FRAME_HEADER_SIZE,
				.body_size = frame.body_size,
				.slices = sender->slices[i],
				.slice_count = count,
			};
			assert_int_equal(wire_message_init(&sender->messages[i], cache, &spec), 0);
			wire_message_set_request(&sender->messages[i], frame.request);
			wire_outbox_add(&sender->outbox, &sender->messages[i]);
		}
		assert_int_equal(sender->outbox.queued_bytes, want_size);
		for (;;) {
			struct iovec iov[16];
			unsigned max = 1 + (unsigned)random_below(&random, 16);
			uint64_t bytes = 1 + random_below(&random, round % 2 ? 100 : 100000);
			unsigned count = wire_outbox_output(&sender->outbox, iov, max, bytes);
			assert_true(count <= max);
			if (count == 0)
				break;
			size_t before = have_size;
			for (unsigned i = 0; i < count; i++) {
				memcpy(have + have_size, iov[i].iov_base, iov[i].iov_len);
				have_size += iov[i].iov_len;
			}
			assert_true(have_size - before <= bytes);
			wire_outbox_sent(&sender->outbox);
			assert_int_equal(sender->outbox.queued_bytes, want_size - have_size);
		}
		assert_int_equal(sender->sent, MESSAGES);
		assert_int_equal(have_size, want_size);
		assert_memory_equal(have, want, want_size);
		assert_int_equal(buffer_cache_busy(cache), 0);
	}
	free(want);
	free(have);
	free(data);
	free(sender);
	buffer_cache_free(cache);
}

static void on_sent_freely(struct wire_outbox *outbox, struct wire_message *message)
{
	struct sender *sender = container_of_type(outbox, struct sender, outbox);

	sender->sent++;
}

/* A message may be forgotten once a send has all of it, and not before. */
static void test_only_what_was_handed_over_can_be_forgotten(void **state)
{
	struct buffer_cache *cache = buffer_cache_new(1 << 20);
	struct sender *sender = calloc(1, sizeof(*sender));
	struct wire_message_spec spec = {.magic = FRAME_MAGIC_PEER, .op = 1, .request = 1};
	struct wire_message *messages = sender->messages;
	struct iovec iov[8];

	wire_outbox_init(&sender->outbox, on_sent_freely);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(wire_message_init(&messages[i], cache, &spec), 0);
		wire_outbox_add(&sender->outbox, &messages[i]);
	}
	assert_false(wire_outbox_forget(&sender->outbox, &messages[0]));
	/* Two and a half go out. */
	assert_int_equal(wire_outbox_output(&sender->outbox, iov, 8, 160), 3);
	assert_true(wire_outbox_forget(&sender->outbox, &messages[1]));
	assert_false(wire_outbox_forget(&sender->outbox, &messages[2]));
	assert_false(wire_outbox_forget(&sender->outbox, &messages[3]));
	wire_outbox_sent(&sender->outbox);
	assert_int_equal(sender->sent, 1); /* the first; the second was forgotten */
	assert_true(wire_outbox_forget(&sender->outbox, &messages[0]));
	assert_int_equal(sender->outbox.queued_bytes, 4 * 64 - 160);
	/* The stream dies in the middle of the third. */
	assert_int_equal(wire_outbox_output(&sender->outbox, iov, 8, 1000), 2);
	assert_int_equal(iov[0].iov_len, 32);
	assert_ptr_equal(wire_outbox_drop(&sender->outbox), &messages[2]);
	assert_ptr_equal(wire_outbox_drop(&sender->outbox), &messages[3]);
	assert_null(wire_outbox_drop(&sender->outbox));
	assert_int_equal(sender->outbox.queued_bytes, 0);
	free(sender);
	buffer_cache_free(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_in_any_portion_is_the_same_bytes),
		cmocka_unit_test(test_only_what_was_handed_over_can_be_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
