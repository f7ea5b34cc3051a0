/* Files of the real kernel: handles and the calls that block. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "lib/loop/posix.h"

int posix_open_flags(unsigned flags)
{
	static const struct {
		unsigned ours;
		int theirs;
	} rows[] = {
		{LOOP_FILE_CREATE, O_CREAT},   {LOOP_FILE_EXCLUSIVE, O_EXCL},
		{LOOP_FILE_TRUNCATE, O_TRUNC}, {LOOP_FILE_APPEND, O_APPEND},
		{LOOP_FILE_DIRECT, O_DIRECT},
	};
	int out = O_CLOEXEC;

	if (flags & LOOP_FILE_WRITE)
		out |= flags & LOOP_FILE_READ ? O_RDWR : O_WRONLY;
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		if (flags & rows[i].ours)
			out |= rows[i].theirs;
	return out;
}

int posix_file_new(int fd, bool is_direct, struct loop_file **out)
{
	struct posix_file *file = calloc(1, sizeof(*file));

	if (!file) {
		(void)close(fd);
		return -ENOMEM;
	}
	file->base.is_direct = is_direct;
	file->fd = fd;
	*out = &file->base;
	return 0;
}

void posix_file_close(struct loop_backend *backend, struct loop_file *file)
{
	struct posix_file *mine = container_of_type(file, struct posix_file, base);

	if (mine->map)
		(void)munmap(mine->map, mine->map_size);
	(void)close(mine->fd);
	free(mine);
}

int posix_sync_open(struct loop_backend *backend, const char *path, unsigned flags,
		    struct loop_file **out)
{
	bool is_direct = flags & LOOP_FILE_DIRECT;
	int fd = open(path, posix_open_flags(flags), POSIX_OPEN_MODE);

	if (fd < 0 && errno == EINVAL && is_direct) {
		/* The file system may have made the file before it refused O_DIRECT. */
		flags &= ~(unsigned)(LOOP_FILE_DIRECT | LOOP_FILE_EXCLUSIVE);
		is_direct = false;
		fd = open(path, posix_open_flags(flags), POSIX_OPEN_MODE);
	}
	return fd < 0 ? -errno : posix_file_new(fd, is_direct, out);
}

int64_t posix_sync_read(struct loop_backend *backend, struct loop_file *file, void *data,
			size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(posix_file_fd(file), (char *)data + done, size - done,
				  (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
		if (file->is_direct && done % 512)
			break; /* only the end of the file is so uneven */
	}
	return (int64_t)done;
}

int posix_sync_write(struct loop_backend *backend, struct loop_file *file, const void *data,
		     size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pwrite(posix_file_fd(file), (const char *)data + done, size - done,
				   (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

int posix_sync_fsync(struct loop_backend *backend, struct loop_file *file)
{
	return fsync(posix_file_fd(file)) < 0 ? -errno : 0;
}

int64_t posix_sync_size(struct loop_backend *backend, struct loop_file *file)
{
	off_t size = lseek(posix_file_fd(file), 0, SEEK_END); /* also of a block device */

	return size < 0 ? -errno : size;
}

int posix_sync_truncate(struct loop_backend *backend, struct loop_file *file, uint64_t size)
{
	return ftruncate(posix_file_fd(file), (off_t)size) < 0 ? -errno : 0;
}

int posix_sync_unlink(struct loop_backend *backend, const char *path)
{
	return unlink(path) < 0 ? -errno : 0;
}

int posix_sync_mkdir(struct loop_backend *backend, const char *path)
{
	return mkdir(path, 0700) < 0 ? -errno : 0;
}

int posix_sync_fsync_dir(struct loop_backend *backend, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return -errno;
	rc = fsync(fd) < 0 ? -errno : 0;
	(void)close(fd);
	return rc;
}

/* The directory part of @path; @out of PATH_MAX bytes. */
static int directory_of(const char *path, char *out)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	if (!slash)
		return text_copy(out, PATH_MAX, ".");
	if (length == 0)
		return text_copy(out, PATH_MAX, "/");
	if (length >= PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(out, path, length);
	out[length] = '\0';
	return 0;
}

int posix_sync_rename(struct loop_backend *backend, const char *from, const char *to)
{
	char from_dir[PATH_MAX], to_dir[PATH_MAX];
	int rc;

	if (directory_of(from, from_dir) < 0 || directory_of(to, to_dir) < 0)
		return -ENAMETOOLONG;
	if (rename(from, to) < 0)
		return -errno;
	rc = posix_sync_fsync_dir(backend, to_dir);
	if (rc == 0 && strcmp(from_dir, to_dir) != 0)
		rc = posix_sync_fsync_dir(backend, from_dir);
	return rc;
}

static int is_listed(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static int compare_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int posix_sync_list(struct loop_backend *backend, const char *path,
		    int (*each)(void *context, const char *name), void *context)
{
	struct dirent **entries;
	int count = scandir(path, &entries, is_listed, compare_bytes);
	int rc = 0;

	if (count < 0)
		return -errno;
	for (int i = 0; i < count; i++) {
		if (rc == 0)
			rc = each(context, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

int posix_sync_free_space(struct loop_backend *backend, const char *path, uint64_t *out_bytes)
{
	struct statvfs fs;

	if (statvfs(path, &fs) < 0)
		return -errno;
	*out_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	return 0;
}

static int lock_call(struct loop_file *file, int command, struct flock *lock)
{
	*lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
	return fcntl(posix_file_fd(file), command, lock) < 0 ? -errno : 0;
}

int posix_sync_lock(struct loop_backend *backend, struct loop_file *file)
{
	struct flock lock;
	int rc = lock_call(file, F_OFD_SETLK, &lock);

	return rc == -EACCES ? -EAGAIN : rc;
}

int posix_sync_is_locked(struct loop_backend *backend, struct loop_file *file)
{
	struct flock lock;
	int rc = lock_call(file, F_OFD_GETLK, &lock);

	return rc < 0 ? rc : lock.l_type != F_UNLCK;
}

int posix_sync_map(struct loop_backend *backend, struct loop_file *file, size_t size, void **out)
{
	struct posix_file *mine = container_of_type(file, struct posix_file, base);
	int64_t file_size = posix_sync_size(backend, file);
	void *map;

	if (file_size < 0)
		return (int)file_size;
	if (mine->map || size == 0 || (uint64_t)file_size < size)
		return -EINVAL;
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, mine->fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	mine->map = map;
	mine->map_size = size;
	*out = map;
	return 0;
}
