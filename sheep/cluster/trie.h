/*
 * A persistent ordered map from 64-bit keys to refcounted items.
 *
 * Copies share everything: trie_share() costs one reference. What is changed is
 * copied on the way down from the root, but only where somebody else has it too, so
 * a command that changes a thousand items copies each node once.
 */
#ifndef CLUSTER_TRIE_H
#define CLUSTER_TRIE_H

#include <stdint.h>

/* First member of whatever is kept in a trie. */
struct trie_item {
	uint32_t refs; /* atomic; 1 when it is made */
	uint64_t key;
	uint64_t noted; /* for the user: see edit.c */
};

struct trie_kind {
	struct trie_item *(*copy)(const struct trie_item *item); /* refs 1; NULL: no memory */
	void (*free)(struct trie_item *item);
};

struct trie_node;

struct trie {
	struct trie_node *root;
	const struct trie_kind *kind;
	uint32_t count;
};

/* Make @to, which holds nothing, equal to @from. */
void trie_share(struct trie *to, const struct trie *from);
void trie_done(struct trie *trie);

/* NULL: none. Borrowed from the trie. */
const struct trie_item *trie_find(const struct trie *trie, uint64_t key);
/* The item with the lowest key at or above @from. */
const struct trie_item *trie_next(const struct trie *trie, uint64_t from);

/* The item, owned by this trie alone, to be changed in place (but its key). NULL: there is none, or no memory. */
struct trie_item *trie_edit(struct trie *trie, uint64_t key);
/* Put @item in, in place of one with its key. Takes @item, also when it fails: 0 or -ENOMEM. */
int trie_put(struct trie *trie, struct trie_item *item);
/* 0 (also when there is no such key) or -ENOMEM. */
int trie_remove(struct trie *trie, uint64_t key);

#endif
