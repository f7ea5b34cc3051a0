#include "sheep/service/note_lsn.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "include/proto/store.h"
#include "lib/base/text.h"

#define MAGIC	  0x6e736c2d65746f6eull
#define PATH_SIZE 4096

/* The file: of this machine and this boot only, so as the processor has it. */
struct page {
	uint64_t magic;
	uint64_t shard_count;
	uint64_t lsns[DISK_SHARDS_MAX];
};

struct note_lsn {
	struct page *page;
	char path[PATH_SIZE];
	char path_new[PATH_SIZE];
};

static int make_path(const char *dir, const struct store *store, const char *suffix,
		     char out[PATH_SIZE])
{
	char uuid[UUID_TEXT_SIZE];
	struct text text = text_of(out, PATH_SIZE);

	text_append(&text, "%s/%s.lsn%s", dir, uuid_format(&store_identity(store)->uuid, uuid),
		    suffix);
	return text.is_cut ? -ENAMETOOLONG : 0;
}

static bool read_page(const char *path, struct page *page)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool is_whole = fd >= 0 && read(fd, page, sizeof(*page)) == (ssize_t)sizeof(*page);

	if (fd >= 0)
		(void)close(fd);
	return is_whole && page->magic == MAGIC && page->shard_count <= DISK_SHARDS_MAX;
}

bool note_lsn_is_short(const char *dir, const struct store *store)
{
	const struct store_identity *identity = store_identity(store);
	char path[PATH_SIZE];
	struct page page;

	if (identity->was_clean || identity->is_new)
		return false;
	if (make_path(dir, store, "", path) < 0 || !read_page(path, &page) ||
	    page.shard_count != store_identity(store)->shards)
		return true;
	for (uint64_t i = 0; i < page.shard_count; i++)
		if (store_lsn(store, (unsigned)i) < page.lsns[i])
			return true;
	return false;
}

static int map_page(struct note_lsn *note)
{
	int fd = open(note->path_new, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = 0;
	void *memory;

	if (fd < 0)
		return -errno;
	/* Not a hole: that could find the file system full when the store writes to it. */
	rc = -posix_fallocate(fd, 0, sizeof(struct page));
	memory =
		rc == 0 ? mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
			: MAP_FAILED;
	if (rc == 0 && memory == MAP_FAILED)
		rc = -errno;
	(void)close(fd);
	note->page = rc == 0 ? memory : NULL;
	return rc;
}

int note_lsn_open(const char *dir, struct store *store, struct note_lsn **out, struct error *err)
{
	struct note_lsn *note = calloc(1, sizeof(*note));
	int rc = note ? 0 : -ENOMEM;

	*out = NULL;
	if (rc == 0)
		rc = make_path(dir, store, "", note->path);
	if (rc == 0)
		rc = make_path(dir, store, ".new", note->path_new);
	if (rc == 0)
		rc = map_page(note);
	if (rc < 0) {
		free(note);
		return error_set(err, rc, "note of the LSN of store '%s'", store_path(store));
	}
	note->page->magic = MAGIC;
	note->page->shard_count = store_identity(store)->shards;
	store_keep_note(store, note->page->lsns);
	*out = note;
	return 0;
}

int note_lsn_publish(struct note_lsn *note, const char *dir, const struct store *store,
		     struct error *err)
{
	char path[PATH_SIZE];

	if (note)
		return rename(note->path_new, note->path) < 0
			       ? error_set(err, -errno, "'%s'", note->path)
			       : 0;
	/* The numbers of an earlier start would be reached by any log. */
	if (make_path(dir, store, "", path) == 0)
		(void)unlink(path);
	return 0;
}

void note_lsn_close(struct note_lsn *note)
{
	if (!note)
		return;
	(void)munmap(note->page, sizeof(*note->page));
	free(note);
}
