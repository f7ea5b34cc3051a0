/*
 * For tests of the gateway: one node's gateway on the simulated loop, over a made-up PG layer that keeps
 * what it is given and answers what the test says.
 */
#ifndef TESTS_UNIT_GATEWAY_BENCH_H
#define TESTS_UNIT_GATEWAY_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sheep/gateway/gateway.h"
#include "sheep/gateway/gateway_priv.h"
#include "tests/sim/sim.h"

/* ---- the made-up PG layer ---- */

#define SEEN_MAX 20000

struct pg_set {
	struct pg_io *ios[SEEN_MAX]; /* that came; NULL: answered */
	unsigned io_count;
	struct pg_sync *syncs[64];
	unsigned sync_count;
	struct pg_drain *drains[64];
	unsigned drain_count;
};

extern struct pg_set fake_set;
extern uint16_t fake_home;	 /* loop of every PG */
extern uint64_t fake_loss_epoch; /* as primaries tell it */

/* Answer the n-th that came. */
void bench_answer(unsigned n, int result);
void bench_answer_sync(unsigned n, int result);

/* ---- a cluster of one ---- */

struct bench {
	struct sim_world *world;
	struct loop *loop;
	struct loop_timer clock; /* the loop turns, so that its time is the world's */
	struct gateway_hub *hub;
	struct gateway *gateway;
	struct cluster_map *map;
	struct cluster_proposer proposer;
	struct loop *loops[1];
	struct pg_set *sets[1];
	struct gateway_volume *volume;
	uint64_t index;
	uint64_t session;
	unsigned proposals;
	bool keeps_proposals; /* do not apply them */
	struct cluster_command *kept;
	bool has_effect; /* of the hub's last command */
	void *token;	 /* of the hub's last command; NULL: it has been decided */
};

/* A volume "disk" of 16 GiB, shared, is open. */
int bench_setup(void **state);
int bench_teardown(void **state);
/* The node signs it and it is applied to bench->map: cluster_result_done() is the caller's. */
struct cluster_result bench_apply(struct bench *bench, struct cluster_command *command);
/* Gateway and hub get the map. */
void bench_publish(struct bench *bench);
void bench_commit_kept(struct bench *bench);
void bench_run_ms(struct bench *bench, uint64_t ms);
void bench_register(struct bench *bench, uint64_t incarnation);
/* The machine loses power and comes back: all PGs have lost what was not synced. */
void bench_lose_power(struct bench *bench, uint64_t incarnation);
void bench_elect(struct bench *bench);
/* open->result becomes 1000 and more, or less by its error. */
void bench_on_open(struct gateway_open *open, int result);
int bench_open(struct bench *bench, struct gateway_open *open, const char *name);

/* ---- requests ---- */

struct request {
	struct gateway_io io;
	int done; /* times */
	int result;
};

extern uint8_t bench_bytes[9 << 20]; /* what is written */
void bench_submit(struct bench *bench, struct request *request, enum gateway_io_kind kind,
		  uint64_t offset, uint64_t length);
/* A FLUSH that asks, and succeeds. */
void bench_flush_ok(struct bench *bench);

/* ---- another gateway, which is in the map only ---- */

struct bench_other {
	struct cluster_proposer proposer;
	uint64_t session;
};

struct bench_other bench_other_new(struct bench *bench);
enum proto_status bench_by_other(struct bench *bench, struct bench_other *other,
				 struct cluster_command *command);
void bench_other_opens(struct bench *bench, struct bench_other *other, const char *name);
/* It takes the volume over, and our gateway has not heard of it. */
void bench_other_takes(struct bench *bench, struct bench_other *other, const char *name);

/* ---- connections to volumes of a test's own ---- */

struct bench_connection {
	struct gateway_open open;
	struct gateway_volume *volume;
	unsigned lost; /* times that we were told */
};

const struct cluster_volume *bench_volume(struct bench *bench, const char *name);
/* A volume with this property; and a change of one. */
void bench_create(struct bench *bench, const char *name, const char *key, const char *value);
void bench_set(struct bench *bench, const char *name, const char *key, const char *value);
void bench_connect(struct bench *bench, struct bench_connection *connection, const char *name);
/* 4 KiB, or a FLUSH. */
void bench_go(struct bench *bench, struct bench_connection *connection, struct request *request,
	      enum gateway_io_kind kind, uint64_t offset);
/* What was proposed is applied, and told. */
void bench_settle(struct bench *bench);
void bench_answer_drain(unsigned n, int result);
/* A connection whose first write has been executed. */
void bench_own(struct bench *bench, struct bench_connection *connection, const char *name);

#endif
