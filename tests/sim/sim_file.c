/*
 * Names of files, and handles.
 *
 * Paths are one flat table per host. Each change of a name is also kept, with
 * what the name meant before, until a sync of its directory; a power cut undoes
 * the ones it takes, newest first. Changes reach the disk in order (as in a
 * journal), so what survives is a prefix.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "lib/base/assert.h"
#include "tests/sim/sim_priv.h"

#define PATH_SIZE_MAX 256

struct sim_entry {
	char path[PATH_SIZE_MAX];
	struct sim_inode *inode;
	UT_hash_handle hh;
};

/* Name @path meant @before until now. */
struct change {
	struct cds_list_head link;
	char path[PATH_SIZE_MAX];
	struct sim_inode *before; /* NULL: nothing */
};

/* ---- paths ---- */

/* One form for each path: absolute, no empty or "." parts. */
static int normalise(const char *path, char *out)
{
	size_t length = 0;

	while (*path) {
		size_t part = strcspn(path, "/");

		if (part > 0 && !(part == 1 && path[0] == '.')) {
			if (length + part + 2 > PATH_SIZE_MAX)
				return -ENAMETOOLONG;
			out[length++] = '/';
			memcpy(out + length, path, part);
			length += part;
		}
		path += part + (path[part] == '/');
	}
	if (length == 0)
		out[length++] = '/';
	out[length] = '\0';
	return 0;
}

static void parent_of(const char *path, char *out)
{
	size_t length = (size_t)(strrchr(path, '/') - path);

	memcpy(out, path, length);
	if (length == 0)
		out[length++] = '/';
	out[length] = '\0';
}

/* ---- the table ---- */

static struct sim_entry *entry_find(struct sim_host *host, const char *path)
{
	struct sim_entry *entry;

	HASH_FIND_STR(host->fs.entries, path, entry);
	return entry;
}

/* @path means @inode from now on; NULL: nothing. */
static void entry_set(struct sim_host *host, const char *path, struct sim_inode *inode)
{
	struct sim_entry *entry = entry_find(host, path);

	(void)sim_inode_get(inode);
	if (!entry && inode) {
		entry = sim_alloc(sizeof(*entry));
		memcpy(entry->path, path, strlen(path) + 1);
		HASH_ADD_STR(host->fs.entries, path, entry);
	}
	if (!entry)
		return;
	sim_inode_put(entry->inode);
	entry->inode = inode;
	if (!inode) {
		HASH_DEL(host->fs.entries, entry);
		free(entry);
	}
}

/* The same, and until a sync of the directory a power cut may undo it. */
static void entry_change(struct sim_host *host, const char *path, struct sim_inode *inode)
{
	struct sim_entry *entry = entry_find(host, path);
	struct change *change = sim_alloc(sizeof(*change));

	memcpy(change->path, path, strlen(path) + 1);
	change->before = sim_inode_get(entry ? entry->inode : NULL);
	cds_list_add_tail(&change->link, &host->fs.pending);
	entry_set(host, path, inode);
}

static void change_free(struct change *change)
{
	cds_list_del(&change->link);
	sim_inode_put(change->before);
	free(change);
}

/* The entry at @path, normalised into @out; -ENOENT also when its directory is missing. */
static int look_up(struct sim_host *host, const char *path, char *out, struct sim_entry **entry)
{
	char parent[PATH_SIZE_MAX];
	struct sim_entry *directory;
	int rc = normalise(path, out);

	if (rc < 0)
		return rc;
	parent_of(out, parent);
	directory = entry_find(host, parent);
	if (!directory)
		return -ENOENT;
	if (!directory->inode->is_directory)
		return -ENOTDIR;
	*entry = entry_find(host, out);
	return 0;
}

struct sim_inode *sim_fs_find(struct sim_host *host, const char *path)
{
	char name[PATH_SIZE_MAX];
	struct sim_entry *entry = NULL;

	if (normalise(path, name) == 0)
		entry = entry_find(host, name);
	return entry ? entry->inode : NULL;
}

const char *sim_fs_path(struct sim_host *host, const struct sim_inode *inode)
{
	struct sim_entry *entry, *next;

	HASH_ITER(hh, host->fs.entries, entry, next)
		if (entry->inode == inode)
			return entry->path;
	return ""; /* it has no name any more */
}

/* ---- calls ---- */

static int open_checks(const struct sim_entry *entry, unsigned flags)
{
	if (!entry)
		return flags & LOOP_FILE_CREATE ? 0 : -ENOENT;
	if ((flags & LOOP_FILE_CREATE) && (flags & LOOP_FILE_EXCLUSIVE))
		return -EEXIST;
	return entry->inode->is_directory ? -EISDIR : 0;
}

int sim_fs_open(struct sim_process *process, const char *path, unsigned flags,
		struct loop_file **out)
{
	struct sim_host *host = process->host;
	char name[PATH_SIZE_MAX];
	struct sim_entry *entry;
	struct sim_file *file;
	int rc = look_up(host, path, name, &entry);

	if (rc == 0)
		rc = open_checks(entry, flags);
	if (rc < 0)
		return rc;
	if (!entry) {
		entry_change(host, name, sim_inode_new(host, false));
		entry = entry_find(host, name);
	} else if (flags & LOOP_FILE_TRUNCATE) {
		(void)sim_inode_resize(entry->inode, 0);
	}
	if (!(flags & (LOOP_FILE_READ | LOOP_FILE_WRITE)))
		flags |= LOOP_FILE_READ;
	file = sim_alloc(sizeof(*file));
	file->base.is_direct = flags & LOOP_FILE_DIRECT;
	file->inode = sim_inode_get(entry->inode);
	file->flags = flags;
	cds_list_add_tail(&file->link, &process->files);
	*out = &file->base;
	return 0;
}

void sim_file_free(struct sim_file *file)
{
	if (file->inode->locker == file)
		file->inode->locker = NULL;
	if (file->is_mapped)
		sim_inode_unmap(file->inode);
	cds_list_del(&file->link);
	sim_inode_put(file->inode);
	free(file);
}

int sim_fs_unlink(struct sim_host *host, const char *path)
{
	char name[PATH_SIZE_MAX];
	struct sim_entry *entry;
	int rc = look_up(host, path, name, &entry);

	if (rc < 0)
		return rc;
	if (!entry)
		return -ENOENT;
	if (entry->inode->is_directory)
		return -EISDIR;
	entry_change(host, name, NULL);
	return 0;
}

int sim_fs_rename(struct sim_host *host, const char *from, const char *to)
{
	char from_name[PATH_SIZE_MAX], to_name[PATH_SIZE_MAX], parent[PATH_SIZE_MAX];
	struct sim_entry *source, *target;
	struct sim_inode *inode;
	int rc = look_up(host, from, from_name, &source);

	if (rc == 0)
		rc = look_up(host, to, to_name, &target);
	if (rc == 0 && !source)
		rc = -ENOENT;
	if (rc == 0 && (source->inode->is_directory || (target && target->inode->is_directory)))
		rc = -EISDIR; /* moving directories is not modelled */
	if (rc < 0)
		return rc;
	inode = sim_inode_get(source->inode);
	if (strcmp(from_name, to_name) != 0) {
		/* New name first: a power cut between the two leaves both, never none. */
		entry_change(host, to_name, inode);
		entry_change(host, from_name, NULL);
	}
	sim_inode_put(inode);
	parent_of(from_name, parent);
	(void)sim_fs_sync_directory(host, parent);
	parent_of(to_name, parent);
	return sim_fs_sync_directory(host, parent);
}

int sim_fs_mkdir(struct sim_host *host, const char *path)
{
	char name[PATH_SIZE_MAX];
	struct sim_entry *entry;
	int rc = look_up(host, path, name, &entry);

	if (rc < 0)
		return rc;
	if (entry)
		return -EEXIST;
	entry_change(host, name, sim_inode_new(host, true));
	return 0;
}

int sim_fs_sync_directory(struct sim_host *host, const char *path)
{
	char name[PATH_SIZE_MAX], parent[PATH_SIZE_MAX];
	struct change *change, *next;
	struct sim_entry *entry;

	if (normalise(path, name) < 0)
		return -ENAMETOOLONG;
	entry = entry_find(host, name);
	if (!entry)
		return -ENOENT;
	if (!entry->inode->is_directory)
		return -ENOTDIR;
	cds_list_for_each_entry_safe(change, next, &host->fs.pending, link) {
		parent_of(change->path, parent);
		if (strcmp(parent, name) == 0)
			change_free(change);
	}
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int sim_fs_list(struct sim_host *host, const char *path,
		int (*each)(void *context, const char *name), void *context)
{
	char name[PATH_SIZE_MAX], parent[PATH_SIZE_MAX];
	struct sim_entry *entry, *next;
	char **names;
	size_t count = 0;
	int rc = normalise(path, name);

	if (rc < 0)
		return rc;
	entry = entry_find(host, name);
	if (!entry)
		return -ENOENT;
	if (!entry->inode->is_directory)
		return -ENOTDIR;
	/* Copied: @each may change the directory. */
	names = sim_alloc((HASH_COUNT(host->fs.entries) + 1) * sizeof(*names));
	HASH_ITER(hh, host->fs.entries, entry, next) {
		parent_of(entry->path, parent);
		if (strcmp(parent, name) == 0 && strcmp(entry->path, "/") != 0)
			names[count++] = strdup(strrchr(entry->path, '/') + 1);
	}
	qsort(names, count, sizeof(*names), compare_names);
	for (size_t i = 0; i < count; i++) {
		if (rc == 0)
			rc = each(context, names[i]);
		free(names[i]);
	}
	free(names);
	return rc;
}

/* ---- power, life ---- */

/* A name in a directory that is gone is gone as well. */
static void sweep_orphans(struct sim_host *host)
{
	char parent[PATH_SIZE_MAX];
	struct sim_entry *entry, *next;
	bool is_done;

	do {
		is_done = true;
		HASH_ITER(hh, host->fs.entries, entry, next) {
			parent_of(entry->path, parent);
			if (!entry_find(host, parent)) {
				entry_set(host, entry->path, NULL);
				is_done = false;
			}
		}
	} while (!is_done);
}

void sim_fs_power_cut(struct sim_host *host, enum sim_power_cut mode)
{
	struct sim_fs *fs = &host->fs;
	struct change *change, *next;
	struct sim_inode *inode;
	uint64_t count = 0, kept = 0;

	cds_list_for_each_entry(inode, &fs->inodes, link)
		sim_inode_power_cut(inode, mode);
	cds_list_for_each_entry(change, &fs->pending, link)
		count++;
	if (mode == SIM_KEEP_ALL)
		kept = count;
	else if (mode == SIM_RANDOM_UNSYNCED)
		kept = random_below(&host->world->random, count + 1);
	for (uint64_t i = count; i > kept; i--) {
		change = cds_list_entry(fs->pending.prev, struct change, link);
		entry_set(host, change->path, change->before);
		change_free(change);
	}
	cds_list_for_each_entry_safe(change, next, &fs->pending, link)
		change_free(change);
	sweep_orphans(host);
}

void sim_fs_init(struct sim_host *host)
{
	struct sim_fs *fs = &host->fs;

	CDS_INIT_LIST_HEAD(&fs->inodes);
	CDS_INIT_LIST_HEAD(&fs->pending);
	fs->size_bytes = TIB;
	fs->latency = (struct sim_latency){
		.read_min_ns = 60 * NS_PER_US,
		.read_max_ns = 150 * NS_PER_US,
		.write_min_ns = 30 * NS_PER_US,
		.write_max_ns = 100 * NS_PER_US,
		.sync_min_ns = 100 * NS_PER_US,
		.sync_max_ns = 400 * NS_PER_US,
	};
	entry_set(host, "/", sim_inode_new(host, true));
}

void sim_fs_done(struct sim_host *host)
{
	struct sim_entry *entry, *next_entry;
	struct change *change, *next;

	cds_list_for_each_entry_safe(change, next, &host->fs.pending, link)
		change_free(change);
	HASH_ITER(hh, host->fs.entries, entry, next_entry)
		entry_set(host, entry->path, NULL);
	assert(cds_list_empty(&host->fs.inodes));
}

void sim_host_wipe(struct sim_host *host)
{
	struct sim_entry *entry, *next_entry;
	struct change *change, *next;

	cds_list_for_each_entry_safe(change, next, &host->fs.pending, link)
		change_free(change);
	HASH_ITER(hh, host->fs.entries, entry, next_entry)
		if (strcmp(entry->path, "/") != 0)
			entry_set(host, entry->path, NULL);
}

void sim_host_copy_disk(struct sim_host *to, struct sim_host *from)
{
	struct sim_entry *entry, *next;

	HASH_ITER(hh, from->fs.entries, entry, next) {
		struct sim_inode *inode;
		if (strcmp(entry->path, "/") == 0)
			continue;
		inode = sim_inode_new(to, entry->inode->is_directory);
		sim_inode_copy(inode, entry->inode);
		entry_set(to, entry->path, inode);
	}
}

void sim_host_set_latency(struct sim_host *host, const struct sim_latency *latency)
{
	host->fs.latency = *latency;
}

uint64_t sim_host_disk_used(const struct sim_host *host)
{
	return host->fs.used_bytes;
}

void sim_host_set_disk_size(struct sim_host *host, uint64_t size_bytes)
{
	host->fs.size_bytes = size_bytes;
}

int64_t sim_file_peek(struct sim_host *host, const char *path, void *data, size_t size,
		      uint64_t offset)
{
	struct sim_inode *inode = sim_fs_find(host, path);

	return inode ? (int64_t)sim_inode_read(inode, data, size, offset) : -ENOENT;
}

int sim_file_poke(struct sim_host *host, const char *path, const void *data, size_t size,
		  uint64_t offset)
{
	struct sim_inode *inode = sim_fs_find(host, path);
	int rc = inode ? sim_inode_write(inode, data, size, offset) : -ENOENT;

	if (rc == 0)
		sim_inode_sync(inode, UINT64_MAX);
	return rc;
}
