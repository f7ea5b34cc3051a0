/* What the files of the simulator share. */
#ifndef SIM_SIM_PRIV_H
#define SIM_SIM_PRIV_H

#include "lib/base/size.h"
#include "tests/sim/sim.h"

#define SIM_BEGIN_NS (1000 * NS_PER_S) /* virtual time at the start of a world */
#define SIM_WALL_NS  (1700000000 * NS_PER_S)

struct sim_inode;
struct sim_entry;
struct sim_listener;

/* An op that waits for an event: a disk operation, or a dial for its deadline. */
struct sim_op {
	struct sim_event event;
	struct sim_world *world;
	struct loop_op *op;
	struct cds_list_head link;    /* of the loop's ops, or of the spare ones */
	uint64_t begin_order;	      /* place among the writes when it began; see sim_disk.c */
	struct sim_inode *hangs_on;   /* borrowed from the file */
	struct cds_list_head hanging; /* there */
};

struct heap_entry {
	uint64_t time_ns;
	uint64_t tie;
	struct sim_event *event;
};

struct sim_world {
	uint64_t now_ns;
	struct random random;
	uint64_t events;
	uint64_t trace;
	bool is_running; /* inside an event */

	struct heap_entry *heap; /* [1 .. heap_count] */
	uint32_t heap_count;
	uint32_t heap_size;

	struct sim_host *hosts[SIM_HOSTS_MAX];
	unsigned host_count;
	struct cds_list_head packets;	/* on their way or held */
	struct cds_list_head spare_ops; /* struct sim_op */
	struct sim_block *spare_blocks;
};

/* A message from one end of a stream to the other. */
struct sim_link {
	struct sim_host *from, *to;
	bool is_cut;
	uint64_t delay_min_ns, delay_max_ns;
	struct cds_list_head held; /* packets, by held */
};

enum { SIM_FAULTS_MAX = 4 };

/* Faults that wait for their operation. */
struct sim_faults {
	struct {
		uint8_t kind; /* LOOP_OP_NONE: free */
		uint8_t fault;
		uint32_t countdown;
	} rows[SIM_FAULTS_MAX];
};

/* The disk of a host: names and what lies under them. */
struct sim_fs {
	struct sim_entry *entries;   /* uthash by path */
	struct cds_list_head inodes; /* all that live */
	struct cds_list_head
		pending; /* changes of names that no sync has made safe, oldest first */
	uint64_t size_bytes;
	uint64_t used_bytes;
	uint64_t order;		  /* of writes */
	struct sim_faults faults; /* of any file */
	bool is_hanging;
	uint8_t reads; /* enum sim_reads */
	struct sim_latency latency;
	struct sim_disk_watch *watch; /* NULL: nobody */
};

struct sim_host {
	struct sim_world *world;
	const char *name;
	unsigned index;
	char address[16];
	bool is_up; /* false from a power cut to the next loop */
	bool is_paused;
	uint64_t frozen_ns; /* since when its clock stands still; 0: it goes */
	uint64_t lag_ns;
	struct cds_list_head processes;
	struct sim_process *first;
	struct sim_fs fs;
	struct sim_listener *listeners; /* uthash by key */
	uint16_t next_port;
	struct sim_link links[SIM_HOSTS_MAX]; /* to each host */
};

struct sim_process {
	struct sim_host *host;
	struct cds_list_head link;
	struct cds_list_head loops;
	struct cds_list_head files;
	struct cds_list_head sockets;
	struct cds_list_head listeners;
};

struct sim_loop {
	struct loop_backend base;
	struct sim_process *process;
	struct cds_list_head link;
	struct cds_list_head ops; /* struct sim_op in flight */
	struct sim_event turn;
	bool is_turning; /* the world runs a turn of it */
	bool is_waiting; /* a caller from outside waits in it */
	bool is_kicked;	 /* and has something to do now */
};

static inline struct sim_loop *sim_loop_of(struct loop_backend *backend)
{
	return (struct sim_loop *)backend;
}

static inline struct sim_loop *sim_loop_of_op(const struct loop_op *op)
{
	return sim_loop_of(loop_backend_of(op->loop));
}

/* ---- sim_world.c ---- */

void *sim_alloc(size_t size); /* zeroed; a test without memory ends */
uint64_t sim_between(struct sim_world *world, uint64_t min, uint64_t max);
bool sim_coin(struct sim_world *world);
/* Run the first event if it is due by @until_ns. */
bool sim_step(struct sim_world *world, uint64_t until_ns);
/* Look at what was asked of loops from outside of any event. */
void sim_refresh(struct sim_world *world);
void sim_trace_note(struct sim_world *world, uint64_t what);

/* ---- sim_loop.c ---- */

/* The loop has something to do: it turns soon. */
void sim_loop_kick(struct sim_loop *loop);
/* Let it turn when it has something to do by itself. */
void sim_loop_plan(struct sim_loop *loop);
/* loop_op_finish() and a kick. */
void sim_finish(struct loop_op *op, int result);
/* Look again, after a pause. */
void sim_loop_resume(struct sim_loop *loop);
/* Forget the ops of @loop and free it. */
void sim_loop_destroy(struct sim_loop *loop);

struct sim_op *sim_op_new(struct loop_op *op, void (*run)(struct sim_event *event));
void sim_op_free(struct sim_op *op); /* also unschedules; NULL is allowed */

/* ---- sim_disk.c: inodes ---- */

#define SIM_SECTOR 512u
#define SIM_PAGE   4096u

struct sim_block { /* spare memory of a page */
	struct sim_block *next;
};

struct sim_inode {
	struct sim_fs *fs;
	struct sim_world *world;
	struct cds_list_head link;
	uint32_t refs; /* entries, pending changes, open files */
	bool is_directory;
	struct sim_file *locker;
	uint64_t size;
	uint64_t synced_size;
	uint64_t size_order; /* of the first change of size since the sync; 0: none */
	struct sim_page **pages;
	uint64_t page_count;
	uint64_t unreadable;	    /* of them */
	struct cds_list_head dirty; /* pages */
	struct cds_list_head hanging;
	struct sim_faults faults;
	/* The first bytes as memory that processes have mapped (NULL: none has), and as last taken from it. */
	uint8_t *map, *map_taken;
	uint64_t map_size;
	uint32_t map_users;
};

struct sim_inode *sim_inode_new(struct sim_host *host, bool is_directory);
static inline struct sim_inode *sim_inode_get(struct sim_inode *inode)
{
	if (inode)
		inode->refs++;
	return inode;
}
void sim_inode_put(struct sim_inode *inode);
/* The page at @offset is a read error until it is written. */
void sim_inode_break_page(struct sim_inode *inode, uint64_t offset);
/* All of the host's files can be read again. */
void sim_fs_mend_pages(struct sim_host *host);
bool sim_inode_is_readable(const struct sim_inode *inode, uint64_t size, uint64_t offset);
/* Whatever is unreadable. */
uint64_t sim_inode_read(struct sim_inode *inode, void *data, uint64_t size, uint64_t offset);
int sim_inode_write(struct sim_inode *inode, const void *data, uint64_t size, uint64_t offset);
int sim_inode_resize(struct sim_inode *inode, uint64_t size);
/* The first @size bytes as memory, until sim_inode_unmap(). -EINVAL: there are not so many. */
int sim_inode_map(struct sim_inode *inode, uint64_t size, void **out);
void sim_inode_unmap(struct sim_inode *inode);
/* The bytes of another, synced. */
void sim_inode_copy(struct sim_inode *to, struct sim_inode *from);
/* Flip a bit of a page with data, from page @from on, on disk. False: there is none. */
bool sim_inode_rot(struct sim_inode *inode, uint64_t from);
/* All writes that ended before @order are on disk now. */
void sim_inode_sync(struct sim_inode *inode, uint64_t order);
void sim_inode_power_cut(struct sim_inode *inode, enum sim_power_cut mode);

/* ---- sim_file.c: names and handles ---- */

struct sim_file {
	struct loop_file base;
	struct sim_inode *inode;
	unsigned flags;
	bool is_mapped;
	struct cds_list_head link; /* of the process */
};

void sim_fs_init(struct sim_host *host);
void sim_fs_done(struct sim_host *host);
void sim_fs_power_cut(struct sim_host *host, enum sim_power_cut mode);
/* NULL: no such name. */
struct sim_inode *sim_fs_find(struct sim_host *host, const char *path);
const char *sim_fs_path(struct sim_host *host, const struct sim_inode *inode);
int sim_fs_open(struct sim_process *process, const char *path, unsigned flags,
		struct loop_file **out);
int sim_fs_unlink(struct sim_host *host, const char *path);
int sim_fs_rename(struct sim_host *host, const char *from, const char *to);
int sim_fs_mkdir(struct sim_host *host, const char *path);
int sim_fs_sync_directory(struct sim_host *host, const char *path);
int sim_fs_list(struct sim_host *host, const char *path,
		int (*each)(void *context, const char *name), void *context);
void sim_file_free(struct sim_file *file);

/* ---- sim_file_op.c: operations on files ---- */

void sim_file_submit(struct sim_loop *loop, struct loop_op *op);
void sim_file_cancel(struct sim_loop *loop, struct loop_op *op);
/* Its process dies while it is in flight: it may have happened. */
void sim_file_op_lost(struct sim_op *op);
/* Tell who watches the disk. */
void sim_file_tell(struct sim_host *host, enum sim_disk_event what, const void *op,
		   const struct sim_inode *inode, const struct iovec *iov, unsigned count,
		   uint64_t offset);
/* The fault that @kind on @inode meets now, or -1. */
int sim_fault_meet(struct sim_inode *inode, enum loop_op_kind kind);

/* ---- sim_net.c, sim_socket.c ---- */

void sim_net_init(struct sim_host *host);
/* Packets of links to and from @host that waited for it may go on. */
void sim_net_release(struct sim_host *host);
void sim_net_done(struct sim_world *world);
void sim_socket_submit(struct sim_loop *loop, struct loop_op *op);
void sim_socket_cancel(struct sim_loop *loop, struct loop_op *op);
int sim_listen(struct loop_backend *backend, const char *address, struct loop_listener **out,
	       struct error *err);
void sim_listener_close(struct loop_backend *backend, struct loop_listener *listener);
void sim_listener_free(struct loop_backend *backend, struct loop_listener *listener);
void sim_socket_free(struct loop_backend *backend, struct loop_socket *socket);
void sim_socket_shutdown(struct loop_backend *backend, struct loop_socket *socket,
			 enum loop_shutdown how);
int sim_socket_pair(struct loop_backend *backend, struct loop_socket **a, struct loop_socket **b);
/* All of a process's sockets and listeners go. @is_told: their peers learn of it. */
void sim_process_drop_streams(struct sim_process *process, bool is_told);

#endif
