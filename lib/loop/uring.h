/* The io_uring back end: the ring (uring.c) and what each op is to it (uring_op.c). */
#ifndef LOOP_URING_H
#define LOOP_URING_H

#include <liburing.h>

#include "lib/loop/posix.h"

struct uring {
	struct loop_backend base;
	struct io_uring ring;
	bool is_enabled; /* since the first turn: its thread owns the ring */
	bool is_wake_armed;
	bool can_poll_first; /* since 5.19, as the setup flag that was taken with it */
	int wake_fd;	     /* eventfd */
	uint64_t wake_value;
	struct cds_list_head backlog; /* ops that found the ring full, by link */
	struct cds_list_head cancels; /* ops whose cancel found the ring full, by link */
	struct msghdr *headers;	      /* one for each slot of the submission ring */
};

/* op->flags, upper byte. */
#define URING_OP_BACKLOG 0x0100u
#define URING_OP_CANCELS 0x0200u
#define URING_OP_AGAIN	 0x0400u /* would have blocked: let a kernel thread do it */
#define URING_OP_PLAIN	 0x0800u /* open: without O_DIRECT */

/* uring.c: put @op into the ring, or into the backlog. */
void uring_push(struct uring *uring, struct loop_op *op);

/* uring_op.c, in the order of an op's life. False: it has ended already. */
bool uring_op_begin(struct loop_op *op);
/* Fill in @sqe, all but user_data; again for each round of a transfer. */
void uring_op_prepare(struct uring *uring, struct loop_op *op, struct io_uring_sqe *sqe);
/* The kernel is done with @op: finish it, or push what is left. */
void uring_op_complete(struct uring *uring, struct loop_op *op, int result, unsigned flags);
/* The operations that must be there: opcodes and names; ends with a NULL name. */
struct uring_need {
	int opcode;
	const char *name;
};
extern const struct uring_need uring_needs[];

#endif
