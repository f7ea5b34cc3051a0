/*
 * Figures of layers: what comes from other sheep is taken only if it can be true, sums are told only if they are over each PG
 * once, and counting takes many short turns. Stores, PGs and the map are made up by the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/random.h"
#include "lib/base/size.h"
#include "sheep/service/figures.h"

#define PGS	     8u /* of policy 0; policy 1 has two */
#define LAYERS	     3u
#define EMPTY_LAYERS 1000u /* and above */

/* ---- the made-up cluster: store 1 is of node 1, and so on ---- */

static struct cluster_pg pgs[PGS];
static bool leads[PGS];
static uint32_t objects[PGS][LAYERS]; /* each holds 10 blocks */
static uint32_t missing[PGS][LAYERS]; /* the first ones */
static uint32_t looked, calls;

static const uint64_t layer_ids[LAYERS] = {5, 6, 9};

const struct cluster_policy *cluster_policy(const struct cluster_map *map, uint32_t id)
{
	static const struct cluster_policy policies[] = {{.id = 0, .pg_count = PGS},
							 {.id = 1, .pg_count = 2}};

	return id < ARRAY_COUNT(policies) ? &policies[id] : NULL;
}

const struct cluster_pg *cluster_pg(const struct cluster_map *map, uint32_t id)
{
	return id < PGS ? &pgs[id] : NULL;
}

uint32_t cluster_store_node(const struct cluster_map *map, uint32_t store)
{
	return store;
}

bool pg_set_leads(struct pg_set *set, uint32_t pg, uint32_t store)
{
	return leads[pg];
}

bool store_layer_use(struct store *store, uint32_t pg, uint64_t layer, uint64_t *next, uint32_t max,
		     struct store_layer_use *use)
{
	uint32_t l = 0;

	assert_true(max > 0);
	calls++;
	if (layer >= EMPTY_LAYERS)
		return true;
	while (layer_ids[l] != layer)
		l++;
	for (; *next < objects[pg][l] && max > 0; max--) {
		use->objects++;
		use->data_blocks += 10;
		use->missing += (*next)++ < missing[pg][l];
		looked++;
	}
	return *next == objects[pg][l];
}

int store_object_next(struct store *store, uint32_t pg, const struct object_key *after,
		      struct store_object *out)
{
	return 0;
}

static int setup(void **state)
{
	memset(objects, 0, sizeof(objects));
	memset(missing, 0, sizeof(missing));
	for (uint32_t i = 0; i < PGS; i++) {
		pgs[i] = (struct cluster_pg){.id = i, .primary = 1 + i % 2};
		leads[i] = true;
	}
	return 0;
}

/* ---- lies ---- */

static void make_use(struct figures_use *use, const uint32_t *list, uint32_t count)
{
	assert_int_equal(figures_use_init(use, layer_ids, LAYERS), 0);
	for (uint32_t i = 0; i < LAYERS; i++)
		use->layers[i].data_blocks = 100 * (i + 1);
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(figures_use_add_pg(use, list[i]), 0);
}

/* A reply as it is on the wire: one of each kind of row, three layers, four PGs. */
struct reply {
	struct peer_figures_reply body;
	uint8_t *bytes;
	uint32_t size;
};

static const uint32_t four[] = {0, 2, 4, 6};

static void reply_make(struct reply *reply)
{
	struct figures_store store = {.store = 1, .live_bytes = 4096};
	struct figures figures = {.row_count = 1,
				  .rows = {{.pg = 3, .store = 2, .objects_missing = 7}},
				  .lost_count = 1,
				  .lost = {{.layer = 5, .index = 8, .pg = 2, .blocks = 9}},
				  .store_count = 1,
				  .stores = &store};

	make_use(&figures.use, four, ARRAY_COUNT(four));
	figures.use.layers[1].missing = 2;
	reply->body = (struct peer_figures_reply){.store_count = to_le32(1),
						  .row_count = to_le32(1),
						  .lost_count = to_le32(1),
						  .layer_count = to_le32(LAYERS),
						  .pg_count = to_le32(ARRAY_COUNT(four))};
	reply->size = figures_packed_size(&figures);
	reply->bytes = malloc(reply->size);
	figures_pack(&figures, reply->bytes);
	figures_use_done(&figures.use);
}

/* Where the layers' rows and the PGs begin. */
static struct peer_figures_layer *layers_in(const struct reply *reply)
{
	return (void *)(reply->bytes + sizeof(struct peer_figures_store) +
			sizeof(struct peer_figures_row) + sizeof(struct peer_figures_lost));
}

static le32 *pgs_in(const struct reply *reply)
{
	return (void *)(layers_in(reply) + LAYERS);
}

static int look(const struct reply *reply, uint32_t asked, struct figures_view *view)
{
	/* No byte more than there is, so that a sanitizer sees who reads on. */
	uint8_t *copy = malloc(reply->size ? reply->size : 1);
	struct slice payload = {.data = copy, .size = reply->size};

	memcpy(copy, reply->bytes, reply->size);
	int rc = figures_look_at(&reply->body, &payload, asked, view);
	if (rc == 0) {
		struct figures_use layers;
		struct figures figures;
		assert_int_equal(figures_use_init(&layers, layer_ids, asked), 0);
		assert_int_equal(figures_unpack(&reply->body, view, &layers, &figures), 0);
		figures_use_done(&figures.use);
		figures_use_done(&layers);
	}
	free(copy);
	return rc;
}

static void test_what_is_packed_is_unpacked(void **state)
{
	struct reply reply;
	struct figures_view view;
	struct figures_use asked;
	struct figures figures;

	reply_make(&reply);
	const struct slice payload = {.data = reply.bytes, .size = reply.size};
	assert_int_equal(figures_look_at(&reply.body, &payload, LAYERS, &view), 0);
	assert_int_equal(from_le64(view.stores[0].live_bytes), 4096);
	assert_int_equal(figures_use_init(&asked, layer_ids, LAYERS), 0);
	assert_int_equal(figures_unpack(&reply.body, &view, &asked, &figures), 0);
	assert_int_equal(figures.rows[0].objects_missing, 7);
	assert_int_equal(figures.lost[0].index, 8);
	assert_int_equal(figures.use.layer_count, LAYERS);
	assert_int_equal(figures.use.layers[2].layer, 9);
	assert_int_equal(figures.use.layers[2].data_blocks, 300);
	assert_int_equal(figures.use.layers[0].missing, 0);
	assert_true(figures.use.layers[1].missing > 0);
	assert_int_equal(figures.use.pg_count, ARRAY_COUNT(four));
	assert_memory_equal(figures.use.pgs, four, sizeof(four));
	figures_use_done(&figures.use);
	figures_use_done(&asked);
	free(reply.bytes);
}

static void lie_layers_more(struct reply *r)
{
	r->body.layer_count = to_le32(LAYERS + 1);
}

static void lie_layers_fewer(struct reply *r)
{
	r->body.layer_count = to_le32(LAYERS - 1);
	r->size -= (uint32_t)sizeof(struct peer_figures_layer);
}

static void lie_no_layers(struct reply *r)
{
	r->body.layer_count = r->body.pg_count = to_le32(0);
	r->size = (uint32_t)((uint8_t *)layers_in(r) - r->bytes);
}

static void lie_pgs_more(struct reply *r)
{
	r->body.pg_count = to_le32(5);
}

static void lie_pgs_fewer(struct reply *r)
{
	r->body.pg_count = to_le32(3);
}

static void lie_pgs_without_end(struct reply *r)
{
	r->body.pg_count = to_le32(UINT32_MAX);
}

static void lie_pg_twice(struct reply *r)
{
	pgs_in(r)[2] = to_le32(2);
}

static void lie_pgs_descend(struct reply *r)
{
	pgs_in(r)[3] = to_le32(1);
}

static void lie_too_many_blocks(struct reply *r)
{
	layers_in(r)[1].data_blocks = to_le64(((uint64_t)OBJECT_BLOCKS << 32) + 1);
}

static void lie_stores_without_end(struct reply *r)
{
	r->body.store_count = to_le32(UINT32_MAX);
}

static void lie_rows_without_end(struct reply *r)
{
	r->body.row_count = to_le32(UINT32_MAX / 24 + 1);
}

static void lie_lost_more(struct reply *r)
{
	r->body.lost_count = to_le32(2);
}

static void lie_cut_short(struct reply *r)
{
	r->size--;
}

static void lie_empty(struct reply *r)
{
	r->size = 0;
}

static void test_replies_that_lie_are_refused(void **state)
{
	static void (*const lies[])(struct reply * reply) = {
		lie_layers_more,	lie_layers_fewer,
		lie_no_layers,		lie_pgs_more,
		lie_pgs_fewer,		lie_pgs_without_end,
		lie_pg_twice,		lie_pgs_descend,
		lie_too_many_blocks,	lie_lost_more,
		lie_stores_without_end, lie_rows_without_end,
		lie_cut_short,		lie_empty,
	};
	struct figures_view view;
	struct reply reply;

	reply_make(&reply);
	assert_int_equal(look(&reply, LAYERS, &view), 0);
	assert_int_equal(look(&reply, LAYERS - 1, &view), -E_PROTOCOL);
	assert_int_equal(look(&reply, 0, &view), -E_PROTOCOL);
	free(reply.bytes);
	for (unsigned i = 0; i < ARRAY_COUNT(lies); i++) {
		reply_make(&reply);
		lies[i](&reply);
		if (look(&reply, LAYERS, &view) != -E_PROTOCOL)
			fail_msg("lie %u was taken", i);
		free(reply.bytes);
	}
}

/* Who was not asked about layers has no PGs to tell. */
static void test_pgs_without_layers_are_refused(void **state)
{
	uint8_t bytes[sizeof(le32)] = {0};
	const struct peer_figures_reply body = {.pg_count = to_le32(1)};
	const struct slice payload = {.data = bytes, .size = sizeof(bytes)};
	struct figures_view view;

	assert_int_equal(figures_look_at(&body, &payload, 0, &view), -E_PROTOCOL);
}

static void test_any_bytes_are_taken_or_refused(void **state)
{
	struct random random;
	struct figures_view view;
	unsigned taken = 0;

	random_init(&random, 7);
	for (unsigned i = 0; i < 20000; i++) {
		struct reply reply;
		reply_make(&reply);
		for (uint64_t n = random_below(&random, 3); n > 0; n--)
			reply.bytes[random_below(&random, reply.size)] =
				(uint8_t)random_u64(&random);
		for (uint64_t n = random_below(&random, 2); n > 0; n--)
			((uint8_t *)&reply.body)[random_below(&random, sizeof(reply.body))] =
				(uint8_t)random_below(&random, 8);
		taken += look(&reply, LAYERS, &view) == 0;
		free(reply.bytes);
	}
	assert_in_range(taken, 100, 19900);
}

static void test_questions_that_lie_are_refused(void **state)
{
	static const struct {
		uint32_t count, size;
		uint64_t layers[3];
		uint32_t reserved;
		int result;
	} cases[] = {
		{0, 0, {0}, 0, 0},
		{3, 24, {1, 2, UINT64_MAX}, 0, 0},
		{2, 24, {1, 2, 3}, 0, -EINVAL},
		{3, 16, {1, 2, 3}, 0, -EINVAL},
		{3, 23, {1, 2, 3}, 0, -EINVAL},
		{3, 24, {1, 1, 3}, 0, -EINVAL},
		{3, 24, {1, 3, 2}, 0, -EINVAL},
		{UINT32_MAX, 24, {1, 2, 3}, 0, -EINVAL},
		{3, 24, {1, 2, 3}, 1, -EINVAL},
		{PEER_FIGURES_LAYERS_MAX + 1, 24, {1}, 0, -EINVAL},
	};

	for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
		const struct peer_figures body = {.layer_count = to_le32(cases[i].count),
						  .reserved = to_le32(cases[i].reserved)};
		uint64_t layers[3];
		le64 *wire = malloc(sizeof(le64) * 3);
		for (unsigned l = 0; l < 3; l++)
			wire[l] = to_le64(cases[i].layers[l]);
		const struct slice payload = {.data = (void *)wire, .size = cases[i].size};
		if (figures_unpack_question(&body, &payload, layers) != cases[i].result)
			fail_msg("case %u", i);
		free(wire);
	}
}

/* However well it is made. */
static void test_question_about_too_many_layers_is_refused(void **state)
{
	uint32_t count = PEER_FIGURES_LAYERS_MAX;
	le64 *wire = malloc((count + 1) * sizeof(*wire));
	uint64_t *layers = malloc(count * sizeof(*layers));

	for (uint32_t i = 0; i <= count; i++)
		wire[i] = to_le64(i);
	struct slice payload = {.data = (void *)wire, .size = count * (uint32_t)sizeof(*wire)};
	struct peer_figures body = {.layer_count = to_le32(count)};
	assert_int_equal(figures_unpack_question(&body, &payload, layers), 0);
	assert_int_equal(layers[count - 1], count - 1);
	body.layer_count = to_le32(count + 1);
	payload.size += (uint32_t)sizeof(*wire);
	assert_int_equal(figures_unpack_question(&body, &payload, layers), -EINVAL);
	free(layers);
	free(wire);
}

/* ---- sums ---- */

static bool used(const struct figures_use *use, uint32_t policy, const uint64_t *layers,
		 uint32_t count, uint64_t *bytes)
{
	const struct cluster_volume volume = {
		.policy = policy, .layers = layers, .layer_count = count};

	return figures_used(use, NULL, &volume, bytes);
}

/* What the parts add up to, each one the PGs that somebody counted; 0: not known. */
static uint64_t bytes_of(uint32_t count, ...)
{
	struct figures_use sum, part;
	uint64_t bytes = 0;
	va_list ap;

	make_use(&sum, NULL, 0);
	figures_use_void(&sum);
	va_start(ap, count);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t bits = va_arg(ap, uint32_t);
		make_use(&part, NULL, 0);
		for (uint32_t pg = 0; pg < PGS; pg++)
			if (bits >> pg & 1)
				assert_int_equal(figures_use_add_pg(&part, pg), 0);
		figures_use_add(&sum, &part);
		figures_use_done(&part);
	}
	va_end(ap);
	figures_use_close(&sum);
	if (!used(&sum, 0, layer_ids, 1, &bytes))
		bytes = 0;
	figures_use_done(&sum);
	return bytes;
}

static void test_a_figure_is_known_when_each_pg_was_counted_once(void **state)
{
	assert_int_equal(bytes_of(1, 0xffu), 100 * BLOCK_SIZE);
	assert_int_equal(bytes_of(3, 0x0fu, 0xa0u, 0x50u), 300 * BLOCK_SIZE);
	/* A part without PGs was not counted to its end. */
	assert_int_equal(bytes_of(2, 0xffu, 0x00u), 100 * BLOCK_SIZE);
	assert_int_equal(bytes_of(0), 0);
	assert_int_equal(bytes_of(2, 0x0fu, 0x70u), 0);
	assert_int_equal(bytes_of(2, 0x0fu, 0xf8u), 0);
	assert_int_equal(bytes_of(2, 0x0fu, 0x78u), 0); /* as many as there are */
}

static void test_what_was_not_asked_or_is_missing_is_not_known(void **state)
{
	static const uint64_t some[] = {9, 5}, other[] = {5, 7};
	struct figures_use use;
	uint64_t bytes = 1;

	make_use(&use, NULL, 0);
	for (uint32_t pg = PGS; pg > 0; pg--)
		assert_int_equal(figures_use_add_pg(&use, pg - 1), 0);
	figures_use_close(&use);
	assert_true(used(&use, 0, some, 2, &bytes));
	assert_int_equal(bytes, 400 * BLOCK_SIZE);
	assert_false(used(&use, 0, other, 2, &bytes));
	assert_false(used(&use, 1, some, 2, &bytes)); /* other PGs */
	assert_false(used(&use, 2, some, 2, &bytes)); /* no such policy */
	use.layers[0].missing = 1;
	assert_false(used(&use, 0, some, 2, &bytes));
	assert_true(used(&use, 0, some, 1, &bytes));
	use.is_unclear = true;
	assert_false(used(&use, 0, some, 1, &bytes));
	figures_use_done(&use);
	assert_false(used(&use, 0, some, 1, &bytes));
}

static void test_pgs_of_another_primary_are_noticed(void **state)
{
	struct figures_use use;

	make_use(&use, four, ARRAY_COUNT(four));
	assert_true(figures_use_is_of(&use, NULL, 1));
	assert_false(figures_use_is_of(&use, NULL, 2));
	pgs[4].primary = 0;
	assert_false(figures_use_is_of(&use, NULL, 1));
	pgs[4].primary = 1;
	assert_int_equal(figures_use_add_pg(&use, 77), 0);
	assert_false(figures_use_is_of(&use, NULL, 1));
	figures_use_done(&use);
}

/* ---- the walk ---- */

static void walk_make(struct figures_walk *walk, struct figures_use *use)
{
	*walk = (struct figures_walk){0};
	assert_int_equal(figures_use_init(use, layer_ids, LAYERS), 0);
	for (uint32_t i = 0; i < PGS; i++)
		assert_int_equal(figures_walk_add(walk, i, 1, NULL), 0);
}

static void walk_done(struct figures_walk *walk, struct figures_use *use)
{
	figures_walk_done(walk);
	figures_use_done(use);
}

/* One step, of bounded length. */
static bool step(struct figures_walk *walk, struct figures_use *use)
{
	looked = calls = 0;

	bool is_done = figures_walk_step(walk, NULL, use);

	assert_true(looked <= 8192 && calls <= 512);
	return is_done;
}

static void test_all_is_counted_once_in_many_short_turns(void **state)
{
	struct figures_walk walk;
	struct figures_use use;
	uint64_t sums[LAYERS] = {0};
	unsigned turns = 1;

	for (uint32_t pg = 0; pg < PGS; pg++)
		for (uint32_t l = 0; l < LAYERS; l++) {
			objects[pg][l] = (pg * 7 + l * 5) % 11 * 2731;
			sums[l] += objects[pg][l] * 10;
		}
	missing[3][1] = 1;
	walk_make(&walk, &use);
	while (!step(&walk, &use))
		assert_true(++turns < 100);
	assert_true(turns >= (sums[0] + sums[1] + sums[2]) / 10 / 8192);
	for (uint32_t l = 0; l < LAYERS; l++) {
		assert_int_equal(use.layers[l].data_blocks, sums[l]);
		assert_int_equal(use.layers[l].missing, l == 1);
	}
	assert_int_equal(use.pg_count, PGS);
	for (uint32_t pg = 0; pg < PGS; pg++)
		assert_int_equal(use.pgs[pg], pg);
	walk_done(&walk, &use);
}

/* Looking for them takes time, too. */
static void test_layers_without_objects_take_turns(void **state)
{
	enum { COUNT = 2000 };
	static uint64_t ids[COUNT];
	struct figures_walk walk;
	struct figures_use use, none;
	unsigned turns = 1;

	for (uint32_t i = 0; i < COUNT; i++)
		ids[i] = EMPTY_LAYERS + i;
	walk_make(&walk, &none);
	assert_int_equal(figures_use_init(&use, ids, COUNT), 0);
	while (!step(&walk, &use))
		assert_true(++turns < 100);
	assert_true(turns > PGS * COUNT / 512);
	assert_int_equal(use.pg_count, PGS);
	figures_use_done(&none);
	walk_done(&walk, &use);
}

static void test_pgs_that_are_not_led_are_not_counted(void **state)
{
	struct figures_walk walk;
	struct figures_use use;

	for (uint32_t pg = 0; pg < PGS; pg++)
		objects[pg][0] = 1u << pg;
	leads[0] = leads[5] = leads[7] = false;
	walk_make(&walk, &use);
	assert_true(step(&walk, &use));
	assert_int_equal(use.pg_count, PGS - 3);
	assert_int_equal(use.layers[0].data_blocks, (0xff & ~0xa1) * 10);
	walk_done(&walk, &use);
}

/* Between two turns: in the middle of it, or when it was to begin. */
static void test_pg_that_is_lost_half_way_spoils_the_count(void **state)
{
	struct figures_walk walk;
	struct figures_use use;

	objects[1][0] = 40000;
	objects[2][0] = 5;
	walk_make(&walk, &use);
	assert_false(step(&walk, &use));
	assert_int_equal(use.pg_count, 1);
	leads[1] = false;
	assert_true(step(&walk, &use));
	assert_int_equal(use.pg_count, 0);
	assert_int_equal(use.layers[0].data_blocks, 0);
	walk_done(&walk, &use);

	leads[1] = true;
	walk_make(&walk, &use);
	assert_false(step(&walk, &use));
	leads[2] = false;
	while (!step(&walk, &use))
		;
	assert_int_equal(use.pg_count, PGS - 1);
	assert_int_equal(use.layers[0].data_blocks, 400000);
	walk_done(&walk, &use);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
	const struct CMUnitTest tests[] = {
		TEST(test_what_is_packed_is_unpacked),
		TEST(test_replies_that_lie_are_refused),
		TEST(test_pgs_without_layers_are_refused),
		TEST(test_any_bytes_are_taken_or_refused),
		TEST(test_questions_that_lie_are_refused),
		TEST(test_question_about_too_many_layers_is_refused),
		TEST(test_a_figure_is_known_when_each_pg_was_counted_once),
		TEST(test_what_was_not_asked_or_is_missing_is_not_known),
		TEST(test_pgs_of_another_primary_are_noticed),
		TEST(test_all_is_counted_once_in_many_short_turns),
		TEST(test_layers_without_objects_take_turns),
		TEST(test_pgs_that_are_not_led_are_not_counted),
		TEST(test_pg_that_is_lost_half_way_spoils_the_count),
	};
#undef TEST
	return cmocka_run_group_tests(tests, NULL, NULL);
}
