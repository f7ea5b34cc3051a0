/*
 * Outside bytes into the cluster's map: as commands of its log, and as its image.
 *
 * LLVMFuzzerTestOneInput() plays one input on a small formatted cluster. A record of it is
 *
 *   how (1 byte) | type (1) | proposer (1) | rows (1) | length (2) | bytes
 *
 * How says what is done to the bytes: sent as they are; made the body of a command whose header
 * is right (so that what is judged is the body, not the CRC), with or without its numbers put
 * where such things exist; or written over the map's own image, with a good CRC. Whatever they are, the map keeps every invariant, two replicas stay equal,
 * and nothing leaks. With -fsanitize=fuzzer and -DFUZZ_ENGINE it is a libFuzzer target; else main()
 * plays generated records, from a seed:
 *
 *   fuzz_log_entry [ROUNDS [SEED]]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/random.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/cluster/command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NODES	    3u
#define RECORD_HEAD 6u
#define BODY_MAX    2048u

enum how { HOW_BODY, HOW_LIKELY, HOW_RAW, HOW_IMAGE, HOW_COUNT };

struct world {
	struct cluster_map *map, *twin;
	struct cluster_proposer proposers[NODES + 1];
};

/* What the generated inputs reached, for main(). */
static uint64_t tried[LOG_TYPE_END], accepted[LOG_TYPE_END], images, images_accepted;

static uint64_t digest(const struct cluster_map *map)
{
	uint64_t value;
	int rc = cluster_digest(map, &value);

	assert(rc == 0);
	return value;
}

static void apply(struct world *world, const void *bytes, size_t size)
{
	struct cluster_result result, twin;
	uint64_t index = cluster_index(world->map) + 1;
	struct cluster_map *map = cluster_apply(world->map, index, bytes, size, &result);
	struct cluster_map *other = cluster_apply(world->twin, index, bytes, size, &twin);
	struct error err = {0};

	assert(map && other);
	if (cluster_check(map, &err) < 0) {
		fprintf(stderr, "after %s: %s\n", cluster_command_name(result.type), err.text);
		abort();
	}
	assert(result.status == twin.status);
	assert((result.status == PROTO_STATUS_OK) == !result.text[0]);
	if (result.type < LOG_TYPE_END) {
		tried[result.type]++;
		accepted[result.type] += result.status == PROTO_STATUS_OK;
	}
	cluster_result_done(&result);
	cluster_result_done(&twin);
	cluster_map_put(world->map);
	cluster_map_put(world->twin);
	world->map = map;
	world->twin = other;
}

static void run(struct world *world, uint32_t node, struct cluster_command *command)
{
	assert(command);
	cluster_command_sign(command, &world->proposers[node]);
	apply(world, command->data, command->size);
	cluster_command_free(command);
}

/* The next start of a node, with these flags for its store. */
static void start_node(struct world *world, uint32_t id, uint32_t flags)
{
	struct cluster_proposer *proposer = &world->proposers[id];
	uint64_t incarnation = proposer->start / NODES + 1;
	struct cluster_register_store store = {.uuid = {{2, (uint8_t)id}},
					       .incarnation = incarnation,
					       .start = id,
					       .size_bytes = GIB,
					       .shards = 1,
					       .flags = flags,
					       .path = "/s"};
	struct cluster_register request = {.uuid = {{1, (uint8_t)id}},
					   .incarnation = incarnation,
					   .version_min = 1,
					   .version_max = 2,
					   .loops = 1,
					   .address = "127.0.0.1:7000",
					   .zone = id == 1 ? "a" : "b",
					   .store_count = 1,
					   .stores = &store};

	*proposer = (struct cluster_proposer){.start = incarnation * NODES};
	run(world, id, cluster_command_register(&request));
	proposer->node = id;
}

/* Three nodes, four PGs, two volumes of which one is open. */
static void world_start(struct world *world)
{
	struct uuid cluster = {{9}};
	struct cluster_plan_input input = {0};
	struct cluster_command *plan[1];

	world->map = cluster_map_new();
	world->twin = cluster_map_new();
	assert(world->map && world->twin);
	for (uint32_t i = 1; i <= NODES; i++)
		start_node(world, i, 0);
	run(world, 1, cluster_command_format(&cluster, 3, 0, 4, 0));
	assert(cluster_plan(world->map, &input, plan, 1) == 1);
	run(world, 1, plan[0]);
	run(world, 1, cluster_command_volume_create("a", GIB, 0, NULL, 0));
	run(world, 2, cluster_command_volume_create("b", GIB, 0, NULL, 0));
	run(world, 2, cluster_command_volume_open(1, cluster_node(world->map, 2)->session, 0));
	assert(cluster_volume_count(world->map) == 2);
}

static void world_stop(struct world *world)
{
	void *image;
	size_t size;
	struct cluster_map *copy = NULL;
	int rc = cluster_encode(world->map, &image, &size);

	assert(rc == 0);
	rc = cluster_decode(image, size, &copy, NULL);
	assert(rc == 0);
	assert(digest(copy) == digest(world->twin));
	free(image);
	cluster_map_put(copy);
	cluster_map_put(world->map);
	cluster_map_put(world->twin);
}

/* ---- one record ---- */

struct record {
	uint8_t how, type, proposer, rows;
	const uint8_t *bytes;
	size_t size;
};

static const struct cluster_store *likely_store(const struct world *world, uint32_t any)
{
	const struct cluster_store *store = cluster_store(world->map, 1 + any % NODES);

	return store ? store : cluster_store_next(world->map, 0);
}

/* Who may propose it; the body's numbers become those of things that exist. */
static uint32_t make_likely_pg(struct world *world, uint8_t type, void *body, le32 *rows,
			       uint32_t row_count)
{
	struct log_pg_expand *all = body; /* the longest; the others are its beginning */
	const struct cluster_pg *pg = cluster_pg(world->map, from_le32(all->pg) % 4);
	const struct cluster_store *store = likely_store(world, from_le32(all->store));
	const struct cluster_join *join = pg->join_count ? &pg->joining[0] : NULL;

	all->pg = to_le32(pg->id);
	if (type == LOG_PG_EXPAND || type == LOG_PG_LEAVE_JOIN)
		store = join ? cluster_store(world->map, join->store) : store;
	if (type != LOG_PG_SHRINK)
		all->store = to_le32(store->id);
	all->epoch = to_le64(type == LOG_PG_JOIN	 ? store->incarnation
			     : type == LOG_PG_LEAVE_JOIN ? (join ? join->index : 1)
							 : pg->epoch);
	if (type == LOG_PG_HOLES)
		all->join = to_le64(store->incarnation);
	if (type == LOG_PG_EXPAND && join) {
		all->join = to_le64(join->index);
		all->incarnation = to_le64(join->incarnation);
	}
	for (uint32_t i = 0; i < row_count; i++)
		rows[i] = to_le32(likely_store(world, from_le32(rows[i]))->id);
	return type == LOG_PG_ELECT ? store->node : cluster_pg_primary_node(world->map, pg);
}

/* Rows of PGs as they are, for stores of one node. */
static uint32_t make_likely_takeover(struct world *world, struct log_pg_store *rows, uint32_t count)
{
	const struct cluster_store *store =
		likely_store(world, count ? from_le32(rows[0].store) : 0);

	for (uint32_t i = 0; i < count; i++) {
		const struct cluster_pg *pg = cluster_pg(world->map, from_le32(rows[i].pg) % 4);
		rows[i].pg = to_le32(pg->id);
		rows[i].store = to_le32(store->id);
		rows[i].epoch = to_le64(pg->epoch);
	}
	return store->node;
}

static void make_likely_volume(struct world *world, uint8_t type, void *body)
{
	struct log_volume_delete *all = body;
	const struct cluster_volume *volume =
		cluster_volume_next(world->map, from_le64(all->volume) % 2);
	const struct cluster_node *node =
		cluster_node(world->map, 1 + from_le64(all->volume) % NODES);

	if (!volume || type == LOG_VOLUME_CREATE)
		return;
	all->volume = to_le64(volume->id);
	if (type == LOG_VOLUME_RENAME) {
		((struct log_volume_rename *)body)->to[0] =
			(char)('a' + cluster_index(world->map) % 26);
		memcpy(((struct log_volume_rename *)body)->name, volume->name, LOG_NAME_SIZE);
	}
	if (type == LOG_VOLUME_RESIZE) {
		((struct log_volume_resize *)body)->from_bytes = to_le64(volume->size_bytes);
		((struct log_volume_resize *)body)->to_bytes = to_le64(volume->size_bytes + 512);
	}
	if (type == LOG_VOLUME_OPEN || type == LOG_VOLUME_CLOSE || type == LOG_VOLUME_OWN)
		((struct log_volume_open *)body)->session = to_le64(node ? node->session : 7);
	if (type == LOG_VOLUME_OWN)
		((struct log_volume_own *)body)->generation = to_le64(volume->generation);
}

static uint32_t make_likely(struct world *world, uint8_t type, void *body, void *rows,
			    uint32_t row_count, uint32_t from)
{
	struct log_node_incarnation *node = body;
	struct log_setting *setting = body;
	uint32_t id = 1 + from_le32(node->node) % NODES;

	if (type == LOG_PG_TAKEOVER)
		from = make_likely_takeover(world, rows, row_count);
	else if (type >= LOG_PG_SHRINK && type <= LOG_PG_FORCE)
		from = make_likely_pg(world, type, body, rows, row_count);
	if (type >= LOG_VOLUME_CREATE)
		make_likely_volume(world, type, body);
	if (type == LOG_DEAD || type == LOG_LEAVE || type == LOG_STORE_FAILED) {
		node->node = to_le32(id);
		node->incarnation = to_le64(world->proposers[id].start / NODES);
		from = type == LOG_DEAD ? from : id;
	}
	if (type == LOG_SETTING) {
		unsigned which = (uint8_t)setting->name[0] % CLUSTER_SETTING_COUNT;

		memset(setting->name, 0, sizeof(setting->name));
		(void)text_copy(setting->name, sizeof(setting->name), cluster_settings[which].name);
		if (from_le64(setting->value) % 2)
			setting->value = to_le64(cluster_settings[which].preset);
	}
	return from;
}

static void play_body(struct world *world, const struct record *record)
{
	const struct command_row *row = command_row(record->type);
	uint32_t rows, from = 1 + record->proposer % NODES;
	struct cluster_command *command;
	struct log_command *header;
	size_t size;

	if (!row)
		return;
	if (record->type == LOG_REGISTER && record->how % HOW_COUNT == HOW_LIKELY) {
		start_node(world, from, record->rows % 4);
		return;
	}
	rows = row->rows_max ? record->rows % min_of(row->rows_max + 1, 5u) : 0;
	size = sizeof(*header) + row->body_size + (size_t)rows * row->row_size;
	command = calloc(1, sizeof(*command) + size);
	assert(command);
	command->size = (uint32_t)size;
	header = (void *)command->data;
	header->magic = to_le32(LOG_COMMAND_MAGIC);
	header->version = to_le16(LOG_COMMAND_VERSION);
	header->type = to_le16(record->type);
	header->size = to_le32(command->size);
	header->row_count = to_le32(rows);
	memcpy(header + 1, record->bytes, min_of(record->size, size - sizeof(*header)));
	if (record->how % HOW_COUNT == HOW_LIKELY)
		from = make_likely(world, record->type, header + 1,
				   (uint8_t *)(header + 1) + row->body_size, rows, from);
	run(world, from <= NODES ? from : 1, command);
}

static void play_image(struct world *world, const struct record *record)
{
	struct cluster_map *map = NULL;
	struct log_image *head;
	uint8_t *image;
	void *data;
	size_t size, at;
	int rc = cluster_encode(world->map, &data, &size);

	assert(rc == 0);
	image = data;
	/* type and proposer say where; never over the magic, which would end it at once. */
	at = 8 + ((size_t)record->type << 8 | record->proposer) % (size - 8);
	memcpy(image + at, record->bytes, min_of(record->size, size - at));
	head = data;
	head->size = to_le64(size);
	head->crc = to_le32(0);
	head->crc = to_le32(crc32c(image, size));
	images++;
	if (cluster_decode(image, size, &map, NULL) == 0) {
		images_accepted++;
		assert(cluster_check(map, NULL) == 0);
		cluster_map_put(map);
	}
	free(data);
}

static void play(struct world *world, const struct record *record)
{
	switch (record->how % HOW_COUNT) {
	case HOW_BODY:
	case HOW_LIKELY:
		play_body(world, record);
		break;
	case HOW_RAW:
		apply(world, record->bytes, record->size);
		break;
	default:
		play_image(world, record);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world world = {0};

	world_start(&world);
	while (size >= RECORD_HEAD) {
		size_t length = data[4] | (size_t)data[5] << 8;
		struct record record = {data[0],
					data[1],
					data[2],
					data[3],
					data + RECORD_HEAD,
					min_of(length, size - RECORD_HEAD)};

		play(&world, &record);
		data += RECORD_HEAD + record.size;
		size -= RECORD_HEAD + record.size;
	}
	world_stop(&world);
	return 0;
}

#ifndef FUZZ_ENGINE
/* ---- generated inputs ---- */

struct input {
	uint8_t bytes[256 * 1024];
	size_t size;
};

/* Numbers as commands have them: small, at places where fields are; and texts. */
static void fill_body(struct random *random, uint8_t *bytes, size_t size)
{
	static const char *const texts[] = {"a",      "b",     "c",    "access",
					    "shared", "lease", "iops", "z"};
	unsigned fields = 1 + (unsigned)random_below(random, 10);

	memset(bytes, 0, size);
	while (fields--) {
		size_t field = (size_t)random_below(random, min_of(size / 4, (size_t)12)) * 4;
		const char *text = texts[random_below(random, ARRAY_COUNT(texts))];

		if (random_below(random, 4))
			bytes[field] = (uint8_t)random_below(random, 14);
		else if (random_below(random, 3) == 0)
			bytes[field + 1] = (uint8_t)random_u64(random);
		else if (random_below(random, 2))
			memcpy(bytes + field, text, strlen(text));
	}
	if (random_below(random, 16) == 0)
		for (size_t i = 0; i < size; i++)
			bytes[i] = (uint8_t)random_u64(random);
}

static void add_record(struct input *input, struct random *random)
{
	uint8_t *at = input->bytes + input->size;
	size_t size =
		16 + (size_t)random_below(random, random_below(random, 6) ? 48 : BODY_MAX - 16);

	at[0] = (uint8_t)(random_below(random, 4) ? HOW_LIKELY : random_below(random, HOW_COUNT));
	at[1] = (uint8_t)random_below(random, at[0] == HOW_IMAGE ? 256 : LOG_TYPE_END);
	at[2] = (uint8_t)random_u64(random);
	at[3] = (uint8_t)random_u64(random);
	if (at[0] == HOW_IMAGE)
		size = 1 + (size_t)random_below(random, 4);
	at[4] = (uint8_t)size;
	at[5] = (uint8_t)(size >> 8);
	if (at[0] == HOW_IMAGE)
		for (size_t i = 0; i < size; i++)
			at[RECORD_HEAD + i] = (uint8_t)random_below(random, 8);
	else
		fill_body(random, at + RECORD_HEAD, size);
	input->size += RECORD_HEAD + size;
}

int main(int argc, char **argv)
{
	uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	struct input *input = calloc(1, sizeof(*input));
	struct random random;
	unsigned never = 0;

	assert(input);
	for (uint64_t i = 0; i < rounds; i++) {
		random_init(&random, seed + i);
		input->size = 0;
		while (input->size < sizeof(input->bytes) - RECORD_HEAD - BODY_MAX &&
		       random_below(&random, 120))
			add_record(input, &random);
		LLVMFuzzerTestOneInput(input->bytes, input->size);
	}
	free(input);
	for (unsigned type = 0; type < LOG_TYPE_END; type++) {
		if (!command_row(type))
			continue;
		printf("%-14s %8" PRIu64 " tried %8" PRIu64 " accepted\n",
		       cluster_command_name((enum log_type)type), tried[type], accepted[type]);
		never += accepted[type] == 0;
	}
	printf("%-14s %8" PRIu64 " tried %8" PRIu64 " accepted\n", "images", images,
	       images_accepted);
	/* An input that reaches nothing finds nothing. */
	return rounds < 1000 || (never == 0 && images_accepted > 10) ? 0 : 1;
}
#endif
