/* What the files of lib/loop share: the loop itself and its heap of timers. */
#ifndef LOOP_LOOP_PRIV_H
#define LOOP_LOOP_PRIV_H

#include <pthread.h>

#include "lib/loop/backend.h"

/* One armed timer: the key lies in the heap, so that sifting touches no timer but the moved one. */
struct timer_entry {
	uint64_t deadline_ns;
	uint64_t order; /* of starting: equal deadlines fire in this order */
	struct loop_timer *timer;
};

struct timer_heap {
	struct timer_entry *entries; /* [1 .. count] */
	uint32_t count;
	uint32_t size;
	uint64_t started;
};

int timer_heap_init(struct timer_heap *heap);
void timer_heap_done(struct timer_heap *heap);
void timer_heap_start(struct timer_heap *heap, struct loop_timer *timer, uint64_t deadline_ns);
void timer_heap_stop(struct timer_heap *heap, struct loop_timer *timer);
/* UINT64_MAX when there is none. */
uint64_t timer_heap_next(const struct timer_heap *heap);
/* Takes out and returns the first timer due at @now_ns, or NULL. */
struct loop_timer *timer_heap_pop(struct timer_heap *heap, uint64_t now_ns);

struct loop {
	struct loop_backend *backend;
	const struct loop_backend_ops *ops;
	uint64_t now_ns;
	struct cds_list_head ready; /* ops by link */
	uint32_t ops_busy;	    /* submitted and not yet delivered */
	uint32_t turn_max;
	uint64_t busy_poll_ns; /* at most */
	uint64_t poll_ns;      /* now */
	bool is_firing;	       /* in the timer phase */
	bool is_owned;	       /* a turn has begun */
	pthread_t owner;
	struct timer_heap timers;
	struct cds_list_head hooks[LOOP_HOOK_PHASES];
	struct random random;
	struct buffer_cache *buffers;
	struct logger *logger;
	const char *name;

	/* Touched by other threads: a cache line of its own. */
	struct __cds_wfcq_head mail_head __attribute__((aligned(64)));
	struct cds_wfcq_tail mail_tail;
	int is_asleep;	/* atomic: the next post must wake */
	int is_stopped; /* atomic */
};

/* An op from the ready queue has had its turn: settle its handle, then tell its owner. */
void op_deliver(struct loop *loop, struct loop_op *op);

/* The io_uring back end: 0, or an error with a text that says what to do. */
int uring_new(struct loop_backend **out, struct error *err);
/* epoll and worker threads. */
int epoll_new(struct loop_backend **out, struct error *err);

#endif
