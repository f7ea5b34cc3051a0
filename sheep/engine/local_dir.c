/*
 * The directory of the local engine: names, creation, heads of files (local_priv.h).
 *
 * DIR/log is made by link(2), once, by whoever is first, and never goes: so a member that was
 * stopped for long in the middle of creating a log cannot make a second one. Every member syncs
 * the directory before it uses it.
 *
 * Calls here block: at start-up, and for listings and unlinks of a few files.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/engine/local_priv.h"

/* The CRC of @head, of which le32 @crc is a part. */
static uint32_t crc_without(const void *head, size_t size, const le32 *crc)
{
	static const le32 zero;
	size_t before = (size_t)((const uint8_t *)crc - (const uint8_t *)head);
	uint32_t sum = crc32c(head, before);

	sum = crc32c_extend(sum, &zero, sizeof(zero));
	return crc32c_extend(sum, (const uint8_t *)head + before + sizeof(zero),
			     size - before - sizeof(zero));
}

static int check_head(const void *head, size_t size, const le32 *crc, bool magic_is_right,
		      le32 version)
{
	if (!magic_is_right)
		return -E_CORRUPT;
	if (from_le32(version) != LOCAL_VERSION)
		return -E_WRONG_VERSION;
	return from_le32(*crc) == crc_without(head, size, crc) ? 0 : -E_CORRUPT;
}

/* ---- names ---- */

static void make_path(const struct local *local, char *out, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void make_path(const struct local *local, char *out, const char *format, ...)
{
	char name[LOCAL_NAME_MAX];
	va_list args;
	int rc;

	va_start(args, format);
	rc = vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	assert(rc > 0 && (size_t)rc < sizeof(name));
	rc = snprintf(out, LOCAL_PATH_MAX, "%s/%s", local->dir, name);
	assert(rc > 0 && rc < LOCAL_PATH_MAX);
}

void local_file_path(const struct local *local, uint64_t number, const struct uuid *id, char *out)
{
	char text[UUID_TEXT_SIZE];

	make_path(local, out, "file.%010llu.%s", (unsigned long long)number, uuid_format(id, text));
}

void local_image_path(const struct local *local, uint64_t index, uint64_t number, char *out)
{
	make_path(local, out, "image.%020llu.%010llu", (unsigned long long)index,
		  (unsigned long long)number);
}

enum name_kind {
	NAME_FOREIGN,
	NAME_LOG,
	NAME_FILE,
	NAME_IMAGE,
	NAME_MEMBERS,
	NAME_TMP_LOG,
	NAME_TMP_IMAGE,
	NAME_SYSTEM,
};

struct name {
	enum name_kind kind;
	uint64_t index;	 /* of images and their temporary files */
	uint64_t number; /* of those and of files */
};

static struct name parse_name(const char *text)
{
	struct name name = {NAME_FOREIGN};
	unsigned long long index, number;
	int end = -1;

	if (strcmp(text, "log") == 0)
		name.kind = NAME_LOG;
	else if (strcmp(text, "members") == 0)
		name.kind = NAME_MEMBERS;
	else if (strcmp(text, "lost+found") == 0)
		name.kind = NAME_SYSTEM;
	else if (strncmp(text, "tmp.log.", 8) == 0)
		name.kind = NAME_TMP_LOG;
	else if (sscanf(text, "file.%10llu.%*36[0-9a-f-]%n", &number, &end) == 1 && end > 0 &&
		 !text[end])
		name = (struct name){NAME_FILE, 0, number};
	else if (sscanf(text, "image.%20llu.%10llu%n", &index, &number, &end) == 2 && !text[end])
		name = (struct name){NAME_IMAGE, index, number};
	else if (sscanf(text, "tmp.image.%20llu.%10llu.%n", &index, &number, &end) == 2)
		name = (struct name){NAME_TMP_IMAGE, index, number};
	return name;
}

/* ---- opening ---- */

static int sync_path(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return -errno;
	rc = fsync(fd) < 0 ? -errno : 0;
	(void)close(fd);
	return rc;
}

/* A new file with @size bytes, synced. */
static int make_file(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t put;
	int rc = 0;

	if (fd < 0)
		return -errno;
	put = write(fd, data, size);
	if (put != (ssize_t)size)
		rc = put < 0 ? -errno : -ENOSPC;
	else if (fsync(fd) < 0)
		rc = -errno;
	(void)close(fd);
	if (rc < 0)
		(void)unlink(path);
	return rc;
}

/* Files of several machines are no shared memory: appends and locks do not hold there. */
static int check_file_system(const char *dir, struct error *err)
{
	static const struct {
		uint32_t magic;
		const char *name;
	} remote[] = {
		{0x6969, "NFS"},   {0x517b, "SMB"},    {0xff534d42, "CIFS"},  {0xfe534d42, "SMB2"},
		{0x1021997, "9P"}, {0xc36400, "Ceph"}, {0x7461636f, "OCFS2"}, {0x1161970, "GFS2"},
	};
	struct statfs fs;

	if (statfs(dir, &fs) < 0)
		return error_set(err, -errno, "'%s'", dir);
	for (size_t i = 0; i < ARRAY_COUNT(remote); i++)
		if ((uint32_t)fs.f_type == remote[i].magic)
			return error_set(err, -EINVAL,
					 "'%s' is on %s: the local engine is for the sheep of one "
					 "machine, on one of its own disks",
					 dir, remote[i].name);
	return 0;
}

/* May a log be made here? Nothing of another may be in the way, nor the rest of a lost log. */
static int check_empty(const struct local *local, struct error *err)
{
	DIR *dir = opendir(local->dir);
	struct dirent *entry;
	int rc = 0;

	if (!dir)
		return error_set(err, -errno, "'%s'", local->dir);
	while (rc == 0 && (entry = readdir(dir))) {
		struct name name = parse_name(entry->d_name);

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (name.kind == NAME_IMAGE || (name.kind == NAME_FILE && name.number > 1))
			rc = error_set(err, -E_CORRUPT,
				       "'%s' holds parts of a log ('%s') but its file 'log' is "
				       "missing: restore it, or name an empty directory",
				       local->dir, entry->d_name);
		else if (name.kind == NAME_FOREIGN)
			rc = error_set(err, -ENOTEMPTY,
				       "'%s' is no log and holds '%s': name an empty or a new "
				       "directory",
				       local->dir, entry->d_name);
	}
	(void)closedir(dir);
	return rc;
}

static int make_log(struct local *local, struct error *err)
{
	struct random *random = loop_random(local->engine.loop);
	struct uuid log = uuid_make(random), first = uuid_make(random);
	struct local_root root = {.magic = to_le64(LOCAL_ROOT_MAGIC),
				  .version = to_le32(LOCAL_VERSION)};
	char tmp[LOCAL_PATH_MAX], file[LOCAL_PATH_MAX], path[LOCAL_PATH_MAX], text[UUID_TEXT_SIZE];
	struct local_file head;
	int rc;

	memcpy(root.log, log.bytes, sizeof(root.log));
	memcpy(root.file, first.bytes, sizeof(root.file));
	root.crc = to_le32(crc_without(&root, sizeof(root), &root.crc));
	local->engine.log = log;
	local_file_head(local, 1, &first, &head);
	local_file_path(local, 1, &first, file);
	make_path(local, tmp, "tmp.log.%s", uuid_format(&log, text));
	make_path(local, path, "log");
	rc = make_file(file, &head, sizeof(head));
	if (rc == 0)
		rc = make_file(tmp, &root, sizeof(root));
	if (rc == 0)
		rc = sync_path(local->dir);
	if (rc == 0 && link(tmp, path) < 0)
		rc = -errno;
	(void)unlink(tmp);
	if (rc == 0)
		log_info("engine local: made a log in '%s'", local->dir);
	else
		(void)unlink(file);
	return rc == 0 || rc == -EEXIST ? 0 : error_set(err, rc, "make a log in '%s'", local->dir);
}

/* 1: there is none. */
static int read_root(const struct local *local, struct local_root *root, struct error *err)
{
	char path[LOCAL_PATH_MAX];
	ssize_t got;
	int fd, rc;

	make_path(local, path, "log");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 1 : error_set(err, -errno, "'%s'", path);
	got = read(fd, root, sizeof(*root));
	rc = got < 0 ? -errno : 0;
	(void)close(fd);
	if (rc < 0)
		return error_set(err, rc, "'%s'", path);
	if (got == sizeof(*root))
		rc = check_head(root, sizeof(*root), &root->crc,
				from_le64(root->magic) == LOCAL_ROOT_MAGIC, root->version);
	else
		rc = -E_CORRUPT;
	if (rc == -E_WRONG_VERSION)
		return error_set(err, rc, "'%s' has format %u, this program reads format %u", path,
				 from_le32(root->version), LOCAL_VERSION);
	return rc < 0 ? error_set(err, rc, "'%s' is not the root of a local log, or it is damaged",
				  path)
		      : 0;
}

static int check_expected(const struct local *local, const struct uuid *expected, struct error *err)
{
	char here[UUID_TEXT_SIZE], there[UUID_TEXT_SIZE];

	if (uuid_is_null(expected) || uuid_is_equal(expected, &local->engine.log))
		return 0;
	return error_set(err, -E_WRONG_CLUSTER,
			 "'%s' is the log %s, this node belongs to the log %s: is --cluster right?",
			 local->dir, uuid_format(&local->engine.log, here),
			 uuid_format(expected, there));
}

int local_dir_open(struct local *local, const struct uuid *expected, struct uuid *first_file,
		   struct error *err)
{
	char path[LOCAL_PATH_MAX], text[UUID_TEXT_SIZE];
	struct local_root root;
	int rc;

	if (mkdir(local->dir, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "'%s'", local->dir);
	rc = check_file_system(local->dir, err);
	if (rc == 0)
		rc = read_root(local, &root, err);
	if (rc == 1) {
		if (!uuid_is_null(expected))
			return error_set(
				err, -E_NOT_FOUND,
				"there is no log in '%s', and this node belongs to the log %s: is "
				"--cluster right, and its file system mounted?",
				local->dir, uuid_format(expected, text));
		rc = check_empty(local, err);
		if (rc == 0)
			rc = make_log(local, err);
		if (rc == 0)
			rc = read_root(local, &root, err);
		if (rc == 1)
			rc = error_set(err, -E_CORRUPT, "the log in '%s' vanished", local->dir);
	}
	if (rc < 0)
		return rc;
	memcpy(local->engine.log.bytes, root.log, sizeof(root.log));
	memcpy(first_file->bytes, root.file, sizeof(root.file));
	rc = check_expected(local, expected, err);
	if (rc < 0)
		return rc;
	make_path(local, path, "members");
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "'%s'", path);
	make_path(local, path, "..");
	rc = sync_path(local->dir);
	if (rc == 0)
		rc = sync_path(path);
	/* The parent may not be ours to open; then whoever made DIR there has to keep it. */
	return rc == 0 || rc == -EACCES ? 0 : error_set(err, rc, "'%s'", local->dir);
}

/* ---- heads ---- */

void local_file_head(const struct local *local, uint64_t number, const struct uuid *id,
		     struct local_file *out)
{
	*out = (struct local_file){
		.magic = to_le64(LOCAL_FILE_MAGIC),
		.version = to_le32(LOCAL_VERSION),
		.number = to_le64(number),
	};
	memcpy(out->log, local->engine.log.bytes, sizeof(out->log));
	memcpy(out->id, id->bytes, sizeof(out->id));
	out->crc = to_le32(crc_without(out, sizeof(*out), &out->crc));
}

int local_file_check(const struct local *local, const struct local_file *head, uint64_t number,
		     const struct uuid *id)
{
	int rc = check_head(head, sizeof(*head), &head->crc,
			    from_le64(head->magic) == LOCAL_FILE_MAGIC, head->version);

	if (rc < 0)
		return rc;
	if (memcmp(head->log, local->engine.log.bytes, sizeof(head->log)) != 0)
		return -E_WRONG_CLUSTER;
	return from_le64(head->number) == number &&
			       memcmp(head->id, id->bytes, sizeof(head->id)) == 0
		       ? 0
		       : -E_CORRUPT;
}

void local_image_seal(struct local_image *head)
{
	head->crc = to_le32(crc_without(head, sizeof(*head), &head->crc));
}

int local_image_check(const struct local *local, const struct local_image *head)
{
	int rc = check_head(head, sizeof(*head), &head->crc,
			    from_le64(head->magic) == LOCAL_IMAGE_MAGIC, head->version);

	if (rc < 0)
		return rc;
	if (memcmp(head->log, local->engine.log.bytes, sizeof(head->log)) != 0)
		return -E_WRONG_CLUSTER;
	return from_le64(head->size) <= ENGINE_IMAGE_MAX ? 0 : -E_CORRUPT;
}

/* ---- listings ---- */

int local_dir_find_image(struct local *local, uint64_t above, uint64_t below, uint64_t *index,
			 uint64_t *number)
{
	DIR *dir = opendir(local->dir);
	struct dirent *entry;
	int rc = -ENOENT;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		struct name name = parse_name(entry->d_name);

		if (name.kind != NAME_IMAGE || name.index <= above || name.index >= below)
			continue;
		above = *index = name.index;
		*number = name.number;
		rc = 0;
	}
	(void)closedir(dir);
	return rc;
}

void local_dir_clean(struct local *local, uint64_t number)
{
	DIR *dir = opendir(local->dir);
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		struct name name = parse_name(entry->d_name);
		bool is_numbered = name.kind == NAME_FILE || name.kind == NAME_IMAGE ||
				   name.kind == NAME_TMP_IMAGE;

		if (is_numbered && name.number + LOCAL_KEEP_FILES < number)
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
	}
	(void)closedir(dir);
}
