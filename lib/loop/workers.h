/*
 * Threads that do what blocks: ops on files, for a back end whose kernel interface has none
 * that do not.
 */
#ifndef LOOP_WORKERS_H
#define LOOP_WORKERS_H

#include "lib/loop/backend.h"

struct workers;

/* Is it for workers? Everything about files is. */
bool workers_can(const struct loop_op *op);

/*
 * @notify is called on a worker's thread when something has been done and nothing waited to be
 * collected before. No thread is started yet. 0 or -ENOMEM.
 */
int workers_new(void (*notify)(void *context), void *context, struct workers **out);
/* No op may be in it. NULL is allowed. */
void workers_free(struct workers *workers);

/* Do @op, some time: workers_collect() finishes it. It fails at once (-EAGAIN) without a thread. */
void workers_push(struct workers *workers, struct loop_op *op);
/* True: nobody has begun with it, and it is out of the queue. */
bool workers_cancel(struct workers *workers, struct loop_op *op);
/* loop_op_finish() all that are done; how many. */
unsigned workers_collect(struct workers *workers);

#endif
