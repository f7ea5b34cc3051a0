/*
 * A store: opening and closing it, its shards, their PGs, what happens when one fails, figures.
 *
 *   shard: OPENING --> RUNNING --> STOPPING --> STOPPED
 *                         |            |
 *                         +--> FAILED <+
 *
 * Opening blocks: superblock, then each shard's checkpoint and log. From RUNNING on a shard is touched by
 * its loop's thread only; the store's own fields are constant then, but for those that say so.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "sheep/store/store_priv.h"

#define SEGMENT_DEFAULT (64u << 20)
#define CACHE_DEFAULT	(64u << 20)
#define BATCHES_DEFAULT 4u
#define HANG_DEFAULT	(5 * NS_PER_S)

void store_file_name(const struct store *store, char out[PATH_ROOM + 64], const char *kind,
		     uint32_t shard, uint32_t number)
{
	struct text text = text_of(out, PATH_ROOM + 64);

	text_append(&text, "%s/%s.%02u.%05u", store->path, kind, shard, number);
}

/* ---- PGs ---- */

struct shard *shard_of(const struct store *store, uint32_t pg)
{
	return &store->shards[pg % store->shard_count];
}

unsigned store_shard_of(const struct store *store, uint32_t pg)
{
	return pg % store->shard_count;
}

struct loop *store_loop_of(const struct store *store, uint32_t pg)
{
	return shard_of(store, pg)->loop;
}

struct pg *shard_pg(struct shard *shard, uint32_t id)
{
	struct pg *pg = shard->last_pg;

	if (pg && pg->id == id)
		return pg;
	HASH_FIND(hh, shard->pgs, &id, sizeof(id), pg);
	if (pg)
		shard->last_pg = pg;
	return pg;
}

struct pg *shard_pg_make(struct shard *shard, uint32_t id)
{
	struct pg *pg = shard_pg(shard, id);

	if (pg)
		return pg;
	pg = calloc(1, sizeof(*pg));
	if (!pg)
		return NULL;
	pg->id = id;
	table_init(&pg->table, &shard->saver, id);
	HASH_ADD(hh, shard->pgs, id, sizeof(pg->id), pg);
	shard->last_pg = pg;
	return pg;
}

/* The objects' pages and slots go with the cache. */
static void pg_free(struct pg *pg)
{
	table_done(&pg->table);
	record_done(&pg->record);
	free(pg);
}

void shard_pg_forget(struct shard *shard, struct pg *pg)
{
	if (pg->is_commit_dirty)
		cds_list_del(&pg->commit_link);
	if (shard->last_pg == pg)
		shard->last_pg = NULL;
	HASH_DEL(shard->pgs, pg);
	pg_free(pg);
}

bool shard_pg_next(struct shard *shard, uint32_t from, uint32_t *out)
{
	struct pg *pg, *next;
	bool is_found = false;

	HASH_ITER(hh, shard->pgs, pg, next)
		if (pg->id >= from && (!is_found || pg->id < *out) &&
		    (pg->table.object_count > 0 || !record_is_empty(&pg->record))) {
			*out = pg->id;
			is_found = true;
		}
	return is_found;
}

/* Until its loop has turned a shard is everybody's; then its thread's. */
static bool is_here(const struct shard *shard)
{
	return !__atomic_load_n(&shard->has_run, __ATOMIC_ACQUIRE) ||
	       pthread_equal(shard->thread, pthread_self());
}

int store_pg_next(struct store *store, uint32_t from, uint32_t *out_pg)
{
	bool is_found = false;
	uint32_t id = 0;

	/* Before the loops run all are ours; then each loop asks about what it owns. */
	for (uint32_t i = 0; i < store->shard_count; i++) {
		struct shard *shard = &store->shards[i];
		if (is_here(shard) && shard_pg_next(shard, from, &id) &&
		    (!is_found || id < *out_pg)) {
			*out_pg = id;
			is_found = true;
		}
	}
	return is_found;
}

void store_pg_info(struct store *store, uint32_t pg_id, struct store_pg_info *out)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	*out = (struct store_pg_info){0};
	if (!pg)
		return;
	*out = (struct store_pg_info){.last = pg->record.last,
				      .commit = pg->record.commit,
				      .tail_count = pg->record.tail_count,
				      .objects = (uint32_t)pg->table.object_count,
				      .missing = pg->missing,
				      .data_blocks = pg->data_blocks};
}

uint32_t store_pg_tail(struct store *store, uint32_t pg_id, struct store_tail_entry *out,
		       uint32_t max)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	return pg ? record_tail(&pg->record, out, max) : 0;
}

int store_request_find(struct store *store, uint32_t pg_id, uint64_t session, uint64_t number,
		       struct version *out)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	return pg ? record_find_request(&pg->record, session, number, out) : 0;
}

uint32_t store_requests(struct store *store, uint32_t pg_id, struct store_request *out,
			uint32_t max)
{
	const struct pg *pg = shard_pg(shard_of(store, pg_id), pg_id);

	return pg ? record_requests(&pg->record, out, max) : 0;
}

/* ---- failing ---- */

static void on_fail_mail(struct loop *loop, struct loop_mail *mail)
{
	struct shard *shard = container_of_type(mail, struct shard, fail_mail);

	shard_fail(shard, -E_STORE_FAILED, "another shard of the store");
}

void shard_fail(struct shard *shard, int error, const char *what)
{
	struct store *store = shard->store;

	if (shard->state == SHARD_FAILED || shard->state == SHARD_STOPPED)
		return;

	bool is_first = !__atomic_exchange_n(&store->is_failed, true, __ATOMIC_ACQ_REL);

	if (is_first)
		log_error("store '%s': shard %u: %s: %s: the store stops", store->path,
			  shard->number, what, err_text(error));
	shard->state = SHARD_FAILED;
	shard->error = error;
	loop_hook_disarm(shard->loop, &shard->hook);
	loop_timer_stop(shard->loop, &shard->watch);
	loop_timer_stop(shard->loop, &shard->tick);
	log_abandon(shard, -E_STORE_FAILED);
	read_abandon(shard, -E_STORE_FAILED);
	drop_abandon(shard, -E_STORE_FAILED);
	if (shard->stop_op) {
		loop_complete(shard->loop, shard->stop_op, -E_STORE_FAILED);
		shard->stop_op = NULL;
	}
	if (!is_first)
		return;
	for (uint32_t i = 0; i < store->shard_count; i++)
		if (&store->shards[i] != shard)
			loop_post(store->shards[i].loop, &store->shards[i].fail_mail);
	if (store->callbacks.failed)
		store->callbacks.failed(store->callbacks.context, store, error);
}

bool store_is_failed(const struct store *store)
{
	return __atomic_load_n(&store->is_failed, __ATOMIC_ACQUIRE);
}

/* An entry of our own that marks an object. */
struct mark {
	struct store_append append;
	struct store_run run;
};

static void on_marked(struct store_append *append, int result)
{
	free(container_of_type(append, struct mark, append));
}

void shard_corrupt(struct shard *shard, uint32_t pg_id, const struct object_key *key,
		   uint32_t block, uint32_t count)
{
	struct store *store = shard->store;
	struct store_object object;
	struct mark *mark;

	if (shard->state != SHARD_RUNNING || !store_object(store, pg_id, key, &object) ||
	    (object.is_missing && count == 0))
		return;
	struct pg *pg = shard_pg(shard, pg_id);
	struct object *known = pg ? table_find(&pg->table, key, NULL) : NULL;

	if (known)
		known->flags &= (uint8_t)~OBJECT_TOLD;
	mark = calloc(1, sizeof(*mark));
	if (mark) {
		mark->run = (struct store_run){(uint16_t)block, (uint16_t)count, BLOCK_ABSENT};
		mark->append =
			(struct store_append){.done = on_marked,
					      .pg = pg_id,
					      .family = object.family,
					      .key = *key,
					      .flags = STORE_SET_MISSING | STORE_UNSEQUENCED |
						       STORE_ANY_PREVIOUS | STORE_MARK,
					      .runs = &mark->run,
					      .run_count = count > 0};
		if (store_append(store, &mark->append) < 0)
			free(mark);
	}
	if (!object.is_missing && store->callbacks.corrupt)
		store->callbacks.corrupt(store->callbacks.context, store, pg_id, key);
}

/* ---- stopping ---- */

enum stop_stage { STOP_DRAINING, STOP_CHECKPOINT, STOP_DONE };

static bool is_quiet(struct shard *shard)
{
	return log_is_idle(shard) && cds_list_empty(&shard->works) &&
	       cds_list_empty(&shard->drops) && cds_list_empty(&shard->held_appends) &&
	       cds_list_empty(&shard->sync_waiters) && shard->cache.loading == 0 &&
	       cleaner_is_idle(shard) && preparer_is_idle(shard) && checkpoint_is_idle(shard);
}

static void stopped(struct shard *shard)
{
	struct loop_op *op = shard->stop_op;

	shard->stop_stage = STOP_DONE;
	shard->state = SHARD_STOPPED;
	shard->stop_op = NULL;
	shard_publish(shard);
	loop_hook_disarm(shard->loop, &shard->hook);
	loop_timer_stop(shard->loop, &shard->watch);
	loop_timer_stop(shard->loop, &shard->tick);
	loop_complete(shard->loop, op, 0);
}

void shard_check_stop(struct shard *shard)
{
	if (shard->state != SHARD_STOPPING || !is_quiet(shard))
		return;
	if (shard->stop_stage == STOP_DRAINING) {
		shard->stop_stage = STOP_CHECKPOINT;
		checkpoint_kick(shard, true);
		return;
	}
	if (shard->stop_stage == STOP_CHECKPOINT && !checkpoint_is_due(shard))
		stopped(shard);
}

void store_stop_shard(struct store *store, unsigned number, struct loop_op *op)
{
	struct shard *shard = &store->shards[number];

	if (shard->state != SHARD_RUNNING) {
		loop_complete(shard->loop, op, shard->state == SHARD_FAILED ? -E_STORE_FAILED : 0);
		return;
	}
	shard->stop_op = op;
	shard->state = SHARD_STOPPING;
	log_kick(shard);
	shard_check_stop(shard);
}

/* ---- opening ---- */

static int shard_init(struct shard *shard, struct store *store, uint32_t number, struct loop *loop,
		      struct error *err)
{
	uint64_t small = store->segment_bytes < 16 * MIB;

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
	shard->reserve = max_of(4u, store->segments / 64);
	shard->watermark = shard->reserve + max_of(2u, store->segments / 64);
	/* Descriptors and the ends of segments take their part: more where segments are small. */
	shard->usable_bytes = (uint64_t)(store->segments - shard->reserve - 2) *
			      store->segment_bytes / 100 * (small ? 90 : 96);
	shard->state_counts[SEGMENT_RAW] = store->segments;
	shard->segments = calloc(store->segments, sizeof(*shard->segments));
	shard->fail_mail.deliver = on_fail_mail;
	CDS_INIT_LIST_HEAD(&shard->works);
	CDS_INIT_LIST_HEAD(&shard->spare_small);
	CDS_INIT_LIST_HEAD(&shard->spare_large);
	CDS_INIT_LIST_HEAD(&shard->spare_ios);
	CDS_INIT_LIST_HEAD(&shard->drops);
	CDS_INIT_LIST_HEAD(&shard->ios);
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
	return checkpoint_write_now(shard, err);
}

static int shard_load(struct shard *shard, struct error *err)
{
	int rc = segment_open_all(shard, err);

	if (rc == 0)
		rc = checkpoint_load(shard, err);
	return rc < 0 ? rc : replay_run(shard, err);
}

static void shard_start(struct shard *shard)
{
	shard->state = SHARD_RUNNING;
	io_start_watch(shard);
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
		loop_timer_stop(shard->loop, &shard->watch);
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
	checkpoint_free(shard, has_loop);
	preparer_free(shard);
	cleaner_free(shard);
	HASH_ITER(hh, shard->pgs, pg, next) {
		HASH_DEL(shard->pgs, pg);
		pg_free(pg);
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

static int check_options(struct store *store, const struct store_options *options,
			 unsigned loop_count, struct error *err)
{
	struct store_options *o = &store->options;

	*o = *options;
	o->segment_bytes = o->segment_bytes ? o->segment_bytes : SEGMENT_DEFAULT;
	o->shards = o->shards ? o->shards : loop_count;
	o->cache_bytes = o->cache_bytes ? o->cache_bytes : CACHE_DEFAULT;
	o->batches_max = o->batches_max ? o->batches_max : BATCHES_DEFAULT;
	o->hang_ns = o->hang_ns ? o->hang_ns : HANG_DEFAULT;
	if (!is_power_of_two(o->segment_bytes) || o->segment_bytes < DISK_SEGMENT_MIN ||
	    o->segment_bytes > DISK_SEGMENT_MAX)
		return error_set(
			err, -EINVAL,
			"store '%s': segments of %u bytes: a power of two from 1 MiB to 1 GiB",
			store->path, o->segment_bytes);
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
	if (segments * (o->segment_bytes / DISK_BLOCK) >= DISK_PLACE_ZERO)
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
	/* What damage left is the state from now on: the batches that showed it are not read again. */
	for (uint32_t i = 0; i < store->shard_count && rc == 0; i++)
		if (store->shards[i].was_damaged)
			rc = checkpoint_write_now(&store->shards[i], err);
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
	bool is_stopped = !store_is_failed(store);
	bool is_busy = false;

	for (uint32_t i = 0; i < store->shard_count; i++) {
		is_stopped &= store->shards[i].state == SHARD_STOPPED;
		is_busy |= !cds_list_empty(&store->shards[i].ios);
	}
	if (is_stopped) {
		struct error err;
		store->is_clean = true;
		if (super_write(store, &err) < 0)
			log_warning("%s: the next start will find it unclean", err.text);
	}
	/* What is in flight, or hangs, still uses the memory: it is leaked. */
	if (is_busy) {
		log_warning("store '%s': closed with operations in flight", store->path);
		for (uint32_t i = 0; i < store->shard_count; i++)
			shard_fail(&store->shards[i], -E_SHUTDOWN, "closed");
		return;
	}
	store_free(store, true);
}

void store_forget(struct store *store)
{
	store_free(store, false);
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
