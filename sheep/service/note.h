/*
 * The note on tmpfs that tells a killed process from a machine that lost power.
 *
 * RUNTIME-DIR/STORE-UUID.note has the boot id and the incarnation that was last registered. A
 * store whose last stop was not clean has lost nothing that it acknowledged if its note is of this
 * boot: what the kernel had taken is still there. Without the note it is unclean (R3).
 */
#ifndef SERVICE_NOTE_H
#define SERVICE_NOTE_H

#include "lib/loop/loop.h"
#include "sheep/store/store.h"

#define NOTE_PATH_MAX 4096

/*
 * The directory for notes: @wanted, or /run/sheepfold, else one under /dev/shm; made if it is not there.
 * 0, or an error with a text.
 */
int note_dir(struct loop *loop, const char *wanted, char out[NOTE_PATH_MAX], struct error *err);

/* May the store have lost what it acknowledged? Blocking, before its incarnation is raised. */
bool note_is_unclean(struct loop *loop, const char *dir, const struct store *store);

/* Its registration is applied: from here on it acknowledges. Blocking and short: it is tmpfs. */
int note_write(struct loop *loop, const char *dir, const struct store *store, struct error *err);

#endif
