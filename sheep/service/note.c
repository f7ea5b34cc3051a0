#include "sheep/service/note.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/log.h"
#include "lib/base/text.h"

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
#define NOTE_MAX     128

static int read_text(struct loop *loop, const char *path, char *out, size_t size)
{
	struct loop_file *file;
	int64_t n;
	int rc = loop_sync_open(loop, path, LOOP_FILE_READ, &file, NULL);

	if (rc < 0)
		return rc;
	n = loop_sync_read(loop, file, out, size - 1, 0);
	loop_file_close(loop, file);
	if (n < 0)
		return (int)n;
	out[n] = '\0';
	return 0;
}

static int read_boot_id(struct loop *loop, char out[UUID_TEXT_SIZE])
{
	char text[64];
	struct uuid uuid;
	int rc = read_text(loop, BOOT_ID_PATH, text, sizeof(text));

	if (rc < 0)
		return rc;
	text[strcspn(text, "\n")] = '\0';
	rc = uuid_parse(text, &uuid);
	if (rc < 0)
		return rc;
	uuid_format(&uuid, out);
	return 0;
}

static int note_path(const char *dir, const struct store *store, char out[NOTE_PATH_MAX])
{
	char uuid[UUID_TEXT_SIZE];
	struct text text = text_of(out, NOTE_PATH_MAX);

	text_append(&text, "%s/%s.note", dir, uuid_format(&store_identity(store)->uuid, uuid));
	return text.is_cut ? -ENAMETOOLONG : 0;
}

static int make_dir(struct loop *loop, const char *path)
{
	int rc = loop_sync_mkdir(loop, path);

	return rc == -EEXIST ? 0 : rc;
}

int note_dir(struct loop *loop, const char *wanted, char out[NOTE_PATH_MAX], struct error *err)
{
	struct text text = text_of(out, NOTE_PATH_MAX);
	int rc;

	if (wanted) {
		text_append(&text, "%s", wanted);
		rc = text.is_cut ? -ENAMETOOLONG : make_dir(loop, out);
		return rc < 0 ? error_set(err, rc, "runtime directory '%s'", wanted) : 0;
	}
	text_append(&text, "/run/sheepfold");
	if (make_dir(loop, out) == 0 && access(out, W_OK) == 0)
		return 0;
	text = text_of(out, NOTE_PATH_MAX);
	text_append(&text, "/dev/shm/sheepfold-%u", (unsigned)getuid());
	rc = make_dir(loop, out);
	return rc < 0 ? error_set(err, rc, "runtime directory '%s'", out) : 0;
}

bool note_is_unclean(struct loop *loop, const char *dir, const struct store *store)
{
	const struct store_identity *identity = store_identity(store);
	char path[NOTE_PATH_MAX], text[NOTE_MAX], boot[UUID_TEXT_SIZE], noted[UUID_TEXT_SIZE];
	uint64_t incarnation;

	if (identity->lost_log)
		return true;
	if (identity->was_clean || identity->is_new)
		return false;
	if (note_path(dir, store, path) < 0 || read_text(loop, path, text, sizeof(text)) < 0 ||
	    read_boot_id(loop, boot) < 0)
		return true;
	if (sscanf(text, "%36s %" SCNu64, noted, &incarnation) != 2)
		return true;
	/* A later incarnation than the noted one was raised and never registered: it has
	 * acknowledged nothing. An earlier one would be another store's or a restored one's. */
	return strcmp(noted, boot) != 0 || incarnation > identity->incarnation;
}

int note_write(struct loop *loop, const char *dir, const struct store *store, struct error *err)
{
	char path[NOTE_PATH_MAX], data[NOTE_MAX], boot[UUID_TEXT_SIZE];
	struct text text = text_of(data, sizeof(data));
	struct loop_file *file;
	int rc = note_path(dir, store, path);

	if (rc == 0)
		rc = read_boot_id(loop, boot);
	if (rc < 0)
		return error_set(err, rc, "note of store '%s'", store_path(store));
	text_append(&text, "%s %" PRIu64 "\n", boot, store_identity(store)->incarnation);
	rc = loop_sync_open(loop, path, LOOP_FILE_WRITE | LOOP_FILE_CREATE | LOOP_FILE_TRUNCATE,
			    &file, err);
	if (rc < 0)
		return rc;
	rc = loop_sync_write(loop, file, data, text.used, 0);
	loop_file_close(loop, file);
	return rc < 0 ? error_set(err, rc, "note '%s'", path) : 0;
}
