#include "sheep/service/identity.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/text.h"

#define PATH_MAX_BYTES 4096

#define NODE_NAME      "node"
#define LOG_NAME       "log"

static int path_of(const char *dir, const char *name, char out[PATH_MAX_BYTES], struct error *err)
{
	struct text text = text_of(out, PATH_MAX_BYTES);

	text_append(&text, "%s/%s", dir, name);
	return text.is_cut ? error_set(err, -ENAMETOOLONG, "'%s'", dir) : 0;
}

/* 1 and *@out; 0: it names none, yet. */
static int read_one(struct loop *loop, const char *dir, const char *name, struct uuid *out,
		    struct error *err)
{
	char path[PATH_MAX_BYTES], line[UUID_TEXT_SIZE] = "";
	struct loop_file *file;
	int rc = path_of(dir, name, path, err);

	if (rc < 0)
		return rc;
	rc = loop_sync_open(loop, path, LOOP_FILE_READ, &file, err);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	int64_t n = loop_sync_read(loop, file, line, sizeof(line) - 1, 0);
	loop_file_close(loop, file);
	if (n < 0)
		return error_set(err, (int)n, "'%s'", path);
	if (n < UUID_TEXT_SIZE - 1)
		return 0; /* we died between making and writing it */
	if (uuid_parse(line, out) < 0)
		return error_set(err, -E_CORRUPT, "'%s' is no UUID", path);
	return 1;
}

static int write_one(struct loop *loop, const char *dir, const char *name, const struct uuid *uuid,
		     struct error *err)
{
	char path[PATH_MAX_BYTES], line[UUID_TEXT_SIZE];
	struct loop_file *file;
	int rc = path_of(dir, name, path, err);

	if (rc < 0)
		return rc;
	rc = loop_sync_open(loop, path, LOOP_FILE_WRITE | LOOP_FILE_CREATE, &file, err);
	if (rc < 0)
		return rc;
	rc = loop_sync_write(loop, file, uuid_format(uuid, line), UUID_TEXT_SIZE - 1, 0);
	if (rc == 0)
		rc = loop_sync_fsync(loop, file);
	loop_file_close(loop, file);
	if (rc == 0)
		rc = loop_sync_fsync_dir(loop, dir);
	return rc < 0 ? error_set(err, rc, "'%s'", path) : 0;
}

static const struct uuid *most_named(const struct uuid *named, const bool *has, unsigned count)
{
	const struct uuid *best = NULL;
	unsigned best_votes = 0;

	for (unsigned i = 0; i < count; i++) {
		unsigned votes = 0;
		for (unsigned k = 0; has[i] && k < count; k++)
			votes += has[k] && uuid_is_equal(&named[i], &named[k]);
		if (votes > best_votes) {
			best = &named[i];
			best_votes = votes;
		}
	}
	return best;
}

/* What most of them name; null: none does. */
static int ask_all(struct loop *loop, char *const *paths, unsigned count, const char *name,
		   struct uuid *out, struct error *err)
{
	struct uuid *named = calloc(count, sizeof(*named));
	bool *has = calloc(count, sizeof(*has));
	int rc = named && has ? 0 : error_set(err, -ENOMEM, "'%s'", name);

	for (unsigned i = 0; rc >= 0 && i < count; i++) {
		rc = read_one(loop, paths[i], name, &named[i], err);
		if (rc >= 0)
			has[i] = rc > 0;
	}
	if (rc >= 0) {
		const struct uuid *best = most_named(named, has, count);
		*out = best ? *best : (struct uuid){0};
	}
	free(named);
	free(has);
	return rc < 0 ? rc : 0;
}

static int tell_all(struct loop *loop, char *const *paths, unsigned count, const char *name,
		    const struct uuid *uuid, struct error *err)
{
	for (unsigned i = 0; i < count; i++) {
		struct uuid known;
		int rc = read_one(loop, paths[i], name, &known, err);
		if (rc == 0 || (rc > 0 && !uuid_is_equal(&known, uuid)))
			rc = write_one(loop, paths[i], name, uuid, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int identity_open(struct loop *loop, char *const *paths, unsigned count, const struct uuid *preset,
		  struct uuid *out, struct error *err)
{
	int rc = ask_all(loop, paths, count, NODE_NAME, out, err);

	if (rc == 0 && uuid_is_null(out))
		*out = *preset;
	if (rc == 0)
		rc = tell_all(loop, paths, count, NODE_NAME, out, err);
	return rc < 0 ? error_wrap(err, rc, "node identity") : 0;
}

int identity_log(struct loop *loop, char *const *paths, unsigned count, struct uuid *out,
		 struct error *err)
{
	int rc = ask_all(loop, paths, count, LOG_NAME, out, err);

	return rc < 0 ? error_wrap(err, rc, "which log this node belongs to") : 0;
}

int identity_keep_log(struct loop *loop, char *const *paths, unsigned count, const struct uuid *log,
		      struct error *err)
{
	int rc = tell_all(loop, paths, count, LOG_NAME, log, err);

	return rc < 0 ? error_wrap(err, rc, "which log this node belongs to") : 0;
}
