/*
 * The core of the loop: turns, the ready queue, hooks, mail, life.
 *
 * One turn, in this order:
 *
 *   submit and wait     ops->wait(); no sleep while the ready queue, an armed
 *                       hook, a due timer or mail has work
 *   run                 at most turn_max of the ready queue
 *   timers              those due at loop_now(); one that is started again
 *                       here for a time that has passed fires in the next turn
 *   mail                all that had arrived when the phase began
 *   hooks               COMMIT, then FLUSH
 *
 * Sleep and mail: the loop says that it sleeps (is_asleep), then looks at its
 * mail a last time, then sleeps. A sender queues, then looks at is_asleep, and
 * who clears it wakes. Both sides have a full barrier between their two steps,
 * so at least one sees the other. A loop that is busy costs a sender no system
 * call, and a sleeping one costs its senders one together.
 */
#include "lib/loop/loop.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/random.h>
#include <urcu/arch.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "lib/loop/loop_priv.h"

#define TURN_MAX	  256
#define POLL_MIN_NS	  (10 * NS_PER_US)
#define BUFFER_KEEP_BYTES (64 * MIB)

int loop_new_on(const struct loop_options *options, struct loop_backend *backend, struct loop **out)
{
	struct loop *loop = aligned_alloc(64, round_up(sizeof(*loop), 64));

	if (!loop)
		goto fail;
	*loop = (struct loop){
		.backend = backend,
		.ops = backend->ops,
		.turn_max = options->turn_max ? options->turn_max : TURN_MAX,
		.busy_poll_ns = options->busy_poll_us * NS_PER_US,
		.logger = options->logger,
		.name = options->name ? options->name : "loop",
	};
	backend->loop = loop;
	CDS_INIT_LIST_HEAD(&loop->ready);
	for (unsigned i = 0; i < LOOP_HOOK_PHASES; i++)
		CDS_INIT_LIST_HEAD(&loop->hooks[i]);
	__cds_wfcq_init(&loop->mail_head, &loop->mail_tail);
	random_init(&loop->random, options->seed);
	loop->buffers = buffer_cache_new(BUFFER_KEEP_BYTES);
	if (timer_heap_init(&loop->timers) < 0 || !loop->buffers)
		goto fail;
	loop->now_ns = loop->ops->now(backend);
	*out = loop;
	return 0;
fail:
	if (loop) {
		timer_heap_done(&loop->timers);
		buffer_cache_free(loop->buffers);
	}
	free(loop);
	backend->ops->free(backend);
	return -ENOMEM;
}

/* Errors that say that there is no io_uring here, rather than that something ran out. */
static bool is_refused(int rc)
{
	return rc == -EPERM || rc == -EACCES || rc == -ENOSYS || rc == -ENOTSUP || rc == -EINVAL;
}

static int backend_new(enum loop_backend_kind kind, struct loop_backend **out, struct error *err)
{
	int rc = kind == LOOP_BACKEND_EPOLL ? epoll_new(out, err) : uring_new(out, err);

	if (kind != LOOP_BACKEND_AUTO || rc == 0 || !is_refused(rc))
		return rc;
	log_info("%s; using epoll and worker threads", err ? err->text : "no io_uring");
	return epoll_new(out, err);
}

int loop_new(const struct loop_options *options, struct loop **out, struct error *err)
{
	struct loop_options filled = *options;
	struct loop_backend *backend;
	int rc;

	if (!filled.seed && getrandom(&filled.seed, sizeof(filled.seed), 0) != sizeof(filled.seed))
		return error_set(err, -EIO, "getrandom");
	rc = backend_new(filled.backend, &backend, err);
	if (rc < 0)
		return rc;
	rc = loop_new_on(&filled, backend, out);
	return rc < 0 ? error_set(err, rc, "loop") : 0;
}

void loop_abandon(struct loop *loop)
{
	loop->ops->free(loop->backend);
	timer_heap_done(&loop->timers);
	buffer_cache_free(loop->buffers);
	free(loop);
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	assert(loop->ops_busy == 0);
	loop_abandon(loop);
}

/* ---- the ready queue ---- */

void loop_op_finish(struct loop_op *op, int result)
{
	assert(op->state == LOOP_OP_SUBMITTED);
	op->state = LOOP_OP_READY;
	op->result = result;
	cds_list_add_tail(&op->link, &op->loop->ready);
}

static void run_ready(struct loop *loop)
{
	for (uint32_t n = 0; n < loop->turn_max && !cds_list_empty(&loop->ready); n++) {
		struct loop_op *op = cds_list_first_entry(&loop->ready, struct loop_op, link);

		cds_list_del(&op->link);
		op_deliver(loop, op);
	}
}

/* ---- timers ---- */

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
	/* Else a timer that starts itself again for a past time would never let the phase end. */
	if (loop->is_firing && deadline_ns <= loop->now_ns)
		deadline_ns = loop->now_ns + 1;
	timer_heap_start(&loop->timers, timer, deadline_ns);
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
	timer_heap_stop(&loop->timers, timer);
}

static void run_timers(struct loop *loop)
{
	struct loop_timer *timer;

	loop->is_firing = true;
	while ((timer = timer_heap_pop(&loop->timers, loop->now_ns)))
		timer->fire(timer);
	loop->is_firing = false;
}

/* ---- hooks ---- */

void loop_hook_arm(struct loop *loop, struct loop_hook *hook)
{
	if (hook->is_armed)
		return;
	hook->is_armed = true;
	cds_list_add_tail(&hook->link, &loop->hooks[hook->phase]);
}

void loop_hook_disarm(struct loop *loop, struct loop_hook *hook)
{
	if (!hook->is_armed)
		return;
	hook->is_armed = false;
	cds_list_del(&hook->link);
}

static void run_hooks(struct cds_list_head *armed)
{
	struct cds_list_head now;

	/* What is armed from here on for this phase waits for the next turn. */
	CDS_INIT_LIST_HEAD(&now);
	cds_list_splice(armed, &now);
	CDS_INIT_LIST_HEAD(armed);
	while (!cds_list_empty(&now)) {
		struct loop_hook *hook = cds_list_first_entry(&now, struct loop_hook, link);

		cds_list_del(&hook->link);
		hook->is_armed = false;
		hook->run(hook);
	}
}

/* ---- mail ---- */

static bool has_mail(struct loop *loop)
{
	return !cds_wfcq_empty(&loop->mail_head, &loop->mail_tail);
}

static void wake(struct loop *loop)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&loop->is_asleep, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&loop->is_asleep, 0, __ATOMIC_SEQ_CST))
		loop->ops->wake(loop->backend);
}

void loop_post(struct loop *to, struct loop_mail *mail)
{
	cds_wfcq_node_init(&mail->node);
	cds_wfcq_enqueue(&to->mail_head, &to->mail_tail, &mail->node);
	wake(to);
}

void loop_expect_wake(struct loop *loop)
{
	__atomic_store_n(&loop->is_asleep, 1, __ATOMIC_SEQ_CST);
}

static void deliver_mail(struct loop *loop)
{
	struct __cds_wfcq_head head;
	struct cds_wfcq_tail tail;
	struct cds_wfcq_node *node, *next;

	if (!has_mail(loop))
		return;
	__cds_wfcq_init(&head, &tail);
	(void)__cds_wfcq_splice_blocking(&head, &tail, &loop->mail_head, &loop->mail_tail);
	for (node = __cds_wfcq_first_blocking(&head, &tail); node; node = next) {
		struct loop_mail *mail = container_of_type(node, struct loop_mail, node);

		/* deliver() may free the mail or send it on. */
		next = __cds_wfcq_next_blocking(&head, &tail, node);
		mail->deliver(loop, mail);
	}
}

/* ---- turns ---- */

uint64_t loop_next_deadline(struct loop *loop)
{
	if (!cds_list_empty(&loop->ready))
		return 0;
	for (unsigned i = 0; i < LOOP_HOOK_PHASES; i++)
		if (!cds_list_empty(&loop->hooks[i]))
			return 0;
	if (has_mail(loop))
		return 0;
	return timer_heap_next(&loop->timers);
}

static bool must_not_sleep(struct loop *loop)
{
	return has_mail(loop) || __atomic_load_n(&loop->is_stopped, __ATOMIC_RELAXED);
}

/*
 * Look again for a while: what comes meanwhile saves a sleep and a wakeup. Who
 * would send it may be waiting for this very CPU, so give it away now and then.
 */
static bool poll_busily(struct loop *loop, uint64_t until_ns)
{
	uint64_t now = loop->ops->now(loop->backend);
	uint64_t end = min_of(until_ns, now + loop->poll_ns);

	for (unsigned round = 1; now < end; now = loop->ops->now(loop->backend), round++) {
		if (must_not_sleep(loop) || loop->ops->has_events(loop->backend))
			return true;
		for (unsigned i = 0; i < 8; i++)
			caa_cpu_relax();
		if (round % 4 == 0)
			(void)sched_yield();
	}
	return now >= until_ns;
}

/*
 * Poll for longer next time if that would have saved this sleep, else not at
 * all: a loop with little to do then costs no more than one that never polls.
 */
static void adapt_poll(struct loop *loop, uint64_t began_ns)
{
	if (loop->ops->now(loop->backend) - began_ns > loop->busy_poll_ns)
		loop->poll_ns = 0;
	else
		loop->poll_ns = min_of(max_of(loop->poll_ns * 2, POLL_MIN_NS), loop->busy_poll_ns);
}

static int sleep_until(struct loop *loop, uint64_t until_ns)
{
	int rc;

	__atomic_store_n(&loop->is_asleep, 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	rc = loop->ops->wait(loop->backend, must_not_sleep(loop) ? 0 : until_ns);
	__atomic_store_n(&loop->is_asleep, 0, __ATOMIC_RELAXED);
	return rc;
}

static int wait_for_work(struct loop *loop, uint64_t deadline_ns)
{
	uint64_t until_ns = min_of(deadline_ns, loop_next_deadline(loop));

	if (until_ns <= loop->now_ns)
		return loop->ops->wait(loop->backend, 0);
	if (!loop->busy_poll_ns || !loop->ops->has_events)
		return sleep_until(loop, until_ns);

	uint64_t began_ns = loop->ops->now(loop->backend);
	int rc = loop->ops->wait(loop->backend, 0);
	if (rc < 0 || !cds_list_empty(&loop->ready))
		return rc;
	if (poll_busily(loop, until_ns))
		return loop->ops->wait(loop->backend, 0);
	rc = sleep_until(loop, until_ns);
	adapt_poll(loop, began_ns);
	return rc;
}

static void own(struct loop *loop)
{
	if (!loop->is_owned) {
		loop->is_owned = true;
		loop->owner = pthread_self();
		buffer_cache_adopt(loop->buffers);
	}
	assert(pthread_equal(loop->owner, pthread_self()));
}

int loop_turn(struct loop *loop, uint64_t deadline_ns)
{
	struct logger *logger = NULL;
	int rc;

	own(loop);
	if (loop->logger)
		logger = log_set_current(loop->logger);
	rc = wait_for_work(loop, deadline_ns);
	loop->now_ns = loop->ops->now(loop->backend);
	if (rc == 0) {
		run_ready(loop);
		run_timers(loop);
		deliver_mail(loop);
		for (unsigned i = 0; i < LOOP_HOOK_PHASES; i++)
			run_hooks(&loop->hooks[i]);
	}
	if (loop->logger)
		(void)log_set_current(logger);
	return rc;
}

int loop_run(struct loop *loop)
{
	int rc = 0;

	own(loop);
	if (loop->ops->run_start)
		loop->ops->run_start(loop->backend);
	while (rc == 0 && !__atomic_exchange_n(&loop->is_stopped, 0, __ATOMIC_ACQUIRE))
		rc = loop_turn(loop, UINT64_MAX);
	if (loop->ops->run_stop)
		loop->ops->run_stop(loop->backend);
	return rc;
}

void loop_stop(struct loop *loop)
{
	__atomic_store_n(&loop->is_stopped, 1, __ATOMIC_RELEASE);
	wake(loop);
}

/* ---- small things ---- */

const char *loop_backend_name(const struct loop *loop)
{
	return loop->ops->name;
}

struct loop_backend *loop_backend_of(const struct loop *loop)
{
	return loop->backend;
}

uint64_t loop_now(const struct loop *loop)
{
	return loop->now_ns;
}

uint64_t loop_clock(const struct loop *loop)
{
	return loop->ops->now(loop->backend);
}

uint64_t loop_wall_clock(const struct loop *loop)
{
	return loop->ops->wall_clock(loop->backend);
}

struct random *loop_random(struct loop *loop)
{
	return &loop->random;
}

struct buffer_cache *loop_buffers(struct loop *loop)
{
	return loop->buffers;
}
