/* Counts again what a store keeps count of. */
#ifndef TESTS_STORE_AUDIT_H
#define TESTS_STORE_AUDIT_H

#include "sheep/store/store.h"

/*
 * Live bytes of each segment, blocks, missing objects and digests, from the objects and their pages. Fails
 * the test when one is not what the store says. Reads cold pages, blocking; nothing may be
 * loading. Says nothing of a store in which a page turned out to be damaged.
 */
void store_audit(struct store *store);

#endif
