/*
 * Who this node is: a UUID in a file "node" beside its data, in each of its stores or in a gateway's
 * state directory. So a node stays itself when stores are added, or named in another order.
 *
 * And which log its cluster lives by, in a file "log" there: a node that had one never takes part in another, nor in
 * the founding of another, whatever became of the log.
 */
#ifndef SERVICE_IDENTITY_H
#define SERVICE_IDENTITY_H

#include "lib/base/err.h"
#include "lib/base/uuid.h"
#include "lib/loop/loop.h"

/*
 * The UUID that most of the directories @paths name (of several the first), or @preset when none does;
 * then all of them name it. Blocking. 0, or an error with a text.
 */
int identity_open(struct loop *loop, char *const *paths, unsigned count, const struct uuid *preset,
		  struct uuid *out, struct error *err);
/* The log that most of them name, or null. Blocking. */
int identity_log(struct loop *loop, char *const *paths, unsigned count, struct uuid *out,
		 struct error *err);
/* All are to name @log from now on. Durable, blocking. */
int identity_keep_log(struct loop *loop, char *const *paths, unsigned count, const struct uuid *log,
		      struct error *err);

#endif
