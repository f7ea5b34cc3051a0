#include "tests/sim/liar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "lib/base/size.h"

struct lie {
	struct net_call call;
	struct slice payload;
	bool is_done;
	int result;
};

static void on_told(struct net_call *call, int result)
{
	struct lie *lie = container_of_type(call, struct lie, call);

	lie->is_done = true;
	lie->result = result;
}

static bool is_told(void *lie)
{
	return ((struct lie *)lie)->is_done;
}

struct herd *liar_herd(uint64_t seed)
{
	const struct herd_options options = {
		.seed = seed, .nodes = 3, .copies = 3, .pg_count = 1, .volume_bytes = 8 * MIB};
	struct herd *herd = herd_new(&options);

	assert_int_equal(herd_write(herd, 0, 0, 32 * KIB), 0);
	assert_int_equal(herd_write(herd, 1, 4 * MIB, 32 * KIB), 0);
	herd_run(herd, 200);
	return herd;
}

struct liar *liar_new(struct herd *herd, unsigned victim, const struct uuid *self)
{
	static struct logger quiet = {.level = LOG_LEVEL_ERROR, .sink = log_sink_text};
	const struct loop_options loop_options = {.name = "liar", .logger = &quiet};
	const struct net_options net_options = {0};
	const struct wire_identity identity = {.cluster = *cluster_uuid(herd_map(herd)),
					       .node = *self,
					       .nonce = 1,
					       .loops = 1,
					       .incarnation = 1000};
	struct liar *liar = calloc(1, sizeof(*liar));
	struct error err;

	liar->herd = herd;
	liar->victim = victim;
	liar->store = herd->nodes[victim].store_id;
	liar->host = sim_host_new(herd->world, "liar");
	assert_int_equal(sim_loop_new(herd->world, liar->host, &loop_options, &liar->loop), 0);
	assert_int_equal(net_new(liar->loop, &net_options, &identity, &liar->net, &err), 0);
	for (unsigned c = 0; c < PEER_CLASS_COUNT; c++) {
		const struct net_link_options options = {.address = herd->nodes[victim].address,
							 .protocol = &pg_peer_protocol,
							 .class = (uint16_t)c,
							 .loop = 0,
							 .node = herd->nodes[victim].uuid};
		assert_int_equal(net_link_new(liar->net, &options, &liar->links[c], &err), 0);
	}
	liar->buffer = buffer_new(loop_buffers(liar->loop), OBJECT_SIZE + 65536);
	memset(liar->buffer->data, 0x5a, OBJECT_SIZE + 65536);
	return liar;
}

struct liar *liar_new_stranger(struct herd *herd, unsigned victim)
{
	const struct uuid stranger = uuid_make(sim_random(herd->world));

	return liar_new(herd, victim, &stranger);
}

struct liar *liar_new_impostor(struct herd *herd)
{
	unsigned primary = (unsigned)herd_primary(herd, 0);

	return liar_new(herd, (primary + 1) % 3, &herd->nodes[primary].uuid);
}

void liar_free(struct liar *liar)
{
	buffer_put(liar->buffer);
	sim_host_crash(liar->host);
	herd_bury(liar->net);
	free(liar);
}

static struct lie *lie_send(struct liar *liar, unsigned class, uint16_t op, const void *body,
			    uint32_t body_size, uint32_t payload_size)
{
	struct lie *lie = calloc(1, sizeof(*lie));

	lie->payload = slice_of(liar->buffer, 0, payload_size);
	lie->call = (struct net_call){.op = op,
				      .body = body,
				      .body_size = body_size,
				      .slices = &lie->payload,
				      .slice_count = payload_size > 0,
				      .done = on_told};
	net_link_call(liar->links[class], &lie->call);
	return lie;
}

int liar_tell(struct liar *liar, unsigned class, uint16_t op, const void *body, uint32_t body_size,
	      uint32_t payload_size)
{
	struct lie *lie = lie_send(liar, class, op, body, body_size, payload_size);
	int result;

	herd_until_so(liar->herd, 20000, is_told, lie, "an answer to a lie");
	result = lie->result;
	free(lie);
	return result;
}

void liar_drop(struct liar *liar, unsigned class, uint16_t op, const void *body, uint32_t body_size,
	       uint32_t payload_size)
{
	herd_bury(lie_send(liar, class, op, body, body_size, payload_size));
}

struct peer_append liar_append(struct herd *herd, uint32_t store)
{
	const struct cluster_pg *row = cluster_pg(herd_map(herd), 0);
	const struct cluster_volume *volume = cluster_volume_by_name(herd_map(herd), HERD_VOLUME);
	struct peer_append body = {
		.epoch = to_le64(row->epoch),
		.reign = to_le64(row->reign),
		.n = to_le64(3),
		.after = to_le64(2),
		.layer = to_le64(volume->layers[0]),
		.family = to_le64(volume->family),
		.store = to_le32(store),
		.run_count = to_le16(1),
		.block_count = to_le16(1),
	};
	struct peer_run *run = (void *)body.meta;
	le32 *crc = (void *)(body.meta + sizeof(*run));
	uint8_t block[BLOCK_SIZE];

	memset(block, 0x5a, sizeof(block));
	*run = (struct peer_run){.block = to_le16(0), .count = to_le16(1), .state = to_le16(1)};
	*crc = to_le32(crc32c(block, sizeof(block)));
	body.meta_crc = to_le32(crc32c(body.meta, sizeof(*run) + sizeof(*crc)));
	return body;
}
