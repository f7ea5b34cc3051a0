/* The trie against a plain sorted array, with old versions kept and looked at again. */
#include "sheep/cluster/trie.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/random.h"
#include "lib/base/size.h"

struct number {
	struct trie_item item;
	uint64_t value;
};

static int living;

static struct trie_item *number_copy(const struct trie_item *item)
{
	struct number *copy = malloc(sizeof(*copy));

	memcpy(copy, item, sizeof(*copy));
	copy->item.refs = 1;
	living++;
	return &copy->item;
}

static void number_free(struct trie_item *item)
{
	free(item);
	living--;
}

static const struct trie_kind kind = {number_copy, number_free};

static struct trie_item *number_new(uint64_t key, uint64_t value)
{
	struct number *number = calloc(1, sizeof(*number));

	number->item.refs = 1;
	number->item.key = key;
	number->value = value;
	living++;
	return &number->item;
}

/* What the trie must hold. */
struct model {
	uint64_t keys[512], values[512];
	uint32_t count;
};

static void model_put(struct model *model, uint64_t key, uint64_t value)
{
	uint32_t i = 0;

	while (i < model->count && model->keys[i] < key)
		i++;
	if (i == model->count || model->keys[i] != key) {
		memmove(&model->keys[i + 1], &model->keys[i], (model->count - i) * 8);
		memmove(&model->values[i + 1], &model->values[i], (model->count - i) * 8);
		model->count++;
	}
	model->keys[i] = key;
	model->values[i] = value;
}

static void model_remove(struct model *model, uint64_t key)
{
	for (uint32_t i = 0; i < model->count; i++) {
		if (model->keys[i] != key)
			continue;
		model->count--;
		memmove(&model->keys[i], &model->keys[i + 1], (model->count - i) * 8);
		memmove(&model->values[i], &model->values[i + 1], (model->count - i) * 8);
	}
}

static void compare(const struct trie *trie, const struct model *model)
{
	const struct trie_item *item = trie_next(trie, 0);

	assert_int_equal(trie->count, model->count);
	for (uint32_t i = 0; i < model->count; i++) {
		const struct trie_item *found = trie_find(trie, model->keys[i]);

		assert_non_null(item);
		assert_ptr_equal(found, item);
		assert_true(item->key == model->keys[i]);
		assert_true(((const struct number *)item)->value == model->values[i]);
		assert_ptr_equal(trie_next(trie, item->key), item);
		item = item->key == UINT64_MAX ? NULL : trie_next(trie, item->key + 1);
	}
	assert_null(item);
}

/* Keys of all kinds: dense, sparse, equal but for one digit, the ends. */
static uint64_t key_of(struct random *random)
{
	uint64_t key = random_below(random, 40);

	switch (random_below(random, 5)) {
	case 0:
		return key;
	case 1:
		return key << random_below(random, 60);
	case 2:
		return UINT64_MAX - key;
	case 3:
		return 0x123456789abcdef0ull ^ (1ull << random_below(random, 64));
	default:
		return key * 0x9e3779b97f4a7c15ull;
	}
}

#define VERSIONS 8

static void test_old_versions_stay_as_they_were(void **state)
{
	static struct model models[VERSIONS];
	struct trie tries[VERSIONS];
	struct random random;

	(void)state;
	for (uint64_t seed = 0; seed < 30; seed++) {
		memset(models, 0, sizeof(models));
		for (unsigned v = 0; v < VERSIONS; v++)
			tries[v] = (struct trie){.kind = &kind};
		random_init(&random, seed);
		for (unsigned step = 0; step < 2000; step++) {
			unsigned v = (unsigned)random_below(&random, VERSIONS), w;
			uint64_t key = key_of(&random);
			struct trie_item *item;

			switch (random_below(&random, 8)) {
			case 0: /* one version becomes a copy of another */
				w = (v + 1) % VERSIONS;
				trie_done(&tries[w]);
				trie_share(&tries[w], &tries[v]);
				models[w] = models[v];
				break;
			case 1:
			case 2:
			case 3:
				assert_int_equal(trie_remove(&tries[v], key), 0);
				model_remove(&models[v], key);
				break;
			case 4:
				item = trie_edit(&tries[v], key);
				assert_true(!item == !trie_find(&tries[v], key));
				if (item) {
					((struct number *)item)->value = step;
					model_put(&models[v], key, step);
				}
				break;
			default:
				assert_int_equal(trie_put(&tries[v], number_new(key, step)), 0);
				model_put(&models[v], key, step);
			}
			if (step % 50 == 0)
				for (w = 0; w < VERSIONS; w++)
					compare(&tries[w], &models[w]);
		}
		for (unsigned v = 0; v < VERSIONS; v++)
			trie_done(&tries[v]);
		assert_int_equal(living, 0);
	}
}

/* The history that once read freed memory: the first item alone, far away from the second. */
static void test_first_item_alone_below_a_new_root_can_go(void **state)
{
	struct trie trie = {.kind = &kind};

	(void)state;
	assert_int_equal(trie_put(&trie, number_new(1, 1)), 0);
	assert_int_equal(trie_put(&trie, number_new(1ull << 40, 2)), 0);
	assert_int_equal(trie_remove(&trie, 1), 0);
	assert_null(trie_find(&trie, 1));
	assert_non_null(trie_find(&trie, 1ull << 40));
	assert_int_equal(trie_remove(&trie, 1ull << 40), 0);
	assert_null(trie.root);
	assert_int_equal(living, 0);
}

static void test_sharing_does_not_copy(void **state)
{
	struct trie a = {.kind = &kind}, b = {.kind = &kind};

	(void)state;
	for (uint64_t key = 0; key < 1000; key++)
		assert_int_equal(trie_put(&a, number_new(key, key)), 0);
	trie_share(&b, &a);
	((struct number *)trie_edit(&b, 500))->value = 7;
	assert_int_equal(living, 1001);
	assert_true(((const struct number *)trie_find(&a, 500))->value == 500);
	/* Once it is ours it is not copied again. */
	assert_ptr_equal(trie_edit(&b, 500), trie_find(&b, 500));
	assert_int_equal(living, 1001);
	trie_done(&a);
	assert_int_equal(living, 1000);
	trie_done(&b);
	assert_int_equal(living, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_old_versions_stay_as_they_were),
		cmocka_unit_test(test_first_item_alone_below_a_new_root_can_go),
		cmocka_unit_test(test_sharing_does_not_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
