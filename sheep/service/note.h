/*
 * The note on tmpfs that tells a killed process from a store that lost something.
 *
 * RUNTIME-DIR/STORE-UUID.note has the boot id, the incarnation that was last registered, and the last LSN of each shard
 * that anything acknowledged rests on. The store keeps these numbers up to date before each acknowledgement, in memory
 * that is mapped from the file: they outlive the process, not the machine. A store whose last stop was not clean has
 * lost nothing that it acknowledged if its note is of this boot and its log reaches the numbers. Else it is
 * unclean (R3): the machine lost power, or its disk alone did, or its directory was set back.
 *
 *   note_judge() the old one -> note_open() STORE-UUID.note.new, which says nothing yet
 *        -> registration applied: note_publish() fills it in and puts it in the old one's place
 *
 * Always true: (1) a note stays what it is until the registration that tells what it meant is applied, so that a
 * start which is killed before changes nothing; but (2) once it was found wanting it goes, as what is appended to the
 * log from then on would make it reach the numbers; (3) a start that keeps no note of its own leaves none behind.
 * In doubt there is no note, and the store is unclean.
 */
#ifndef SERVICE_NOTE_H
#define SERVICE_NOTE_H

#include "lib/loop/loop.h"
#include "sheep/store/store.h"

#define NOTE_PATH_MAX 4096

struct note;

/*
 * The directory for notes: @wanted, or /run/sheepfold, else one under /dev/shm; made if it is not there.
 * 0, or an error with a text.
 */
int note_dir(struct loop *loop, const char *wanted, char out[NOTE_PATH_MAX], struct error *err);

/*
 * May the store have lost what it acknowledged? NULL: no; else why, for a log. Blocking, after store_open()
 * and before its incarnation is raised.
 */
const char *note_judge(struct loop *loop, const char *dir, const struct store *store);
/*
 * Of which start was the lock that @store, open, has now? The incarnation of the one that was registered with this
 * very directory in this boot: it has let go of it and serves no more. 0: none is known. The note names the
 * locked file by device and inode, so a copy of the directory, even beside the original, is told from it.
 * Blocking; before the note is removed or published anew.
 */
uint64_t note_held(struct loop *loop, const char *dir, const struct store *store);
/* It is wanting, or stands for a start that is over. 0 when there is none (any more), or an error with a text. */
int note_remove(struct loop *loop, const char *dir, const struct store *store, struct error *err);

/* Let @store keep its numbers in a new file, before the loops run. Gives *@out; on an error with a text none are kept. */
int note_open(struct loop *loop, const char *dir, struct store *store, struct note **out,
	      struct error *err);
/*
 * Its registration is applied: from here on it acknowledges, and the new note counts. Blocking and short:
 * it is tmpfs. An error with a text: then the old one may be there still, and has to be removed.
 */
int note_publish(struct note *note, struct loop *loop, const char *dir, const struct store *store,
		 struct error *err);
/*
 * The store stopped on an error of its disk: what the kernel had taken may be lost, too. The note says nothing
 * any more, nor ever will. Any thread; NULL is allowed.
 */
void note_void(struct note *note);
/* After store_close(); the file stays. NULL is allowed. */
void note_close(struct note *note, struct loop *loop);

#endif
