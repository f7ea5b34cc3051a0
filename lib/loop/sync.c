/* Calls that block: the text of their errors, and the way to the back end. */
#include "lib/loop/loop_priv.h"

int loop_sync_open(struct loop *loop, const char *path, unsigned flags, struct loop_file **out,
		   struct error *err)
{
	int rc = loop->ops->sync_open(loop->backend, path, flags, out);

	return rc < 0 ? error_set(err, rc, "open '%s'", path) : 0;
}

int64_t loop_sync_read(struct loop *loop, struct loop_file *file, void *data, size_t size,
		       uint64_t offset)
{
	return loop->ops->sync_read(loop->backend, file, data, size, offset);
}

int loop_sync_write(struct loop *loop, struct loop_file *file, const void *data, size_t size,
		    uint64_t offset)
{
	return loop->ops->sync_write(loop->backend, file, data, size, offset);
}

int loop_sync_fsync(struct loop *loop, struct loop_file *file)
{
	return loop->ops->sync_fsync(loop->backend, file);
}

int64_t loop_sync_size(struct loop *loop, struct loop_file *file)
{
	return loop->ops->sync_size(loop->backend, file);
}

int loop_sync_truncate(struct loop *loop, struct loop_file *file, uint64_t size)
{
	return loop->ops->sync_truncate(loop->backend, file, size);
}

int loop_sync_unlink(struct loop *loop, const char *path)
{
	return loop->ops->sync_unlink(loop->backend, path);
}

int loop_sync_rename(struct loop *loop, const char *from, const char *to)
{
	return loop->ops->sync_rename(loop->backend, from, to);
}

int loop_sync_mkdir(struct loop *loop, const char *path)
{
	return loop->ops->sync_mkdir(loop->backend, path);
}

int loop_sync_fsync_dir(struct loop *loop, const char *path)
{
	return loop->ops->sync_fsync_dir(loop->backend, path);
}

int loop_sync_list(struct loop *loop, const char *path,
		   int (*each)(void *context, const char *name), void *context)
{
	return loop->ops->sync_list(loop->backend, path, each, context);
}

int loop_sync_free_space(struct loop *loop, const char *path, uint64_t *out_bytes)
{
	return loop->ops->sync_free_space(loop->backend, path, out_bytes);
}

int loop_sync_lock(struct loop *loop, struct loop_file *file)
{
	return loop->ops->sync_lock(loop->backend, file);
}

int loop_sync_is_locked(struct loop *loop, struct loop_file *file)
{
	return loop->ops->sync_is_locked(loop->backend, file);
}

int loop_sync_map(struct loop *loop, struct loop_file *file, size_t size, void **out)
{
	return loop->ops->sync_map(loop->backend, file, size, out);
}
