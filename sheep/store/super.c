/*
 * The superblock: two equal copies, one block each. A write goes to the first, is synced, goes to the second,
 * is synced: one of them is always whole.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "sheep/store/store_priv.h"

static void encode(const struct store *store, struct disk_super *out)
{
	const struct store_identity *id = &store->identity;
	unsigned flags = (store->is_clean ? DISK_SUPER_CLEAN : 0u) |
			 (id->lost_log ? DISK_SUPER_LOST_LOG : 0u) |
			 (uuid_is_null(&id->cluster) ? 0u : DISK_SUPER_HAS_CLUSTER);

	*out = (struct disk_super){.magic = to_le32(DISK_SUPER_MAGIC),
				   .format = to_le32(DISK_FORMAT),
				   .flags = to_le32(flags),
				   .sequence = to_le64(store->super_sequence),
				   .incarnation = to_le64(id->incarnation),
				   .life = to_le64(store->life),
				   .size_bytes = to_le64(store->size_bytes),
				   .shards = to_le32(store->shard_count),
				   .segment_bytes = to_le32(store->segment_bytes),
				   .segments = to_le32(store->segments),
				   .created_ns = to_le64(store->created_ns)};
	memcpy(out->uuid, id->uuid.bytes, sizeof(out->uuid));
	memcpy(out->cluster, id->cluster.bytes, sizeof(out->cluster));
	out->crc = to_le32(crc32c(out, sizeof(*out)));
}

int super_write(struct store *store, struct error *err)
{
	struct disk_super super;
	uint8_t *block = aligned_alloc(DISK_BLOCK, DISK_BLOCK);
	int rc = 0;

	if (!block)
		return error_set(err, -ENOMEM, "store '%s': superblock", store->path);
	store->super_sequence++;
	encode(store, &super);
	memset(block, 0, DISK_BLOCK);
	memcpy(block, &super, sizeof(super));
	for (unsigned copy = 0; copy < 2 && rc >= 0; copy++) {
		rc = loop_sync_write(store->loop, store->super_file, block, DISK_BLOCK,
				     (uint64_t)copy * DISK_BLOCK);
		if (rc >= 0)
			rc = loop_sync_fsync(store->loop, store->super_file);
	}
	free(block);
	return rc < 0 ? error_set(err, rc, "store '%s': write the superblock", store->path) : 0;
}

/* 0, or what is wrong with this copy. */
static int check(const struct store *store, const struct disk_super *from, struct error *err)
{
	struct disk_super super = *from;
	uint32_t crc = from_le32(super.crc), format = from_le32(super.format);
	uint32_t shards = from_le32(super.shards), bytes = from_le32(super.segment_bytes);

	if (from_le32(super.magic) != DISK_SUPER_MAGIC)
		return error_set(err, -E_CORRUPT, "store '%s': superblock: not one of ours",
				 store->path);
	super.crc = to_le32(0);
	if (crc32c(&super, sizeof(super)) != crc)
		return error_set(err, -E_CHECKSUM, "store '%s': superblock: checksum mismatch",
				 store->path);
	if (format != DISK_FORMAT)
		return error_set(err, -E_WRONG_VERSION,
				 "store '%s': superblock: format %u, this program knows %u",
				 store->path, format, DISK_FORMAT);
	if (shards == 0 || shards > DISK_SHARDS_MAX || !is_power_of_two(bytes) ||
	    bytes < DISK_SEGMENT_MIN || bytes > DISK_SEGMENT_MAX ||
	    from_le32(super.segments) < SEGMENTS_MIN)
		return error_set(err, -E_CORRUPT,
				 "store '%s': superblock: %u shards of %u segments of %u bytes",
				 store->path, shards, from_le32(super.segments), bytes);
	return 0;
}

static void decode(struct store *store, const struct disk_super *super)
{
	struct store_identity *id = &store->identity;
	uint32_t flags = from_le32(super->flags);

	memcpy(id->uuid.bytes, super->uuid, sizeof(super->uuid));
	memcpy(id->cluster.bytes, super->cluster, sizeof(super->cluster));
	id->incarnation = from_le64(super->incarnation);
	id->was_clean = flags & DISK_SUPER_CLEAN;
	id->lost_log = flags & DISK_SUPER_LOST_LOG;
	id->shards = from_le32(super->shards);
	store->is_clean = id->was_clean;
	store->super_sequence = from_le64(super->sequence);
	store->life = from_le64(super->life);
	store->size_bytes = from_le64(super->size_bytes);
	store->created_ns = from_le64(super->created_ns);
	store->shard_count = id->shards;
	store->segment_bytes = from_le32(super->segment_bytes);
	store->segments = from_le32(super->segments);
}

static int super_load(struct store *store, struct error *err)
{
	uint8_t *blocks = aligned_alloc(DISK_BLOCK, 2 * DISK_BLOCK);
	struct disk_super copies[2];
	struct error why[2];
	int rc[2], best;

	if (!blocks)
		return error_set(err, -ENOMEM, "store '%s': superblock", store->path);
	memset(blocks, 0, 2 * DISK_BLOCK);
	memset(why, 0, sizeof(why));
	for (unsigned i = 0; i < 2; i++) {
		int64_t got =
			loop_sync_read(store->loop, store->super_file, blocks + i * DISK_BLOCK,
				       DISK_BLOCK, (uint64_t)i * DISK_BLOCK);
		memcpy(&copies[i], blocks + i * DISK_BLOCK, sizeof(copies[i]));
		rc[i] = got < 0 ? error_set(&why[i], (int)got, "store '%s': read the superblock",
					    store->path)
				: check(store, &copies[i], &why[i]);
	}
	free(blocks);
	if (rc[0] < 0 && rc[1] < 0) {
		/* The copy that is most like ours tells best what is wrong. */
		unsigned tell = rc[0] == -E_CORRUPT && rc[1] != -E_CORRUPT;
		if (err)
			*err = why[tell];
		return rc[tell];
	}
	best = rc[0] < 0 ||
	       (rc[1] == 0 && from_le64(copies[1].sequence) > from_le64(copies[0].sequence));
	if (rc[!best] < 0)
		log_warning("%s in copy %d: the other one is whole and is used", why[!best].text,
			    !best);
	decode(store, &copies[best]);
	return 0;
}

#define NEW_NAME "superblock.new"

static void name_of(const struct store *store, char out[PATH_ROOM + 64], const char *name)
{
	struct text text = text_of(out, PATH_ROOM + 64);

	text_append(&text, "%s/%s", store->path, name);
}

struct listing {
	bool has_new;
	char other[64];
};

static int on_name(void *context, const char *name)
{
	struct listing *listing = context;

	if (strcmp(name, NEW_NAME) == 0)
		listing->has_new = true;
	else if (strcmp(name, "lost+found") != 0 && !listing->other[0])
		(void)text_copy(listing->other, sizeof(listing->other), name);
	return 0;
}

/*
 * A directory with a superblock.new and no superblock is a creation that did not get to its end: it
 * is done again. Any other directory with something in it is somebody else's.
 */
static int check_empty(const struct store *store, struct error *err)
{
	struct listing listing = {.has_new = false};
	int rc = loop_sync_list(store->loop, store->path, on_name, &listing);

	if (rc < 0)
		return error_set(err, rc, "store '%s': list", store->path);
	if (listing.other[0] && !listing.has_new)
		return error_set(err, -ENOTEMPTY, "store '%s': holds '%s' but no superblock",
				 store->path, listing.other);
	return 0;
}

static int open_locked(struct store *store, const char *name, unsigned flags, struct error *err)
{
	char path[PATH_ROOM + 64];
	int rc;

	name_of(store, path, name);
	rc = loop_sync_open(store->loop, path,
			    LOOP_FILE_READ | LOOP_FILE_WRITE | LOOP_FILE_DIRECT | flags,
			    &store->super_file, err);
	if (rc < 0)
		return rc;
	rc = loop_sync_lock(store->loop, store->super_file);
	if (rc == -EAGAIN || rc == -EACCES)
		return error_set(err, -EBUSY, "store '%s': in use by another process", store->path);
	return rc < 0 ? error_set(err, rc, "store '%s': lock", store->path) : 0;
}

int super_open(struct store *store, bool *out_is_new, struct error *err)
{
	int rc = open_locked(store, "superblock", 0, err);

	*out_is_new = rc == -ENOENT;
	if (rc == -ENOENT) {
		rc = check_empty(store, err);
		return rc < 0 ? rc : open_locked(store, NEW_NAME, LOOP_FILE_CREATE, err);
	}
	return rc < 0 ? rc : super_load(store, err);
}

int super_finish_creation(struct store *store, struct error *err)
{
	char from[PATH_ROOM + 64], to[PATH_ROOM + 64];
	int rc = super_write(store, err);

	if (rc < 0)
		return rc;
	name_of(store, from, NEW_NAME);
	name_of(store, to, "superblock");
	rc = loop_sync_rename(store->loop, from, to);
	return rc < 0 ? error_set(err, rc, "store '%s': name the superblock", store->path) : 0;
}
