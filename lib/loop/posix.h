/*
 * Files and sockets of the real kernel, shared by the real back ends: handles,
 * addresses, and the calls that need no waiting.
 */
#ifndef LOOP_POSIX_H
#define LOOP_POSIX_H

#include <sys/socket.h>

#include "lib/loop/backend.h"

struct posix_file {
	struct loop_file base;
	int fd;
	void *map; /* NULL: not mapped */
	size_t map_size;
};

struct posix_socket {
	struct loop_socket base;
	int fd;
	bool has_more; /* the last recv left bytes behind, or nobody knows */
	/* epoll */
	bool is_watched;
	bool is_hung;		 /* the other side has ended its direction, or all is over */
	struct loop_op *connect; /* in flight */
};

struct posix_listener {
	struct loop_listener base;
	int fd;
	uint64_t inode, device; /* of a unix socket's file */
	bool is_watched;	/* epoll */
};

struct address {
	struct sockaddr_storage storage;
	socklen_t length;
};

/* address.c: 0, or -EINVAL with a text. */
int address_parse(const char *text, struct address *out, struct error *err);
/* "ADDR:PORT" of an IP address; @out of LOOP_ADDRESS_MAX bytes. */
void address_format(const struct address *address, char *out);

/* ---- posix_transfer.c ---- */

/*
 * What is left of op->iov after op->result bytes: whole vectors from where this begins one, else
 * the rest of the one that it ends in, in *@single (what follows is for another round; there is no
 * memory for a changed copy of the array). Returns the count, at most what one call takes.
 */
unsigned posix_transfer_rest(const struct loop_op *op, const struct iovec **out,
			     struct iovec *single);
/* Has a read that moved something got all that there is? */
bool posix_read_is_whole(const struct loop_op *op);

/* ---- posix_file.c ---- */

/* open(2) flags for loop_file_flags. */
int posix_open_flags(unsigned flags);
#define POSIX_OPEN_MODE 0600
/* Takes @fd, also on failure. */
int posix_file_new(int fd, bool is_direct, struct loop_file **out);
static inline int posix_file_fd(const struct loop_file *file)
{
	return ((const struct posix_file *)file)->fd;
}
void posix_file_close(struct loop_backend *backend, struct loop_file *file);
int posix_sync_open(struct loop_backend *backend, const char *path, unsigned flags,
		    struct loop_file **out);
int64_t posix_sync_read(struct loop_backend *backend, struct loop_file *file, void *data,
			size_t size, uint64_t offset);
int posix_sync_write(struct loop_backend *backend, struct loop_file *file, const void *data,
		     size_t size, uint64_t offset);
int posix_sync_fsync(struct loop_backend *backend, struct loop_file *file);
int64_t posix_sync_size(struct loop_backend *backend, struct loop_file *file);
int posix_sync_truncate(struct loop_backend *backend, struct loop_file *file, uint64_t size);
int posix_sync_unlink(struct loop_backend *backend, const char *path);
int posix_sync_rename(struct loop_backend *backend, const char *from, const char *to);
int posix_sync_mkdir(struct loop_backend *backend, const char *path);
int posix_sync_fsync_dir(struct loop_backend *backend, const char *path);
int posix_sync_list(struct loop_backend *backend, const char *path,
		    int (*each)(void *context, const char *name), void *context);
int posix_sync_free_space(struct loop_backend *backend, const char *path, uint64_t *out_bytes);
int posix_sync_lock(struct loop_backend *backend, struct loop_file *file);
int posix_sync_is_locked(struct loop_backend *backend, struct loop_file *file);
int posix_sync_map(struct loop_backend *backend, struct loop_file *file, size_t size, void **out);

/* ---- posix_socket.c ---- */

/* A connected or yet unconnected descriptor; takes @fd, also on failure. */
int posix_socket_new(int fd, struct loop_socket **out);
/* A socket to connect to @address with; @text names it for logs. */
int posix_socket_open(const struct address *address, const char *text, struct loop_socket **out);
void posix_set_nonblocking(int fd);
/* After accept: find out who it is. After connect: -ECONNREFUSED when it is ourselves. */
void posix_socket_accepted(struct loop_socket *socket);
int posix_socket_connected(struct loop_socket *socket);
static inline int posix_socket_fd(const struct loop_socket *socket)
{
	return ((const struct posix_socket *)socket)->fd;
}
static inline int posix_listener_fd(const struct loop_listener *listener)
{
	return ((const struct posix_listener *)listener)->fd;
}
int posix_listen(struct loop_backend *backend, const char *address, struct loop_listener **out,
		 struct error *err);
void posix_listener_close(struct loop_backend *backend, struct loop_listener *listener);
void posix_listener_free(struct loop_backend *backend, struct loop_listener *listener);
void posix_socket_free(struct loop_backend *backend, struct loop_socket *socket);
void posix_socket_shutdown(struct loop_backend *backend, struct loop_socket *socket,
			   enum loop_shutdown how);
int posix_socket_pair(struct loop_backend *backend, struct loop_socket **a, struct loop_socket **b);

/* ---- posix_clock.c ---- */

uint64_t posix_now(struct loop_backend *backend);
uint64_t posix_wall_clock(struct loop_backend *backend);

/* ---- what every real back end has in its table ---- */

/* clang-format off */
#define POSIX_BACKEND_OPS \
	.now = posix_now, \
	.wall_clock = posix_wall_clock, \
	.file_close = posix_file_close, \
	.listener_close = posix_listener_close, \
	.listener_free = posix_listener_free, \
	.socket_free = posix_socket_free, \
	.socket_shutdown = posix_socket_shutdown, \
	.socket_pair = posix_socket_pair, \
	.sync_open = posix_sync_open, \
	.sync_read = posix_sync_read, \
	.sync_write = posix_sync_write, \
	.sync_fsync = posix_sync_fsync, \
	.sync_size = posix_sync_size, \
	.sync_truncate = posix_sync_truncate, \
	.sync_unlink = posix_sync_unlink, \
	.sync_rename = posix_sync_rename, \
	.sync_mkdir = posix_sync_mkdir, \
	.sync_fsync_dir = posix_sync_fsync_dir, \
	.sync_list = posix_sync_list, \
	.sync_free_space = posix_sync_free_space, \
	.sync_lock = posix_sync_lock, \
	.sync_is_locked = posix_sync_is_locked, \
	.sync_map = posix_sync_map
/* clang-format on */

#endif
