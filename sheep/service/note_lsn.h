/*
 * The part of the note that changes all the time: the last LSN of each shard that anything acknowledged rests on.
 *
 * RUNTIME-DIR/STORE-UUID.lsn is mapped memory of a file on tmpfs: it survives the end of the process, and not
 * that of the machine. The store raises the numbers before each acknowledgement; after a kill the log must
 * reach them, or its disk has lost something though the machine went on (R3).
 */
#ifndef SERVICE_NOTE_LSN_H
#define SERVICE_NOTE_LSN_H

#include "sheep/store/store.h"

struct note_lsn;

/* Must the log of @store reach further than it does, or can that not be told? After store_open(). */
bool note_lsn_is_short(const char *dir, const struct store *store);
/*
 * Let @store keep its numbers, before the loops run: in a file beside the one that counts, which stays until the
 * registration that tells what it said is applied. *@out is NULL when it fails: the next start is unclean then.
 */
int note_lsn_open(const char *dir, struct store *store, struct note_lsn **out, struct error *err);
/* The registration is applied: our numbers count from now on. @note is NULL: none do. */
int note_lsn_publish(struct note_lsn *note, const char *dir, const struct store *store,
		     struct error *err);
/* After store_close(). NULL is allowed. */
void note_lsn_close(struct note_lsn *note);

#endif
