#include "sheep/service/note.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/text.h"

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
#define LOCKED_FILE  "superblock" /* what store_open() locks */

/* What `magic` says. 0: nothing yet. */
#define MAGIC	   0x0032657465746f6eull
#define MAGIC_VOID UINT64_MAX

/* The file. It is of this machine and this boot, or nothing: so as the processor has it. */
struct page {
	uint64_t magic;
	struct uuid boot;
	uint64_t incarnation;
	uint64_t device, inode; /* of the file that is locked; 0: they could not be told */
	uint64_t shards;
	uint64_t lsns[]; /* the store's, from note_open() on */
};

struct note {
	struct loop_file *file;
	struct page *page; /* mapped from it */
};

static size_t page_size(const struct store *store)
{
	return sizeof(struct page) + store_identity(store)->shards * sizeof(uint64_t);
}

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

static int read_boot_id(struct loop *loop, struct uuid *out)
{
	char text[64];
	int rc = read_text(loop, BOOT_ID_PATH, text, sizeof(text));

	if (rc < 0)
		return rc;
	text[strcspn(text, "\n")] = '\0';
	return uuid_parse(text, out);
}

/* STORE-UUID.note; with @suffix ".new": before it counts. */
static int note_path(const char *dir, const struct store *store, const char *suffix,
		     char out[NOTE_PATH_MAX])
{
	char uuid[UUID_TEXT_SIZE];
	struct text text = text_of(out, NOTE_PATH_MAX);

	text_append(&text, "%s/%s.note%s", dir, uuid_format(&store_identity(store)->uuid, uuid),
		    suffix);
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

/* ---- the old one ---- */

/* Its bytes, if it is whole and of a store with as many shards; to be freed. NULL: there is none like that. */
static struct page *read_page(struct loop *loop, const char *dir, const struct store *store)
{
	size_t size = page_size(store);
	struct page *page = malloc(size);
	char path[NOTE_PATH_MAX];
	struct loop_file *file;
	bool is_whole = false;

	if (page && note_path(dir, store, "", path) == 0 &&
	    loop_sync_open(loop, path, LOOP_FILE_READ, &file, NULL) == 0) {
		is_whole = loop_sync_size(loop, file) == (int64_t)size &&
			   loop_sync_read(loop, file, page, size, 0) == (int64_t)size &&
			   page->magic == MAGIC && page->shards == store_identity(store)->shards;
		loop_file_close(loop, file);
	}
	if (is_whole)
		return page;
	free(page);
	return NULL;
}

static const char *judge_page(struct loop *loop, const struct page *page, const struct store *store)
{
	struct uuid boot;

	if (read_boot_id(loop, &boot) < 0 || !uuid_is_equal(&boot, &page->boot))
		return "was not stopped cleanly before the machine went down";
	/* A later incarnation than the noted one was raised and never registered: it has
	 * acknowledged nothing. An earlier one would be another store's or a restored one's. */
	if (page->incarnation > store_identity(store)->incarnation)
		return "is older than what was noted of it";
	for (unsigned i = 0; i < page->shards; i++)
		if (store_lsn(store, i) < page->lsns[i])
			return "its log does not reach what it had acknowledged";
	return NULL;
}

const char *note_judge(struct loop *loop, const char *dir, const struct store *store)
{
	const struct store_identity *identity = store_identity(store);
	const char *why;
	struct page *page;

	if (identity->lost_log)
		return "has lost a part of its log";
	if (identity->was_clean || identity->is_new)
		return NULL;
	page = read_page(loop, dir, store);
	if (!page)
		return "was not stopped cleanly, and no note says that it lost nothing";
	why = judge_page(loop, page, store);
	free(page);
	return why;
}

static int locked_file(const struct store *store, struct stat *out)
{
	char path[NOTE_PATH_MAX];
	struct text text = text_of(path, sizeof(path));

	text_append(&text, "%s/" LOCKED_FILE, store_path(store));
	if (text.is_cut)
		return -ENAMETOOLONG;
	return stat(path, out) < 0 ? -errno : 0;
}

uint64_t note_held(struct loop *loop, const char *dir, const struct store *store)
{
	struct page *page = read_page(loop, dir, store);
	uint64_t incarnation = 0;
	struct uuid boot;
	struct stat file;

	if (page && read_boot_id(loop, &boot) == 0 && uuid_is_equal(&boot, &page->boot) &&
	    page->inode && locked_file(store, &file) == 0 && page->device == file.st_dev &&
	    page->inode == file.st_ino)
		incarnation = page->incarnation;
	free(page);
	return incarnation;
}

int note_remove(struct loop *loop, const char *dir, const struct store *store, struct error *err)
{
	char path[NOTE_PATH_MAX];
	int rc = note_path(dir, store, "", path);

	if (rc == 0)
		rc = loop_sync_unlink(loop, path);
	if (rc < 0 && rc != -ENOENT)
		return error_set(err, rc,
				 "note of store '%s' in '%s': it is out of date, and stays",
				 store_path(store), dir);
	return 0;
}

/* ---- the new one ---- */

static int map_page(struct note *note, struct loop *loop, const char *path, size_t size)
{
	const unsigned flags =
		LOOP_FILE_READ | LOOP_FILE_WRITE | LOOP_FILE_CREATE | LOOP_FILE_EXCLUSIVE;
	/* Written, not left as a hole: that could find tmpfs full when the store stores to it. */
	void *zeroes = calloc(1, size), *map;
	int rc = zeroes ? 0 : -ENOMEM;

	(void)loop_sync_unlink(loop, path); /* of a start that never served */
	if (rc == 0)
		rc = loop_sync_open(loop, path, flags, &note->file, NULL);
	if (rc == 0)
		rc = loop_sync_write(loop, note->file, zeroes, size, 0);
	if (rc == 0)
		rc = loop_sync_map(loop, note->file, size, &map);
	if (rc == 0)
		note->page = map;
	free(zeroes);
	return rc;
}

int note_open(struct loop *loop, const char *dir, struct store *store, struct note **out,
	      struct error *err)
{
	struct note *note = calloc(1, sizeof(*note));
	char path[NOTE_PATH_MAX];
	int rc = note ? note_path(dir, store, ".new", path) : -ENOMEM;

	if (rc == 0)
		rc = map_page(note, loop, path, page_size(store));
	if (rc < 0) {
		note_close(note, loop);
		return error_set(err, rc, "note of store '%s' in '%s'", store_path(store), dir);
	}
	store_keep_note(store, note->page->lsns);
	*out = note;
	return 0;
}

/* The header, and last of all that it counts; unless it is void. */
static int fill_in(struct page *page, struct loop *loop, const struct store *store)
{
	uint64_t nothing = 0;
	struct stat file;
	int rc = read_boot_id(loop, &page->boot);

	if (rc < 0)
		return rc;
	page->incarnation = store_identity(store)->incarnation;
	page->shards = store_identity(store)->shards;
	if (locked_file(store, &file) == 0) {
		page->device = file.st_dev;
		page->inode = file.st_ino;
	}
	return __atomic_compare_exchange_n(&page->magic, &nothing, MAGIC, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST)
		       ? 0
		       : -E_STORE_FAILED;
}

int note_publish(struct note *note, struct loop *loop, const char *dir, const struct store *store,
		 struct error *err)
{
	char path[NOTE_PATH_MAX], path_new[NOTE_PATH_MAX];
	int rc = note_path(dir, store, "", path);

	if (rc == 0)
		rc = note_path(dir, store, ".new", path_new);
	if (rc == 0)
		rc = fill_in(note->page, loop, store);
	if (rc == 0)
		rc = loop_sync_rename(loop, path_new, path);
	return rc < 0 ? error_set(err, rc, "note of store '%s' in '%s'", store_path(store), dir)
		      : 0;
}

void note_void(struct note *note)
{
	if (note)
		__atomic_store_n(&note->page->magic, MAGIC_VOID, __ATOMIC_SEQ_CST);
}

void note_close(struct note *note, struct loop *loop)
{
	if (!note)
		return;
	loop_file_close(loop, note->file);
	free(note);
}
