/*
 * A store: opening and closing it, its identity, its figures.
 *
 * Opening blocks: superblock, then each shard's checkpoint and log. After that the store's own fields
 * are constant, but for those that say so.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "sheep/store/store_priv.h"

#define SEGMENT_DEFAULT	 (64u << 20)
#define CACHE_DEFAULT	 (64u << 20)
#define BATCHES_DEFAULT	 4u
#define DEADLINE_DEFAULT (2 * NS_PER_S)

void store_file_name(const struct store *store, char out[PATH_ROOM + 64], const char *kind,
		     uint32_t shard, uint32_t number)
{
	struct text text = text_of(out, PATH_ROOM + 64);

	text_append(&text, "%s/%s.%02u.%05u", store->path, kind, shard, number);
}

/* ---- opening ---- */

static uint32_t reserve_of(const struct store *store)
{
	return max_of(4u, store->segments / 64);
}

/* Descriptors and the ends of segments take their part: more where segments are small. */
uint64_t store_usable_bytes(const struct store *store, uint32_t segments)
{
	uint32_t percent = store->segment_bytes < 16 * MIB ? 88 : 94, kept = reserve_of(store) + 2;

	return segments > kept ? (uint64_t)(segments - kept) * store->segment_bytes / 100 * percent
			       : 0;
}

static int shard_init(struct shard *shard, struct store *store, uint32_t number, struct loop *loop,
		      struct error *err)
{
	shard->store = store;
	shard->number = number;
	shard->loop = loop;
	shard->state = SHARD_OPENING;
	shard->segment_count = store->segments;
	shard->segment_blocks = store->segment_bytes / DISK_BLOCK;
	/* The largest entry has its descriptor and a little more beside it in a segment. */
	shard->entry_blocks_max = min_of((uint32_t)OBJECT_BLOCKS, shard->segment_blocks - 32);
	shard->batch_blocks_max = min_of(BATCH_BLOCKS_MAX, shard->segment_blocks / 8);
	shard->batches_max = store->options.batches_max;
	shard->reserve = reserve_of(store);
	shard->watermark = shard->reserve + max_of(2u, store->segments / 64);
	shard->usable_bytes = store_usable_bytes(store, store->segments);
	shard->state_counts[SEGMENT_RAW] = store->segments;
	shard->segments = calloc(store->segments, sizeof(*shard->segments));
	shard->fail_mail.deliver = shard_on_fail_mail;
	CDS_INIT_LIST_HEAD(&shard->works);
	CDS_INIT_LIST_HEAD(&shard->spare_small);
	CDS_INIT_LIST_HEAD(&shard->spare_large);
	CDS_INIT_LIST_HEAD(&shard->spare_ios);
	CDS_INIT_LIST_HEAD(&shard->drops);
	CDS_INIT_LIST_HEAD(&shard->marks);
	io_init(shard);
	if (!shard->segments || log_new(shard) < 0 || overlay_init(&shard->overlay) < 0 ||
	    cache_init(shard, store->options.cache_bytes) < 0 || preparer_new(shard) < 0 ||
	    cleaner_new(shard) < 0)
		return error_set(err, -ENOMEM, "store '%s': shard %u", store->path, number);
	return checkpoint_new(shard, err);
}

/* An empty log: two segments to begin with, and a checkpoint that names them. */
static int shard_create(struct shard *shard, struct error *err)
{
	int rc = segment_create_all(shard, err);

	for (uint32_t i = 0; i < 2 && rc == 0; i++)
		rc = segment_prepare_now(shard, i, err);
	if (rc < 0)
		return rc;
	segment_enter(shard, 0, SEGMENT_NEXT);
	segment_enter(shard, 0, SEGMENT_CURRENT);
	segment_enter(shard, 1, SEGMENT_NEXT);
	shard->current = 0;
	shard->next = 1;
	shard->generation = 1;
	shard->segments[0].generation = 1;
	shard->next_lsn = 1;
	rc = checkpoint_write_now(shard, err);
	return rc < 0 ? rc : room_open(shard, err);
}

static int shard_load(struct shard *shard, struct error *err)
{
	int rc = segment_open_all(shard, err);

	if (rc == 0)
		rc = checkpoint_load(shard, err);
	if (rc == 0)
		rc = replay_run(shard, err);
	return rc < 0 ? rc : room_open(shard, err);
}

static void shard_start(struct shard *shard)
{
	shard->state = SHARD_RUNNING;
	preparer_kick(shard);
	log_kick(shard);
	shard_publish(shard);
}

static void shard_free(struct shard *shard, bool has_loop)
{
	struct pg *pg, *next;

	if (!shard->store)
		return;
	if (has_loop) {
		loop_hook_disarm(shard->loop, &shard->hook);
		loop_timer_stop(shard->loop, &shard->watch.timer);
		loop_timer_stop(shard->loop, &shard->tick);
	}
	while (!cds_list_empty(&shard->ios)) {
		struct io *io = cds_list_first_entry(&shard->ios, struct io, link);
		cds_list_del(&io->link);
		if (io->forget)
			io->forget(io);
	}
	log_free(shard);
	read_free(shard);
	drop_free(shard);
	shard_free_marks(shard);
	checkpoint_free(shard, has_loop);
	preparer_free(shard);
	cleaner_free(shard);
	HASH_ITER(hh, shard->pgs, pg, next) {
		HASH_DEL(shard->pgs, pg);
		shard_pg_free(pg);
	}
	cache_done(shard);
	overlay_done(&shard->overlay);
	for (uint32_t i = 0; has_loop && shard->segments && i < shard->segment_count; i++)
		loop_file_close(shard->loop, shard->segments[i].file);
	free(shard->segments);
}

static void store_free(struct store *store, bool has_loop)
{
	if (!store)
		return;
	for (uint32_t i = 0; store->shards && i < store->shard_count; i++)
		shard_free(&store->shards[i], has_loop);
	if (has_loop)
		loop_file_close(store->loop, store->super_file);
	free(store->shards);
	free(store);
}

void store_get(struct store *store)
{
	__atomic_add_fetch(&store->users, 1, __ATOMIC_RELAXED);
}

void store_put(struct store *store)
{
	if (__atomic_sub_fetch(&store->users, 1, __ATOMIC_ACQ_REL) == 0)
		store_free(store, true);
}

static int check_options(struct store *store, const struct store_options *options,
			 unsigned loop_count, struct error *err)
{
	struct store_options *o = &store->options;

	*o = *options;
	o->segment_bytes = o->segment_bytes ? o->segment_bytes : SEGMENT_DEFAULT;
	o->shards = o->shards ? o->shards : loop_count;
	o->cache_bytes = o->cache_bytes ? o->cache_bytes : CACHE_DEFAULT;
	o->batches_max = o->batches_max ? o->batches_max : BATCHES_DEFAULT;
	store_set_deadline(store, o->deadline_ns ? o->deadline_ns : DEADLINE_DEFAULT);
	uint32_t least = o->has_small_segments ? DISK_SEGMENT_MIN : 2 * OBJECT_SIZE;

	if (!is_power_of_two(o->segment_bytes) || o->segment_bytes < least ||
	    o->segment_bytes > DISK_SEGMENT_MAX)
		return error_set(
			err, -EINVAL,
			"store '%s': segments of %u bytes: a power of two from %u MiB to 1 GiB",
			store->path, o->segment_bytes, least >> 20);
	if (o->shards > DISK_SHARDS_MAX)
		return error_set(err, -EINVAL, "store '%s': %u shards: at most %u", store->path,
				 o->shards, DISK_SHARDS_MAX);
	return 0;
}

/* How the disk is divided. Places are 32-bit block numbers: 16 TiB a shard. */
static int divide(struct store *store, struct error *err)
{
	const struct store_options *o = &store->options;
	uint64_t size = o->size_bytes, share, segments;

	if (size == 0) {
		int rc = loop_sync_free_space(store->loop, store->path, &size);
		if (rc < 0)
			return error_set(err, rc, "store '%s': free space", store->path);
		size = size / 100 * 95;
	}
	share = size / o->shards;
	segments = share / o->segment_bytes;
	if (segments < SEGMENTS_MIN)
		return error_set(err, -EINVAL,
				 "store '%s': %llu bytes are too few for %u shards of %u segments "
				 "of %u bytes at least",
				 store->path, (unsigned long long)size, o->shards, SEGMENTS_MIN,
				 o->segment_bytes);
	if (segments * (o->segment_bytes / DISK_BLOCK) >= DISK_PLACE_LOST)
		return error_set(err, -EINVAL, "store '%s': %llu bytes need more than %u shards",
				 store->path, (unsigned long long)size, o->shards);
	store->segment_bytes = o->segment_bytes;
	store->shard_count = o->shards;
	store->segments = (uint32_t)segments;
	store->size_bytes = segments * o->segment_bytes * o->shards;
	store->identity.shards = o->shards;
	store->identity.is_new = true;
	store->identity.uuid = uuid_make(loop_random(store->loop));
	store->created_ns = loop_wall_clock(store->loop);
	return 0;
}

static int make_shards(struct store *store, struct loop *const *loops, unsigned loop_count,
		       struct error *err)
{
	store->shards = calloc(store->shard_count, sizeof(*store->shards));
	if (!store->shards)
		return error_set(err, -ENOMEM, "store '%s'", store->path);
	for (uint32_t i = 0; i < store->shard_count; i++) {
		int rc = shard_init(&store->shards[i], store, i, loops[i % loop_count], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int create(struct store *store, struct loop *const *loops, unsigned loop_count,
		  struct error *err)
{
	int rc = divide(store, err);

	store->life = 1;
	if (rc == 0)
		rc = make_shards(store, loops, loop_count, err);
	for (uint32_t i = 0; i < store->shard_count && rc == 0; i++)
		rc = shard_create(&store->shards[i], err);
	if (rc < 0)
		return rc;
	rc = loop_sync_fsync_dir(store->loop, store->path);
	if (rc < 0)
		return error_set(err, rc, "store '%s': sync the directory", store->path);
	return super_finish_creation(store, err);
}

/* Replay, then say on disk that the store is open and how it was found, before anything is appended. */
static int load(struct store *store, struct loop *const *loops, unsigned loop_count,
		struct error *err)
{
	int rc = make_shards(store, loops, loop_count, err);

	for (uint32_t i = 0; i < store->shard_count && rc == 0; i++)
		rc = shard_load(&store->shards[i], err);
	store->life++;
	store->is_clean = false;
	if (rc == 0)
		rc = super_write(store, err);
	/* What damage left is the state from now on: the batches that showed it are not read again. If there
	 * is no room, the first checkpoint of the running shard does that: until then they show the same. */
	for (uint32_t i = 0; i < store->shard_count && rc == 0; i++)
		if (store->shards[i].was_damaged) {
			rc = checkpoint_write_now(&store->shards[i], err);
			if (is_no_room(rc))
				rc = 0;
		}
	return rc;
}

/* The directory, and its name on stable storage. */
static int make_directory(struct store *store, struct error *err)
{
	char parent[PATH_ROOM];
	char *slash;
	int rc = loop_sync_mkdir(store->loop, store->path);

	if (rc < 0 && rc != -EEXIST)
		return error_set(err, rc, "store '%s': make the directory", store->path);
	(void)text_copy(parent, sizeof(parent), store->path);
	slash = strrchr(parent, '/');
	while (slash && slash > parent && slash[1] == '\0') {
		*slash = '\0'; /* a trailing slash is no name */
		slash = strrchr(parent, '/');
	}
	if (slash)
		slash[slash == parent] = '\0';
	rc = loop_sync_fsync_dir(store->loop, slash ? parent : ".");
	return rc < 0 ? error_set(err, rc, "store '%s': sync the parent directory", store->path)
		      : 0;
}

int store_open(struct loop *const *loops, unsigned loop_count, const char *path,
	       const struct store_options *options, const struct store_callbacks *callbacks,
	       struct store **out, struct error *err)
{
	static const struct store_options defaults;
	struct store *store = calloc(1, sizeof(*store));
	bool is_new;
	int rc;

	if (!store)
		return error_set(err, -ENOMEM, "store '%s'", path);
	store->loop = loops[0];
	store->users = 1;
	if (callbacks)
		store->callbacks = *callbacks;
	if (text_copy(store->path, sizeof(store->path), path) < 0) {
		rc = error_set(err, -ENAMETOOLONG, "store '%s'", path);
		goto fail;
	}
	rc = check_options(store, options ? options : &defaults, loop_count, err);
	if (rc < 0)
		goto fail;
	rc = make_directory(store, err);
	if (rc < 0)
		goto fail;
	rc = super_open(store, &is_new, err);
	if (rc == 0)
		rc = is_new ? create(store, loops, loop_count, err)
			    : load(store, loops, loop_count, err);
	if (rc < 0)
		goto fail;
	for (uint32_t i = 0; i < store->shard_count; i++)
		shard_start(&store->shards[i]);
	*out = store;
	return 0;
fail:
	store_free(store, true);
	return rc;
}

/* ---- closing ---- */

void store_close(struct store *store)
{
	bool is_stopped = !store_is_failed(store), is_busy = false;

	for (uint32_t i = 0; i < store->shard_count; i++) {
		is_stopped &= store->shards[i].state == SHARD_STOPPED;
		is_busy |= shard_is_busy(&store->shards[i]);
	}
	if (is_stopped && !store->is_unclean) {
		struct error err;
		store->is_clean = true;
		if (super_write(store, &err) < 0)
			log_warning("%s: the next start will find it unclean", err.text);
	}
	/* Shards that the mail has not reached are done with it here as well. */
	for (uint32_t i = 0; (is_busy || store_is_failed(store)) && i < store->shard_count; i++)
		shard_fail(&store->shards[i], -E_SHUTDOWN, "closed");
	for (uint32_t i = 0; i < store->shard_count; i++)
		if (shard_is_busy(&store->shards[i]))
			shard_await(&store->shards[i]);
	if (is_busy)
		log_warning("store '%s': closed with operations in flight", store->path);
	store_put(store);
}

void store_forget(struct store *store)
{
	store_free(store, false);
}

void store_set_deadline(struct store *store, uint64_t deadline_ns)
{
	__atomic_store_n(&store->deadline_ns, deadline_ns, __ATOMIC_RELAXED);
}

/* ---- the note ---- */

uint64_t store_lsn(const struct store *store, unsigned shard)
{
	return store->shards[shard].applied_lsn;
}

void store_keep_note(struct store *store, uint64_t *lsns)
{
	for (uint32_t i = 0; lsns && i < store->shard_count; i++)
		__atomic_store_n(&lsns[i], store->shards[i].applied_lsn, __ATOMIC_RELEASE);
	store->note = lsns;
}

/* ---- identity ---- */

int store_set_incarnation(struct store *store, uint64_t incarnation, struct error *err)
{
	store->identity.incarnation = incarnation;
	return super_write(store, err);
}

int store_set_cluster(struct store *store, const struct uuid *cluster, struct error *err)
{
	char ours[UUID_TEXT_SIZE], theirs[UUID_TEXT_SIZE];

	if (!uuid_is_null(&store->identity.cluster) &&
	    !uuid_is_equal(&store->identity.cluster, cluster))
		return error_set(err, -E_WRONG_CLUSTER,
				 "store '%s': belongs to cluster %s, not to %s", store->path,
				 uuid_format(&store->identity.cluster, ours),
				 uuid_format(cluster, theirs));
	store->identity.cluster = *cluster;
	return super_write(store, err);
}

int store_clear_lost_log(struct store *store, struct error *err)
{
	store->identity.lost_log = false;
	return super_write(store, err);
}

void store_set_unclean(struct store *store, bool is_unclean)
{
	store->is_unclean = is_unclean;
}

const struct store_identity *store_identity(const struct store *store)
{
	return &store->identity;
}

const char *store_path(const struct store *store)
{
	return store->path;
}

/* ---- figures ---- */

static void publish(uint64_t *to, uint64_t value)
{
	__atomic_store_n(to, value, __ATOMIC_RELAXED);
}

static uint64_t published(const uint64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_RELAXED);
}

void shard_publish(struct shard *shard)
{
	struct shard_figures *f = &shard->figures;
	uint64_t *to = (uint64_t *)(void *)&f->counters;
	const uint64_t *from = (const uint64_t *)(const void *)&shard->counters;
	uint32_t used = shard->segment_count - shard->state_counts[SEGMENT_FREE] -
			shard->state_counts[SEGMENT_RAW] - shard->state_counts[SEGMENT_PREPARING];

	publish(&f->live_bytes, shard->live_bytes);
	publish(&f->allocated_bytes, (uint64_t)used * shard->store->segment_bytes);
	publish(&f->credit_bytes, log_credit(shard));
	for (size_t i = 0; i < sizeof(f->counters) / sizeof(uint64_t); i++)
		publish(&to[i], from[i]);
}

void store_space(const struct store *store, struct store_space *out)
{
	*out = (struct store_space){.size_bytes = store->size_bytes};
	for (uint32_t i = 0; i < store->shard_count; i++) {
		const struct shard_figures *f = &store->shards[i].figures;
		out->live_bytes += published(&f->live_bytes);
		out->allocated_bytes += published(&f->allocated_bytes);
		out->credit_bytes += published(&f->credit_bytes);
	}
}

uint64_t store_credit(const struct store *store, uint32_t pg)
{
	return log_credit(shard_of(store, pg));
}

void store_counters(const struct store *store, struct store_counters *out)
{
	uint64_t *to = (uint64_t *)(void *)out;

	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < store->shard_count; i++) {
		const struct store_counters *c = &store->shards[i].figures.counters;
		const uint64_t *from = (const uint64_t *)(const void *)c;
		for (size_t j = 0; j < sizeof(*out) / sizeof(uint64_t); j++)
			to[j] += published(&from[j]);
	}
}
