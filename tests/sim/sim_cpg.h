/*
 * A model of machines with corosync, on which the agreement (sheep/engine/agree.h) runs: its own
 * virtual time, one process a machine, everything from one seed.
 *
 * What CPG does here, and no more: within a ring of daemons that hear each other messages have one
 * order. When a ring breaks, those who stay together deliver the same messages of it, of those whose
 * senders went away with holes and ends as it happens, perhaps fewer than others did; then they get a
 * view without the others, then one with those who came. A message that was sent before may be
 * delivered after. A process gets what its daemon has for it late, in order. Votequorum's word comes
 * at its own time.
 *
 * A disk keeps what was synced; of what was being written at a power cut or kill it keeps some, all, or garbage.
 */
#ifndef SIM_CPG_H
#define SIM_CPG_H

#include "lib/base/random.h"
#include "lib/base/size.h"
#include "sheep/engine/agree.h"

#define SIM_CPG_NODES 8

struct sim_cpg;

struct sim_cpg_options {
	uint64_t seed;
	unsigned nodes;
	unsigned again_percent; /* sends that are not taken */
	uint64_t write_max_ns;	/* a write takes up to this; 0: 2 ms */
};

struct sim_cpg *sim_cpg_new(const struct sim_cpg_options *options);
void sim_cpg_free(struct sim_cpg *sim);
uint64_t sim_cpg_now(const struct sim_cpg *sim);
struct random *sim_cpg_random(struct sim_cpg *sim);
/* Until @is_done (may be NULL) says so, or @until_ns; whether it did. */
bool sim_cpg_run(struct sim_cpg *sim, uint64_t until_ns, bool (*is_done)(void *context),
		 void *context);
/* A number that two equal runs end with, too. */
uint64_t sim_cpg_trace(const struct sim_cpg *sim);

/* ---- processes ---- */

/*
 * Start a sheep on @node. Of @tell only what tells is used, with @context. The process goes by
 * sim_cpg_stop() in `left`, or by a kill. NULL: agree_restore() refused; text in @err.
 */
struct agree *sim_cpg_start(struct sim_cpg *sim, unsigned node, const struct agree_options *options,
			    const struct agree_ops *tell, void *context, struct error *err);
/* It has left: CPG is closed, the core freed. */
void sim_cpg_stop(struct sim_cpg *sim, unsigned node);
/* kill -9. @is_seen: the other kernels see its connections close, some time later. */
void sim_cpg_kill(struct sim_cpg *sim, unsigned node, bool is_seen);
/* Now somebody sees the connections of that start closed. */
void sim_cpg_confirm(struct sim_cpg *sim, const struct uuid *node, uint64_t start);
/* The machine: process, daemon, and what was not synced. The daemon is down until it is started. */
void sim_cpg_power_cut(struct sim_cpg *sim, unsigned node);
struct agree *sim_cpg_core(struct sim_cpg *sim, unsigned node); /* NULL: none runs */
/* SIGSTOP: nothing is handed to it, its timer does not run. */
void sim_cpg_set_paused(struct sim_cpg *sim, unsigned node, bool is_paused);
/* CPG loses a process that lives; it comes back by itself. */
void sim_cpg_lose(struct sim_cpg *sim, unsigned node);
/* Its connections close and are made again. */
void sim_cpg_flap_links(struct sim_cpg *sim, unsigned node);

/* ---- corosync ---- */

void sim_cpg_set_daemon(struct sim_cpg *sim, unsigned node, bool is_up);
bool sim_cpg_daemon_is_up(const struct sim_cpg *sim, unsigned node);
/* Nodes of the same number hear each other. @groups: of each node. */
void sim_cpg_partition(struct sim_cpg *sim, const uint8_t *groups);
void sim_cpg_heal(struct sim_cpg *sim);
/* Votequorum says no, whatever is so; or what is so. */
void sim_cpg_deny_quorum(struct sim_cpg *sim, bool is_denied);
/* Votequorum says yes whatever is so: a broken configuration. */
void sim_cpg_grant_quorum(struct sim_cpg *sim, bool is_granted);
/* Hand over message @data as if @from said it to all of its ring. */
void sim_cpg_inject(struct sim_cpg *sim, unsigned from, const void *data, size_t size);
/* Asked for each message before it is ordered; true: it is lost. For directed tests. */
void sim_cpg_set_filter(struct sim_cpg *sim,
			bool (*drop)(void *context, unsigned from, const uint8_t *data,
				     size_t size),
			void *context);

/* Told of each message that a core says and CPG takes; not of injected ones. */
void sim_cpg_set_witness(struct sim_cpg *sim,
			 void (*hear)(void *context, unsigned from, const uint8_t *data,
				      size_t size),
			 void *context);

/* ---- disks ---- */

void sim_cpg_blank_disk(struct sim_cpg *sim, unsigned node); /* no process runs there */
/* Writes hang until they do not. */
void sim_cpg_hang_disk(struct sim_cpg *sim, unsigned node, bool is_hanging);
/* From now on each write of any disk takes @ns, a tenth more or less; 0: as the options say. */
void sim_cpg_slow_disks(struct sim_cpg *sim, uint64_t ns);
/* @to gets the files of @from as they are: a copied directory. No process runs on @to. */
void sim_cpg_clone_disk(struct sim_cpg *sim, unsigned from, unsigned to);
/* What the disk has now; and back to that: an old backup. No process runs. */
void sim_cpg_save_disk(struct sim_cpg *sim, unsigned node);
void sim_cpg_restore_disk(struct sim_cpg *sim, unsigned node);
/* Bytes of the newest log file, to be damaged. */
uint8_t *sim_cpg_log_bytes(struct sim_cpg *sim, unsigned node, size_t *size);
/* The next write of that disk fails. */
void sim_cpg_fail_disk(struct sim_cpg *sim, unsigned node);

#endif
