/*
 * A radix tree of 32-way nodes, most significant digits first, in which chains of
 * single children do not exist: a node names its digit's position and the bits above it.
 *
 *   node  shift 10, prefix = key >> 15        bitmap: which of the 32 digits exist
 *    |-- digit 3: item                        leaves: which of those are items
 *    `-- digit 7: node  shift 0 ...
 *
 * Always true: (1) every key below a node has its prefix; (2) a node has two children at
 * least, but the root may have one, if that is an item; (3) a node may be changed in place when its count of
 * references is 1 and so are those of all nodes above it: nobody else can reach it.
 */
#include "sheep/cluster/trie.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"

#define DIGIT_BITS 5
#define DIGIT_MASK 31u

struct trie_node {
	uint32_t refs;
	uint32_t shift; /* of this node's digit: 0, 5, ... 60 */
	uint64_t prefix;
	uint32_t bitmap;
	uint32_t leaves; /* subset of bitmap */
	void *children[];
};

static uint64_t prefix_at(uint64_t key, uint32_t shift)
{
	return key >> shift >> DIGIT_BITS;
}

static uint32_t bit_at(uint64_t key, uint32_t shift)
{
	return 1u << (key >> shift & DIGIT_MASK);
}

static unsigned child_at(const struct trie_node *node, uint32_t bit)
{
	return (unsigned)__builtin_popcount(node->bitmap & (bit - 1));
}

static unsigned child_count(const struct trie_node *node)
{
	return (unsigned)__builtin_popcount(node->bitmap);
}

/* The digit in which two keys first differ. */
static uint32_t shift_of_difference(uint64_t a, uint64_t b)
{
	return (uint32_t)(63 - __builtin_clzll(a ^ b)) / DIGIT_BITS * DIGIT_BITS;
}

/* ---- references ---- */

static void ref_get(uint32_t *refs)
{
	(void)__atomic_fetch_add(refs, 1, __ATOMIC_RELAXED);
}

static bool ref_put(uint32_t *refs)
{
	return __atomic_fetch_sub(refs, 1, __ATOMIC_ACQ_REL) == 1;
}

/* Acquire: whoever gave up the other references has finished with what they led to. */
static bool ref_is_alone(const uint32_t *refs)
{
	return __atomic_load_n(refs, __ATOMIC_ACQUIRE) == 1;
}

static void item_put(const struct trie_kind *kind, struct trie_item *item)
{
	if (ref_put(&item->refs))
		kind->free(item);
}

static void node_put(const struct trie_kind *kind, struct trie_node *node)
{
	uint32_t left;
	void **child;

	if (!node || !ref_put(&node->refs))
		return;
	child = node->children;
	for (left = node->bitmap; left; left &= left - 1, child++) {
		if (node->leaves & left & -left)
			item_put(kind, *child);
		else
			node_put(kind, *child);
	}
	free(node);
}

static void child_get(const struct trie_node *node, uint32_t bit, void *child)
{
	if (node->leaves & bit)
		ref_get(&((struct trie_item *)child)->refs);
	else
		ref_get(&((struct trie_node *)child)->refs);
}

/* ---- nodes ---- */

static struct trie_node *node_alloc(unsigned children)
{
	struct trie_node *node = malloc(sizeof(*node) + children * sizeof(void *));

	if (node)
		node->refs = 1;
	return node;
}

/* Make *@slot a node that only we have. The slot must be ours already. */
static struct trie_node *node_own(const struct trie_kind *kind, struct trie_node **slot)
{
	struct trie_node *node = *slot, *copy;
	unsigned count = child_count(node);
	uint32_t left;
	void **child;

	if (ref_is_alone(&node->refs))
		return node;
	copy = node_alloc(count);
	if (!copy)
		return NULL;
	copy->shift = node->shift;
	copy->prefix = node->prefix;
	copy->bitmap = node->bitmap;
	copy->leaves = node->leaves;
	memcpy(copy->children, node->children, count * sizeof(void *));
	child = copy->children;
	for (left = copy->bitmap; left; left &= left - 1)
		child_get(copy, left & -left, *child++);
	node_put(kind, node);
	*slot = copy;
	return copy;
}

/* A node of two children, whose keys differ in the digit at @shift. */
static struct trie_node *node_of_two(uint32_t shift, uint64_t a_key, void *a, bool a_is_item,
				     struct trie_item *b)
{
	struct trie_node *node = node_alloc(2);
	uint32_t a_bit = bit_at(a_key, shift), b_bit = bit_at(b->key, shift);

	if (!node)
		return NULL;
	assert(a_bit != b_bit && prefix_at(a_key, shift) == prefix_at(b->key, shift));
	node->shift = shift;
	node->prefix = prefix_at(b->key, shift);
	node->bitmap = a_bit | b_bit;
	node->leaves = b_bit | (a_is_item ? a_bit : 0);
	node->children[a_bit > b_bit] = a;
	node->children[a_bit < b_bit] = b;
	return node;
}

static int node_insert(struct trie_node **slot, struct trie_item *item)
{
	struct trie_node *node = *slot;
	uint32_t bit = bit_at(item->key, node->shift);
	unsigned at = child_at(node, bit), count = child_count(node);

	node = realloc(node, sizeof(*node) + (count + 1) * sizeof(void *));
	if (!node)
		return -ENOMEM;
	memmove(&node->children[at + 1], &node->children[at], (count - at) * sizeof(void *));
	node->children[at] = item;
	node->bitmap |= bit;
	node->leaves |= bit;
	*slot = node;
	return 0;
}

static void node_delete(struct trie_node *node, uint32_t bit)
{
	unsigned at = child_at(node, bit), count = child_count(node);

	memmove(&node->children[at], &node->children[at + 1], (count - at - 1) * sizeof(void *));
	node->bitmap &= ~bit;
	node->leaves &= ~bit;
}

/* ---- reading ---- */

const struct trie_item *trie_find(const struct trie *trie, uint64_t key)
{
	const struct trie_node *node = trie->root;

	while (node && node->prefix == prefix_at(key, node->shift)) {
		uint32_t bit = bit_at(key, node->shift);
		const void *child;

		if (!(node->bitmap & bit))
			return NULL;
		child = node->children[child_at(node, bit)];
		if (node->leaves & bit) {
			const struct trie_item *item = child;

			return item->key == key ? item : NULL;
		}
		node = child;
	}
	return NULL;
}

static const struct trie_item *first_below(const struct trie_node *node)
{
	while (!(node->leaves & node->bitmap & -node->bitmap))
		node = node->children[0];
	return node->children[0];
}

static const struct trie_item *next_below(const struct trie_node *node, uint64_t from)
{
	uint64_t prefix = prefix_at(from, node->shift);
	uint32_t bit = bit_at(from, node->shift), above;
	const struct trie_item *found = NULL;

	if (node->prefix < prefix)
		return NULL;
	if (node->prefix > prefix)
		return first_below(node);
	if (node->bitmap & bit) {
		const void *child = node->children[child_at(node, bit)];

		if (!(node->leaves & bit))
			found = next_below(child, from);
		else if (((const struct trie_item *)child)->key >= from)
			found = child;
	}
	above = node->bitmap & ~(bit | (bit - 1));
	if (!found && above) {
		bit = above & -above;
		found = node->children[child_at(node, bit)];
		if (!(node->leaves & bit))
			found = first_below((const void *)found);
	}
	return found;
}

const struct trie_item *trie_next(const struct trie *trie, uint64_t from)
{
	return trie->root ? next_below(trie->root, from) : NULL;
}

/* ---- life ---- */

void trie_share(struct trie *to, const struct trie *from)
{
	*to = *from;
	if (to->root)
		ref_get(&to->root->refs);
}

void trie_done(struct trie *trie)
{
	node_put(trie->kind, trie->root);
	trie->root = NULL;
	trie->count = 0;
}

/* ---- changing ---- */

struct trie_item *trie_edit(struct trie *trie, uint64_t key)
{
	struct trie_node **slot = &trie->root;

	if (!trie_find(trie, key))
		return NULL;
	for (;;) {
		struct trie_node *node = node_own(trie->kind, slot);
		struct trie_item *item, *copy;
		uint32_t bit;
		void **child;

		if (!node)
			return NULL;
		bit = bit_at(key, node->shift);
		child = &node->children[child_at(node, bit)];
		if (!(node->leaves & bit)) {
			slot = (struct trie_node **)child;
			continue;
		}
		item = *child;
		if (ref_is_alone(&item->refs))
			return item;
		copy = trie->kind->copy(item);
		if (!copy)
			return NULL;
		item_put(trie->kind, item);
		*child = copy;
		return copy;
	}
}

/* Put a new node in the place of *@slot, with what was there and @item below it. */
static int put_beside(struct trie_node **slot, uint64_t key, bool is_item, struct trie_item *item)
{
	struct trie_node *node =
		node_of_two(shift_of_difference(key, item->key), key, *slot, is_item, item);

	if (!node)
		return -ENOMEM;
	*slot = node;
	return 0;
}

static int put_root(struct trie *trie, struct trie_item *item)
{
	struct trie_node *node = node_alloc(1);

	if (!node)
		return -ENOMEM;
	node->shift = 0;
	node->prefix = prefix_at(item->key, 0);
	node->bitmap = node->leaves = bit_at(item->key, 0);
	node->children[0] = item;
	trie->root = node;
	return 0;
}

/* A root with one item: its digit becomes the one in which @item differs. */
static int put_second(struct trie *trie, struct trie_item *item)
{
	struct trie_node *root = node_own(trie->kind, &trie->root);
	uint64_t key;

	if (!root)
		return -ENOMEM;
	key = ((const struct trie_item *)root->children[0])->key;
	root->shift = shift_of_difference(key, item->key);
	root->prefix = prefix_at(key, root->shift);
	root->bitmap = root->leaves = bit_at(key, root->shift);
	return node_insert(&trie->root, item);
}

static bool has_other_item_only(const struct trie_node *root, uint64_t key)
{
	return child_count(root) == 1 && ((const struct trie_item *)root->children[0])->key != key;
}

/* 1: put in place of another; 0: put; -ENOMEM. */
static int put(struct trie *trie, struct trie_item *item)
{
	struct trie_node **slot = &trie->root;

	if (!*slot)
		return put_root(trie, item);
	if (has_other_item_only(*slot, item->key))
		return put_second(trie, item);
	for (;;) {
		struct trie_node *node = *slot;
		uint64_t node_key = node->prefix << DIGIT_BITS << node->shift;
		struct trie_item *there;
		uint32_t bit;
		void **child;

		if (node->prefix != prefix_at(item->key, node->shift))
			return put_beside(slot, node_key, false, item);
		node = node_own(trie->kind, slot);
		if (!node)
			return -ENOMEM;
		bit = bit_at(item->key, node->shift);
		if (!(node->bitmap & bit))
			return node_insert(slot, item);
		child = &node->children[child_at(node, bit)];
		if (!(node->leaves & bit)) {
			slot = (struct trie_node **)child;
			continue;
		}
		there = *child;
		if (there->key != item->key) {
			int rc = put_beside((struct trie_node **)child, there->key, true, item);

			if (rc == 0)
				node->leaves &= ~bit;
			return rc;
		}
		*child = item;
		item_put(trie->kind, there);
		return 1;
	}
}

int trie_put(struct trie *trie, struct trie_item *item)
{
	int rc = put(trie, item);

	if (rc < 0)
		item_put(trie->kind, item);
	else if (rc == 0)
		trie->count++;
	return rc < 0 ? rc : 0;
}

/* Take @key out below *@slot; it is there, and @slot is ours. */
static int remove_below(struct trie *trie, struct trie_node **slot, uint64_t key)
{
	struct trie_node *node = node_own(trie->kind, slot), *below;
	uint32_t bit;
	void **child;
	int rc;

	if (!node)
		return -ENOMEM;
	bit = bit_at(key, node->shift);
	child = &node->children[child_at(node, bit)];
	if (node->leaves & bit) {
		item_put(trie->kind, *child);
		node_delete(node, bit);
		return 0;
	}
	rc = remove_below(trie, (struct trie_node **)child, key);
	below = *child;
	if (rc < 0 || child_count(below) > 1)
		return rc;
	/* One is left below: it takes the node's place. */
	*child = below->children[0];
	if (below->leaves)
		node->leaves |= bit;
	free(below);
	return 0;
}

int trie_remove(struct trie *trie, uint64_t key)
{
	struct trie_node *root;
	int rc;

	if (!trie_find(trie, key))
		return 0;
	rc = remove_below(trie, &trie->root, key);
	if (rc < 0)
		return rc;
	trie->count--;
	root = trie->root;
	if (child_count(root) == 0) {
		trie->root = NULL;
		free(root);
	} else if (child_count(root) == 1 && !root->leaves) {
		trie->root = root->children[0];
		free(root);
	}
	return 0;
}
