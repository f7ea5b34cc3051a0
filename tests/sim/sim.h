/*
 * The simulated world: machines with disks and a network between them, in one
 * process, in virtual time, from one seed.
 *
 * A world holds hosts (machines: a file system, an address), a host holds
 * processes, a process holds loops. sim_loop_new() gives a `struct loop` that
 * the code under test cannot tell from a real one. Everything that happens is
 * an event; events run one at a time, ordered by (virtual time, seeded
 * tie-break), so a seed replays a run exactly. One thread.
 *
 * Loops turn while the world runs (sim_world_run_until(), or loop_turn() and
 * loop_run() called from outside, which run the world until that loop has
 * something to do). What a turn of one loop does to another loop must go
 * through loop_post() or a stream, as with real threads.
 *
 * docs/internals/loop.md says what the model promises and what it leaves out.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "lib/loop/backend.h"
#include "lib/loop/loop.h"

struct sim_world;
struct sim_host;
struct sim_process;

/* ---- the world ---- */

struct sim_world *sim_world_new(uint64_t seed);
/* Kills what still runs; all goes. NULL is allowed. */
void sim_world_free(struct sim_world *world);
uint64_t sim_now(const struct sim_world *world);
/* The world's own randomness: for scenarios, so that they follow the seed. */
struct random *sim_random(struct sim_world *world);

/*
 * Run until virtual time @until_ns, or until @is_done (may be NULL; asked after
 * every event) says true. Returns whether it did. Not from within a turn.
 */
bool sim_world_run_until(struct sim_world *world, uint64_t until_ns, bool (*is_done)(void *context),
			 void *context);

/* Counts and hashes all events so far: equal for equal seeds and scenarios. */
uint64_t sim_world_events(const struct sim_world *world);
uint64_t sim_world_trace(const struct sim_world *world);

/* Something a scenario wants to happen: embedded in its owner. */
struct sim_event {
	void (*run)(struct sim_event *event);
	uint64_t time_ns;
	uint32_t heap_index; /* private; 0: not scheduled */
};

/* At @time_ns or now if that has passed. A scheduled event moves. */
void sim_schedule(struct sim_world *world, struct sim_event *event, uint64_t time_ns);
void sim_unschedule(struct sim_world *world, struct sim_event *event); /* not scheduled: nothing */

/* ---- hosts, processes, loops ---- */

#define SIM_HOSTS_MAX 64

/* @name is borrowed. NULL when there are too many. */
struct sim_host *sim_host_new(struct sim_world *world, const char *name);
/* Its numeric IPv4 address, "10.0.0.1" and on; put a port behind it to listen or dial. */
const char *sim_host_address(const struct sim_host *host);
const char *sim_host_name(const struct sim_host *host);

/* Another process on @host, beside the one that it begins with. */
struct sim_process *sim_process_new(struct sim_host *host);

/* A loop of @host's first process, or of @process. A seed of 0 is drawn from the world's. */
int sim_loop_new(struct sim_world *world, struct sim_host *host, const struct loop_options *options,
		 struct loop **out);
int sim_process_loop_new(struct sim_process *process, const struct loop_options *options,
			 struct loop **out);

/*
 * kill -9: the process's loops are freed with what was in flight, its streams
 * are reset, its listeners close, its locks go; what it wrote stays, synced or
 * not; a write in flight may or may not have happened. The owners of ops,
 * timers and mail are to be freed after. A process can be used again at once.
 * Not from within a turn of its own.
 */
void sim_process_kill(struct sim_process *process);
void sim_host_crash(struct sim_host *host); /* all its processes */

/*
 * SIGSTOP and SIGCONT: the loops of all processes do not turn; streams take what comes, operations
 * end, and nobody looks. Not from within a turn of its own. A crash or a start ends it.
 */
void sim_host_pause(struct sim_host *host);
void sim_host_resume(struct sim_host *host);
bool sim_host_is_paused(const struct sim_host *host);
/* The same, and its clocks stand still: a virtual machine that is stopped from outside. */
void sim_host_freeze(struct sim_host *host);
void sim_host_thaw(struct sim_host *host);
/* How far its clock is behind sim_now(), for all the times that it was frozen. */
uint64_t sim_host_lag(const struct sim_host *host);

enum sim_power_cut {
	SIM_KEEP_ALL,	     /* the disk had written everything */
	SIM_DROP_UNSYNCED,   /* and this nothing but what it had to */
	SIM_RANDOM_UNSYNCED, /* each unsynced sector of 512 bytes, and a prefix of the changes of
				names, by chance */
};

/*
 * The machine loses power: as a crash of all processes, but nobody tells their
 * peers, and unsynced data is treated by @mode. Names that were made, moved or
 * removed since their directory was synced may be as before. The machine is
 * back as soon as a loop is made on it; only then are its old streams reset.
 */
void sim_host_power_cut(struct sim_host *host, enum sim_power_cut mode);

/* ---- disks ---- */

/* How long operations take; each draws from its range. */
struct sim_latency {
	uint64_t read_min_ns, read_max_ns;
	uint64_t write_min_ns, write_max_ns;
	uint64_t sync_min_ns, sync_max_ns;
};
void sim_host_set_latency(struct sim_host *host, const struct sim_latency *latency);
uint64_t sim_host_disk_used(const struct sim_host *host);
/* Beyond it writes that extend files get -ENOSPC. Default: 1 TiB. */
void sim_host_set_disk_size(struct sim_host *host, uint64_t size_bytes);

enum sim_fault {
	SIM_FAULT_EIO,
	SIM_FAULT_HANG,
	SIM_FAULT_LOST,	     /* says that it is done, and did nothing */
	SIM_FAULT_MISDIRECT, /* a write lands on other blocks of the same file */
	SIM_FAULT_ENOSPC,
	/* A host has one such page at a time: of two within a minute a store says that the disk is broken. */
	SIM_FAULT_SECTOR, /* one page of what is read is an error, until it is written: SIM_FAULT_EIO is gone the next time */
};

/*
 * The @nth (1: next) operation of @kind on the file at @path, counted from now,
 * fails, or hangs until sim_file_unhang(). Blocking calls count too; one that
 * would hang fails. 0, -ENOENT, or -EBUSY: two faults of a kind at a time.
 */
int sim_file_fault(struct sim_host *host, const char *path, enum loop_op_kind kind, unsigned nth,
		   enum sim_fault fault);
/* The same for whichever file of the host meets it first. */
int sim_host_fault(struct sim_host *host, enum loop_op_kind kind, unsigned nth,
		   enum sim_fault fault);
/* No fault is waiting any more. */
void sim_host_forget_faults(struct sim_host *host);
/* Every operation of its files hangs, until it does not. */
void sim_host_hang_disk(struct sim_host *host, bool is_hanging);
/* What becomes of every read of its files, while writes go on. */
enum sim_reads { SIM_READS_WORK, SIM_READS_FAIL, SIM_READS_LIE /* a bit is wrong */ };
void sim_host_break_reads(struct sim_host *host, enum sim_reads how);
/*
 * Flip a bit in a page that holds something, on disk and behind its back, in one of the files with
 * more than @size_min bytes. False: there is none.
 */
bool sim_host_rot(struct sim_host *host, uint64_t size_min);
/* All files go, as if the disk were replaced. No process may have any open. */
void sim_host_wipe(struct sim_host *host);
/* All files of @from as they are now, synced, on @to too: a backup, or a copied disk. */
void sim_host_copy_disk(struct sim_host *to, struct sim_host *from);
/* Lets operations that hang on @path go on. */
int sim_file_unhang(struct sim_host *host, const char *path);

/* The bytes of a file as a process would read them; and changing them behind its back, on disk. */
int64_t sim_file_peek(struct sim_host *host, const char *path, void *data, size_t size,
		      uint64_t offset);
int sim_file_poke(struct sim_host *host, const char *path, const void *data, size_t size,
		  uint64_t offset);

/*
 * Every write and sync of the host's files, as they begin and as they are done, in the order in which they do.
 * Blocking ones do both at once. What begins and is never done was in flight when its process died,
 * and did not happen.
 */
enum sim_disk_event {
	SIM_DISK_WRITE_BEGUN,
	SIM_DISK_WRITE_DONE,
	SIM_DISK_SYNC_BEGUN,
	SIM_DISK_SYNC_DONE
};

struct sim_disk_watch {
	/* @op is the same for both ends of an operation. @iov: of WRITE_BEGUN only. */
	void (*event)(struct sim_disk_watch *watch, enum sim_disk_event what, const void *op,
		      const char *path, const struct iovec *iov, unsigned count, uint64_t offset);
};
/* One at a time; NULL: nobody. */
void sim_host_watch_disk(struct sim_host *host, struct sim_disk_watch *watch);

/* ---- network ---- */

/* Delay of each message from @from to @to. */
void sim_link_set_delay(struct sim_host *from, struct sim_host *to, uint64_t min_ns,
			uint64_t max_ns);
/*
 * Nothing gets from @from to @to until it is healed; what was sent arrives
 * then, as TCP's retransmissions would. A dial that is not answered for 127 s fails.
 */
void sim_link_cut(struct sim_host *from, struct sim_host *to);
void sim_link_heal(struct sim_host *from, struct sim_host *to);
/* Both ways. */
void sim_partition(struct sim_host *a, struct sim_host *b);
void sim_unpartition(struct sim_host *a, struct sim_host *b);
/* Reset every stream between two hosts, at both ends at once. */
void sim_reset_streams(struct sim_host *a, struct sim_host *b);

#endif
