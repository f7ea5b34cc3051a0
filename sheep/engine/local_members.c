/*
 * Who lives: locks and pidfds (local_priv.h).
 *
 * Each start of a node makes a file members/NODE of its own (an inode that no other start uses) and
 * holds a lock of the open file description on it until its process has ended: the kernel lets go
 * when the last thread is gone, never before. So a lock that could be taken proves the end of the
 * start whose number is in the file. A peer's file stays open here, so that nobody can hide an end by
 * removing or replacing it.
 *
 *   seen, locked: LIVE --lock is free--> ENDED (told; its file is closed)
 *
 * When to look: inotify on the folder (somebody came, or closed the file it had open for writing: the
 * lock goes a moment later), and the pidfd where the process is in our namespace.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/local_priv.h"

#define PROBE_FIRST_NS (NS_PER_MS / 2)
#define PROBE_LAST_NS  (500 * NS_PER_MS) /* then only when the next event comes */
#define CLAIM_TRIES    100
#define CLAIM_WAIT_MS  500 /* for a start that was killed a moment ago */

struct local_peer {
	struct cds_list_head link;
	struct engine_member member;
	uint8_t info[ENGINE_INFO_MAX];
	dev_t device;
	ino_t inode;
	int fd; /* its file; -1 when it has ended */
	int pidfd;
	bool is_new;	 /* not yet in a list of members that was told */
	bool is_ignored; /* its file says nothing; kept so as to say so once */
	struct local_task death;
};

/* ---- locks and files ---- */

static int try_lock(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

static bool is_locked(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

static uint32_t member_crc(struct local_member head, const void *info, uint32_t size)
{
	head.crc = to_le32(0);
	head.state = to_le64(0);
	return crc32c_extend(crc32c(&head, sizeof(head)), info, size);
}

static int write_member(const struct engine *engine, int fd)
{
	const struct engine_member *self = &engine->self;
	struct local_member head = {
		.magic = to_le64(LOCAL_MEMBER_MAGIC),
		.version = to_le32(LOCAL_VERSION),
		.start = to_le64(self->start),
		.pid = to_le32((uint32_t)getpid()),
		.info_size = to_le32(self->info_size),
	};
	struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)self->info, self->info_size}};
	ssize_t put;

	memcpy(head.log, engine->log.bytes, sizeof(head.log));
	memcpy(head.node, self->node.bytes, sizeof(head.node));
	head.crc = to_le32(member_crc(head, self->info, self->info_size));
	put = pwritev(fd, iov, 2, 0);
	if (put < 0)
		return -errno;
	return put == (ssize_t)(sizeof(head) + self->info_size) ? 0 : -ENOSPC;
}

/* Read a member's file; @info has room for ENGINE_INFO_MAX. */
static int read_member(const struct local *local, int fd, struct local_member *head, void *info)
{
	struct iovec iov[2] = {{head, sizeof(*head)}, {info, ENGINE_INFO_MAX}};
	ssize_t got = preadv(fd, iov, 2, 0);

	if (got < 0)
		return -errno;
	if (got < (ssize_t)sizeof(*head) || from_le64(head->magic) != LOCAL_MEMBER_MAGIC)
		return -E_CORRUPT;
	if (from_le32(head->version) != LOCAL_VERSION)
		return -E_WRONG_VERSION;
	if (from_le32(head->info_size) > got - (ssize_t)sizeof(*head) ||
	    from_le32(head->crc) != member_crc(*head, info, from_le32(head->info_size)))
		return -E_CORRUPT;
	return memcmp(head->log, local->engine.log.bytes, sizeof(head->log)) ? -E_WRONG_CLUSTER : 0;
}

static int file_is(int fd, int dirfd, const char *name)
{
	struct stat ours, there;

	if (fstat(fd, &ours) < 0)
		return -errno;
	if (fstatat(dirfd, name, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	return ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

/* ---- our own ---- */

/* A file of our own beside the members', locked and written. */
static int make_own(struct local *local, const char *tmp)
{
	int fd = openat(local->members.dirfd, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int rc;

	if (fd < 0)
		return -errno;
	rc = try_lock(fd);
	if (rc == 0)
		rc = write_member(&local->engine, fd);
	if (rc == 0 && fsync(fd) < 0)
		rc = -errno;
	if (rc == 0)
		return fd;
	(void)close(fd);
	(void)unlinkat(local->members.dirfd, tmp, 0);
	return rc;
}

/* Put @tmp in the place of the last start's file, which we hold locked meanwhile. -EAGAIN: again. */
static int take_place(struct local *local, const char *tmp, const char *name, struct error *err)
{
	int dirfd = local->members.dirfd;
	int old = openat(dirfd, name, O_RDWR | O_CLOEXEC);
	int rc;

	if (old < 0 && errno == ENOENT) {
		if (linkat(dirfd, tmp, dirfd, name, 0) < 0)
			return errno == EEXIST ? -EAGAIN
					       : error_set(err, -errno, "members/%s", name);
		(void)unlinkat(dirfd, tmp, 0);
		return 0;
	}
	if (old < 0)
		return error_set(err, -errno, "members/%s", name);
	rc = try_lock(old);
	if (rc == -EAGAIN || rc == -EACCES) {
		struct local_member head;
		uint8_t info[ENGINE_INFO_MAX];
		uint32_t pid = read_member(local, old, &head, info) == 0 ? from_le32(head.pid) : 0;

		rc = error_set(err, -EBUSY, "node %s is running already (process %u)", name, pid);
	} else if (rc == 0) {
		rc = file_is(old, dirfd, name);
		if (rc == 0)
			rc = -EAGAIN;
		else if (rc > 0)
			rc = renameat(dirfd, tmp, dirfd, name) < 0 ? -errno : 0;
		if (rc < 0 && rc != -EAGAIN)
			error_set(err, rc, "members/%s", name);
	} else {
		error_set(err, rc, "lock members/%s", name);
	}
	(void)close(old);
	return rc;
}

static int claim(struct local *local, struct error *err)
{
	struct local_members *members = &local->members;
	char name[UUID_TEXT_SIZE], tmp[LOCAL_NAME_MAX];
	int rc = -EAGAIN;

	uuid_format(&local->engine.self.node, name);
	(void)snprintf(tmp, sizeof(tmp), "tmp.%s.%016llx", name,
		       (unsigned long long)local->engine.self.start);
	members->lock = make_own(local, tmp);
	if (members->lock < 0) {
		rc = members->lock;
		members->lock = -1;
		return error_set(err, rc, "members/%s", tmp);
	}
	for (int i = 0, waited = 0; i < CLAIM_TRIES && rc == -EAGAIN; i++) {
		rc = take_place(local, tmp, name, err);
		if (rc == -EBUSY && waited++ < CLAIM_WAIT_MS / 10) {
			(void)poll(NULL, 0, 10);
			rc = -EAGAIN;
		}
	}
	if (rc < 0)
		(void)unlinkat(members->dirfd, tmp, 0);
	return rc == -EAGAIN ? error_set(err, -EBUSY, "node %s: another start is in the way", name)
			     : rc;
}

int local_members_init(struct local *local, struct error *err)
{
	struct local_members *members = &local->members;
	char path[LOCAL_PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/members", local->dir);
	members->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (members->dirfd < 0)
		return error_set(err, -errno, "'%s'", path);
	members->watch = local_watch(local, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE);
	if (members->watch < 0)
		return error_set(err, -ENOSPC, "watch '%s': raise fs.inotify.max_user_watches",
				 path);
	return claim(local, err);
}

void local_members_leave(struct local *local)
{
	le64 state = to_le64(LOCAL_STATE_LEFT);
	ssize_t put;

	if (local->members.lock < 0)
		return;
	put = pwrite(local->members.lock, &state, sizeof(state),
		     offsetof(struct local_member, state));
	if (put != sizeof(state))
		log_warning("engine local: note of our leave: %s", err_text(-errno));
	local_members_drop(local);
}

void local_members_drop(struct local *local)
{
	if (local->members.lock >= 0)
		(void)close(local->members.lock);
	local->members.lock = -1;
}

/* ---- the peers ---- */

static struct local_peer *find_peer(struct local_members *members, const struct stat *st)
{
	struct local_peer *peer;

	cds_list_for_each_entry(peer, &members->peers, link)
		if (peer->fd >= 0 && peer->device == st->st_dev && peer->inode == st->st_ino)
			return peer;
	return NULL;
}

static bool is_known_end(struct local_members *members, const struct uuid *node, uint64_t start)
{
	struct local_peer *peer;

	cds_list_for_each_entry(peer, &members->peers, link)
		if (peer->fd < 0 && peer->member.start == start &&
		    uuid_is_equal(&peer->member.node, node))
			return true;
	return false;
}

static void on_death(struct local_task *task, int result)
{
	local_members_look(task->local);
}

static void watch_death(struct local *local, struct local_peer *peer, pid_t pid)
{
	local_task_init(local, &peer->death, on_death);
	if (pid <= 0 || pid == getpid())
		return;
	peer->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (peer->pidfd < 0) /* it has ended, or lives in another namespace */
		return;
	loop_poll(local->engine.loop, local_task_start(&peer->death), peer->pidfd, POLLIN);
}

static void insert_peer(struct local_members *members, struct local_peer *peer)
{
	const struct uuid *node = &peer->member.node;
	struct cds_list_head *at = &members->peers;
	struct local_peer *other;

	cds_list_for_each_entry(other, &members->peers, link) {
		if (memcmp(other->member.node.bytes, node->bytes, sizeof(node->bytes)) > 0)
			break;
		at = &other->link;
	}
	cds_list_add(&peer->link, at);
}

/* Takes @fd. */
static void add_peer(struct local *local, int fd, const struct stat *st, const struct uuid *node,
		     const char *name)
{
	struct local_peer *peer = calloc(1, sizeof(*peer));
	struct local_member head;
	int rc;

	if (!peer) { /* the next look finds it again */
		(void)close(fd);
		return;
	}
	*peer = (struct local_peer){
		.member = {.node = *node, .info = peer->info},
		.device = st->st_dev,
		.inode = st->st_ino,
		.fd = fd,
		.pidfd = -1,
	};
	rc = read_member(local, fd, &head, peer->info);
	if (rc == 0 && memcmp(head.node, node->bytes, sizeof(head.node)) != 0)
		rc = -E_CORRUPT;
	if (rc < 0) {
		log_warning("engine local: members/%s: %s: ignored", name, err_text(rc));
		peer->is_ignored = true;
		insert_peer(&local->members, peer);
		return;
	}
	peer->member.start = from_le64(head.start);
	peer->member.info_size = from_le32(head.info_size);
	if (is_known_end(&local->members, node, peer->member.start)) {
		(void)close(fd);
		free(peer);
		return;
	}
	peer->is_new = true;
	insert_peer(&local->members, peer);
	watch_death(local, peer, (pid_t)from_le32(head.pid));
}

static void find_new(struct local *local)
{
	struct local_members *members = &local->members;
	int dirfd = openat(members->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = dirfd < 0 ? NULL : fdopendir(dirfd);
	struct dirent *entry;
	struct uuid id;
	struct stat st;
	int fd;

	if (!dir) {
		if (dirfd >= 0)
			(void)close(dirfd);
		return;
	}
	while ((entry = readdir(dir))) {
		if (uuid_parse(entry->d_name, &id) < 0)
			continue;
		fd = openat(members->dirfd, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			continue;
		if (fstat(fd, &st) < 0 || find_peer(members, &st))
			(void)close(fd);
		else
			add_peer(local, fd, &st, &id, entry->d_name);
	}
	(void)closedir(dir);
}

/* The lock of this peer is free. */
static void peer_ended(struct local *local, struct local_peer *peer)
{
	le64 state = {0};
	ssize_t got = pread(peer->fd, &state, sizeof(state), offsetof(struct local_member, state));
	bool has_left = got == sizeof(state) && from_le64(state) == LOCAL_STATE_LEFT;
	char text[UUID_TEXT_SIZE];

	(void)close(peer->fd);
	peer->fd = -1;
	log_info("engine local: node %s start %016llx: %s", uuid_format(&peer->member.node, text),
		 (unsigned long long)peer->member.start, has_left ? "has left" : "has died");
	engine_tell_ended(&local->engine, &peer->member.node, peer->member.start,
			  has_left ? ENGINE_END_LEFT : ENGINE_END_DIED);
}

/* An ended peer is remembered until a later start of its node is known. */
static void forget_old(struct local_members *members)
{
	struct local_peer *peer, *next;

	cds_list_for_each_entry_safe(peer, next, &members->peers, link) {
		if (peer->fd >= 0 || peer->death.is_busy || &next->link == &members->peers ||
		    !uuid_is_equal(&peer->member.node, &next->member.node))
			continue;
		cds_list_del(&peer->link);
		if (peer->pidfd >= 0)
			(void)close(peer->pidfd);
		free(peer);
	}
}

static void tell_members(struct local *local)
{
	struct engine_member *list = NULL;
	struct local_peer *peer;
	uint32_t count = 0;

	cds_list_for_each_entry(peer, &local->members.peers, link)
		count += peer->fd >= 0 && !peer->is_ignored;
	list = calloc(count + 1, sizeof(*list));
	if (!list) {
		local_fail(local, -ENOMEM, "list of members");
		return;
	}
	count = 0;
	cds_list_for_each_entry(peer, &local->members.peers, link) {
		if (peer->fd < 0 || peer->is_ignored)
			continue;
		if (count && uuid_is_equal(&list[count - 1].node, &peer->member.node))
			count--; /* the later start of the two */
		list[count++] = peer->member;
	}
	engine_tell_members(&local->engine, list, count);
	free(list);
}

void local_members_scan(struct local *local)
{
	struct local_members *members = &local->members;
	struct local_peer *peer;
	bool is_changed = false;

	find_new(local);
	cds_list_for_each_entry(peer, &members->peers, link) {
		if (peer->fd >= 0 && !peer->is_ignored && !is_locked(peer->fd)) {
			peer_ended(local, peer);
			is_changed = true;
			if (local->is_stopped)
				return;
		}
		is_changed |= peer->is_new;
		peer->is_new = false;
	}
	forget_old(members);
	if (is_changed)
		tell_members(local);
}

static void on_probe(struct loop_timer *timer)
{
	struct local_members *members = container_of_type(timer, struct local_members, probe);
	struct local *local = container_of_type(members, struct local, members);

	local_members_scan(local);
	if (local->is_stopped || members->probe_after_ns >= PROBE_LAST_NS)
		return;
	members->probe_after_ns *= 2;
	loop_timer_start(local->engine.loop, timer,
			 loop_now(local->engine.loop) + members->probe_after_ns);
}

void local_members_look(struct local *local)
{
	struct local_members *members = &local->members;

	if (local->engine.state != ENGINE_READY)
		return;
	members->probe.fire = on_probe;
	members->probe_after_ns = PROBE_FIRST_NS;
	loop_timer_start(local->engine.loop, &members->probe,
			 loop_now(local->engine.loop) + members->probe_after_ns);
	local_members_scan(local);
}

void local_members_stop(struct local *local)
{
	struct local_peer *peer;

	loop_timer_stop(local->engine.loop, &local->members.probe);
	cds_list_for_each_entry(peer, &local->members.peers, link)
		if (peer->death.is_busy)
			loop_cancel(local->engine.loop, &peer->death.op);
}

void local_members_done(struct local *local)
{
	struct local_members *members = &local->members;
	struct local_peer *peer, *next;

	local_members_drop(local);
	cds_list_for_each_entry_safe(peer, next, &members->peers, link) {
		if (peer->fd >= 0)
			(void)close(peer->fd);
		if (peer->pidfd >= 0)
			(void)close(peer->pidfd);
		free(peer);
	}
	if (members->dirfd >= 0)
		(void)close(members->dirfd);
}
