#include "tests/sim/raw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/proto/peer.h"
#include "lib/base/size.h"

static bool is_answered(void *context)
{
	return ((const struct raw *)context)->is_done;
}

static void on_done(struct pg_io *io, int result)
{
	struct raw *raw = container_of_type(io, struct raw, io);

	raw->is_done = true;
	raw->result = result;
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct raw *raw = container_of_type(mail, struct raw, mail);

	pg_submit(raw->set, &raw->io);
}

struct raw *raw_begin(struct herd *herd, enum pg_io_kind kind, uint64_t session, uint64_t number,
		      uint64_t lowest, uint8_t fill)
{
	unsigned node = (unsigned)herd_primary(herd, 0);
	struct cluster_map *map = herd->nodes[node].map;
	const struct cluster_volume *volume = cluster_volume_by_name(map, HERD_VOLUME);
	struct raw *raw = calloc(1, sizeof(*raw));

	raw->set = herd->nodes[node].set;
	raw->layer = volume->layers[0];
	raw->io = (struct pg_io){.done = on_done,
				 .kind = kind,
				 .epoch = cluster_pg(map, 0)->epoch,
				 .map_index = cluster_index(map),
				 .volume = volume->id,
				 .generation = volume->generation,
				 .family = volume->family,
				 .layers = &raw->layer,
				 .layer_count = 1,
				 .length = BLOCK_SIZE,
				 .session = session,
				 .number = number,
				 .lowest = lowest};
	if (kind == PG_IO_WRITE) {
		raw->buffer = buffer_new(loop_buffers(herd->nodes[node].loop), BLOCK_SIZE);
		memset(raw->buffer->data, fill, BLOCK_SIZE);
		raw->slice = slice_of(raw->buffer, 0, BLOCK_SIZE);
		raw->io.slices = &raw->slice;
		raw->io.slice_count = 1;
	}
	raw->mail.deliver = deliver;
	loop_post(herd->nodes[node].loop, &raw->mail);
	return raw;
}

int raw_await(struct herd *herd, struct raw *raw)
{
	uint64_t until = sim_now(herd->world) + 10 * NS_PER_S;

	HERD_REQUIRE(herd, sim_world_run_until(herd->world, until, is_answered, raw));
	return raw->result;
}

void raw_free(struct raw *raw)
{
	buffer_put(raw->buffer);
	free(raw);
}

int raw_write(struct herd *herd, uint64_t session, uint64_t number, uint64_t lowest, uint8_t fill)
{
	struct raw *raw = raw_begin(herd, PG_IO_WRITE, session, number, lowest, fill);
	int result = raw_await(herd, raw);

	raw_free(raw);
	return result;
}

uint8_t raw_read(struct herd *herd)
{
	struct raw *raw = raw_begin(herd, PG_IO_READ, 0, 0, 0, 0);
	uint8_t first;

	assert_int_equal(raw_await(herd, raw), 0);
	first = raw->io.is_hole ? 0 : raw->io.data.data[0];
	if (!raw->io.is_hole)
		buffer_put(raw->io.data.buffer);
	free(raw);
	return first;
}

struct herd *raw_herd(uint64_t seed, uint32_t min_insync)
{
	const struct herd_options options = {.seed = seed,
					     .nodes = 3,
					     .copies = 3,
					     .min_insync = min_insync,
					     .pg_count = 1,
					     .volume_bytes = 2 * OBJECT_SIZE};

	return herd_new(&options);
}

void raw_heal(struct herd *herd)
{
	for (unsigned i = 0; i < herd->node_count; i++)
		if (!herd->nodes[i].is_up)
			herd_start(herd, i);
	herd_until(herd, 60000, herd_is_healthy, "healthy");
}

bool raw_is_led(struct herd *herd)
{
	struct pg_status status;
	int node = herd_primary(herd, 0);

	return node >= 0 && pg_set_status(herd->nodes[node].set, 0, 0, &status) &&
	       strcmp(status.state, "serving") == 0;
}

uint64_t raw_session(struct herd *herd, unsigned node)
{
	return peer_session_of(herd->nodes[node].session, 3);
}

unsigned raw_remembered(struct herd *herd, unsigned node, uint64_t session)
{
	struct store_request rows[64];
	uint32_t count = store_requests(herd->nodes[node].store, 0, rows, ARRAY_COUNT(rows));
	unsigned found = 0;

	for (uint32_t i = 0; i < min_of(count, (uint32_t)ARRAY_COUNT(rows)); i++)
		found += rows[i].session == session;
	return found;
}
