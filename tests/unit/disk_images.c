#include "tests/unit/disk_images.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/proto/store.h"
#include "lib/base/hash.h"
#include "lib/base/size.h"

#define FILES_MAX  32u
#define FILE_BYTES (2u << 20) /* none may be longer */
#define SECTOR	   512u
#define EVENTS_MAX 20000u
#define TORN_MAX   8u /* sectors of one block */

struct file {
	char path[96];
	uint8_t *base; /* FILE_BYTES: what is surely on disk, at the point that is looked at */
};

struct write {
	const void *op; /* NULL: it is done */
	uint32_t file;
	uint64_t offset;
	uint32_t size;
	uint8_t *data;
	bool is_done;
	bool is_synced;
	uint32_t torn_sectors; /* so many of its first sectors are cut one by one */
};

/* A sync covers what was done when it began. */
struct sync {
	const void *op;
	uint32_t file;
	uint32_t writes; /* that had begun */
	uint8_t *covers; /* of these: was done */
};

struct event {
	enum sim_disk_event what;
	uint32_t index; /* of the write or sync */
	uint32_t floor;
};

struct disk_images {
	struct sim_disk_watch watch;
	struct sim_host *host;
	uint32_t (*floor)(void *context);
	void *context;
	struct file files[FILES_MAX];
	uint32_t file_count;
	struct write *writes;
	uint32_t write_count;
	struct sync *syncs;
	uint32_t sync_count;
	struct event *events;
	uint32_t event_count;
	uint32_t last_floor;
	uint32_t batches;
};

/* ---- recording ---- */

static uint32_t file_of(const struct disk_images *images, const char *path)
{
	for (uint32_t i = 0; i < images->file_count; i++)
		if (strcmp(images->files[i].path, path) == 0)
			return i;
	fail_msg("'%s' was made while the disk was watched", path);
	return 0;
}

static void add_event(struct disk_images *images, enum sim_disk_event what, uint32_t index)
{
	assert_true(images->event_count < EVENTS_MAX);
	images->events[images->event_count++] = (struct event){
		.what = what, .index = index, .floor = images->floor(images->context)};
}

static void begin_write(struct disk_images *images, const void *op, const char *path,
			const struct iovec *iov, unsigned count, uint64_t offset)
{
	struct write *w = &images->writes[images->write_count];
	struct disk_batch head;

	assert_true(images->write_count < EVENTS_MAX);
	*w = (struct write){.op = op, .file = file_of(images, path), .offset = offset};
	for (unsigned i = 0; i < count; i++)
		w->size += (uint32_t)iov[i].iov_len;
	assert_true(offset + w->size <= FILE_BYTES);
	w->data = malloc(w->size);
	for (uint32_t i = 0, at = 0; i < count; at += (uint32_t)iov[i++].iov_len)
		memcpy(w->data + at, iov[i].iov_base, iov[i].iov_len);
	w->torn_sectors = min_of(w->size, DISK_BLOCK) / SECTOR;
	memcpy(&head, w->data, sizeof(head));
	if (from_le32(head.magic) == DISK_BATCH_MAGIC) {
		images->batches++;
		w->torn_sectors =
			min_of((uint32_t)round_up(from_le32(head.descriptor_bytes), DISK_BLOCK),
			       w->size) /
			SECTOR;
	}
	add_event(images, SIM_DISK_WRITE_BEGUN, images->write_count++);
}

static void end_write(struct disk_images *images, const void *op)
{
	for (uint32_t i = images->write_count; i-- > 0;)
		if (images->writes[i].op == op) {
			images->writes[i].op = NULL;
			add_event(images, SIM_DISK_WRITE_DONE, i);
			return;
		}
}

static void end_sync(struct disk_images *images, const void *op)
{
	for (uint32_t i = images->sync_count; i-- > 0;)
		if (images->syncs[i].op == op) {
			images->syncs[i].op = NULL;
			add_event(images, SIM_DISK_SYNC_DONE, i);
			return;
		}
}

static void on_event(struct sim_disk_watch *watch, enum sim_disk_event what, const void *op,
		     const char *path, const struct iovec *iov, unsigned count, uint64_t offset)
{
	struct disk_images *images = (struct disk_images *)watch;

	switch (what) {
	case SIM_DISK_WRITE_BEGUN:
		begin_write(images, op, path, iov, count, offset);
		break;
	case SIM_DISK_WRITE_DONE:
		end_write(images, op);
		break;
	case SIM_DISK_SYNC_BEGUN:
		assert_true(images->sync_count < EVENTS_MAX);
		images->syncs[images->sync_count] =
			(struct sync){.op = op, .file = file_of(images, path)};
		add_event(images, SIM_DISK_SYNC_BEGUN, images->sync_count++);
		break;
	case SIM_DISK_SYNC_DONE:
		end_sync(images, op);
		break;
	}
}

static const char *directory_path;

static int add_file(void *context, const char *name)
{
	struct disk_images *images = context;
	struct file *file = &images->files[images->file_count++];

	assert_true(images->file_count <= FILES_MAX);
	snprintf(file->path, sizeof(file->path), "%s/%s", directory_path, name);
	file->base = calloc(1, FILE_BYTES);
	assert_true(sim_file_peek(images->host, file->path, file->base, FILE_BYTES, 0) >= 0);
	return 0;
}

struct disk_images *disk_images_record(struct sim_host *host, struct loop *loop,
				       const char *directory, uint32_t (*floor)(void *context),
				       void *context)
{
	struct disk_images *images = calloc(1, sizeof(*images));

	images->watch.event = on_event;
	images->host = host;
	images->floor = floor;
	images->context = context;
	images->writes = calloc(EVENTS_MAX, sizeof(*images->writes));
	images->syncs = calloc(EVENTS_MAX, sizeof(*images->syncs));
	images->events = calloc(EVENTS_MAX, sizeof(*images->events));
	directory_path = directory;
	assert_int_equal(loop_sync_list(loop, directory, add_file, images), 0);
	sim_host_watch_disk(host, &images->watch);
	return images;
}

void disk_images_stop(struct disk_images *images)
{
	sim_host_watch_disk(images->host, NULL);
	images->last_floor = images->floor(images->context);
}

uint32_t disk_images_events(const struct disk_images *images)
{
	return images->event_count;
}

uint32_t disk_images_batches(const struct disk_images *images)
{
	return images->batches;
}

void disk_images_free(struct disk_images *images)
{
	for (uint32_t i = 0; i < images->file_count; i++)
		free(images->files[i].base);
	for (uint32_t i = 0; i < images->write_count; i++)
		free(images->writes[i].data);
	for (uint32_t i = 0; i < images->sync_count; i++)
		free(images->syncs[i].covers);
	free(images->writes);
	free(images->syncs);
	free(images->events);
	free(images);
}

/* ---- images ---- */

/* Which part of a write is there. */
struct part {
	uint32_t from, to; /* bytes; equal: nothing */
};

struct image {
	uint64_t key;
	struct disk_cut cut;
	char what[64];
	struct part *parts; /* of the unsynced writes, in order */
};

struct tour {
	struct disk_images *images;
	struct sim_world *world;
	struct sim_host *host;
	struct sim_disk_watch watch; /* of what a check writes */
	uint32_t stride, number;
	void (*check)(void *context, const struct disk_cut *cut);
	void *context;
	uint32_t *unsynced; /* writes, in order */
	uint32_t unsynced_count;
	uint64_t base_key; /* of all that is synced */
	uint32_t event, floor;
	/* of this stretch without a sync that ends */
	struct image *group;
	uint32_t group_count, group_max;
	/* images that were checked: open addressing, key and floor + 1 */
	uint64_t *seen_keys;
	uint32_t *seen_floors;
	uint32_t seen_mask, seen_count;
	/* ranges to be put back */
	struct {
		uint32_t file, from, to;
	} * dirty;
	uint32_t dirty_count, dirty_max;
	uint32_t checked;
};

static uint64_t key_of(uint32_t write, struct part part)
{
	return hash_u64_pair((uint64_t)write + 1, (uint64_t)part.from << 32 | part.to);
}

static struct part whole(const struct write *w)
{
	return (struct part){0, w->size};
}

static uint32_t *seen_at(struct tour *tour, uint64_t key)
{
	uint32_t i = (uint32_t)key & tour->seen_mask;

	while (tour->seen_floors[i] && tour->seen_keys[i] != key)
		i = (i + 1) & tour->seen_mask;
	tour->seen_keys[i] = key;
	return &tour->seen_floors[i];
}

/* One image of this point: equal ones share the strictest demand. */
static void add_image(struct tour *tour, const struct part *parts, const char *what, uint32_t which)
{
	const struct disk_images *images = tour->images;
	uint64_t key = tour->base_key;
	struct image *image;

	for (uint32_t i = 0; i < tour->unsynced_count; i++)
		if (parts[i].from < parts[i].to)
			key ^= key_of(tour->unsynced[i], parts[i]);
	for (uint32_t i = 0; i < tour->group_count; i++)
		if (tour->group[i].key == key) {
			tour->group[i].cut.floor = max_of(tour->group[i].cut.floor, tour->floor);
			return;
		}
	if (tour->group_count == tour->group_max) {
		tour->group_max = tour->group_max ? tour->group_max * 2 : 256;
		tour->group = realloc(tour->group, tour->group_max * sizeof(*tour->group));
	}
	image = &tour->group[tour->group_count++];
	*image = (struct image){.key = key, .cut = {.event = tour->event, .floor = tour->floor}};
	/* Later points of the stretch have more unsynced writes: of these nothing is there. */
	image->parts = calloc(images->write_count + 1, sizeof(*parts));
	for (uint32_t i = 0; i < tour->unsynced_count; i++)
		image->parts[tour->unsynced[i]] = parts[i];
	snprintf(image->what, sizeof(image->what), "%s %u", what, which);
}

static void add_torn(struct tour *tour, struct part *parts, uint32_t i)
{
	const struct write *w = &tour->images->writes[tour->unsynced[i]];

	for (uint32_t s = 1; s <= w->torn_sectors && s * SECTOR < w->size; s++) {
		parts[i] = (struct part){0, s * SECTOR};
		add_image(tour, parts, "torn behind", i * 1000 + s);
		parts[i] = (struct part){s * SECTOR, w->size};
		add_image(tour, parts, "torn before", i * 1000 + s);
	}
}

/* Every pattern of this point. */
static void add_images(struct tour *tour)
{
	const struct write *writes = tour->images->writes;
	uint32_t n = tour->unsynced_count;
	struct part *parts = calloc(n + 1, sizeof(*parts));
	struct part *all = calloc(n + 1, sizeof(*all));

	for (uint32_t i = 0; i < n; i++)
		all[i] = whole(&writes[tour->unsynced[i]]);
	add_image(tour, all, "all", n);
	add_image(tour, parts, "none of", n);
	for (uint32_t i = 0; i < n; i++) {
		memset(parts, 0, n * sizeof(*parts));
		parts[i] = all[i];
		add_image(tour, parts, "one", i);
		add_torn(tour, parts, i);
		memcpy(parts, all, n * sizeof(*parts));
		parts[i] = (struct part){0, 0};
		add_image(tour, parts, "all but", i);
		add_torn(tour, parts, i);
		memset(parts, 0, n * sizeof(*parts));
		memcpy(parts + i, all + i, (n - i) * sizeof(*parts));
		add_image(tour, parts, "from", i);
	}
	free(parts);
	free(all);
}

/* ---- checking one ---- */

static void poke(struct tour *tour, uint32_t file, const void *data, uint32_t size, uint64_t offset)
{
	assert_int_equal(
		sim_file_poke(tour->host, tour->images->files[file].path, data, size, offset), 0);
}

static void note_dirty(struct tour *tour, uint32_t file, uint64_t from, uint64_t size)
{
	if (tour->dirty_count == tour->dirty_max) {
		tour->dirty_max = tour->dirty_max ? tour->dirty_max * 2 : 256;
		tour->dirty = realloc(tour->dirty, tour->dirty_max * sizeof(*tour->dirty));
	}
	tour->dirty[tour->dirty_count].file = file;
	tour->dirty[tour->dirty_count].from = (uint32_t)from;
	tour->dirty[tour->dirty_count++].to = (uint32_t)(from + size);
}

static void on_check_event(struct sim_disk_watch *watch, enum sim_disk_event what, const void *op,
			   const char *path, const struct iovec *iov, unsigned count,
			   uint64_t offset)
{
	struct tour *tour = container_of_type(watch, struct tour, watch);
	uint64_t size = 0;

	if (what != SIM_DISK_WRITE_BEGUN)
		return;
	for (unsigned i = 0; i < count; i++)
		size += iov[i].iov_len;
	assert_true(offset + size <= FILE_BYTES);
	note_dirty(tour, file_of(tour->images, path), offset, size);
}

static void put_back(struct tour *tour)
{
	for (uint32_t i = 0; i < tour->dirty_count; i++) {
		uint32_t from = tour->dirty[i].from, file = tour->dirty[i].file;
		poke(tour, file, tour->images->files[file].base + from, tour->dirty[i].to - from,
		     from);
	}
	tour->dirty_count = 0;
}

static void check_image(struct tour *tour, struct image *image)
{
	const struct disk_images *images = tour->images;
	uint32_t *floor = seen_at(tour, image->key);

	if (*floor > image->cut.floor)
		return; /* it was asked for as much or more */
	if (*floor == 0)
		assert_true(++tour->seen_count < tour->seen_mask / 2);
	*floor = image->cut.floor + 1;
	if (tour->number++ % tour->stride)
		return;
	for (uint32_t i = 0; i < images->write_count; i++) {
		struct part part = image->parts[i];
		const struct write *w = &images->writes[i];
		if (part.from == part.to)
			continue;
		note_dirty(tour, w->file, w->offset + part.from, part.to - part.from);
		poke(tour, w->file, w->data + part.from, part.to - part.from,
		     w->offset + part.from);
	}
	image->cut.what = image->what;
	tour->check(tour->context, &image->cut);
	tour->checked++;
	put_back(tour);
}

static void check_group(struct tour *tour)
{
	for (uint32_t i = 0; i < tour->group_count; i++) {
		check_image(tour, &tour->group[i]);
		free(tour->group[i].parts);
	}
	tour->group_count = 0;
}

/* ---- the tour ---- */

/* What the sync covers is on disk from now on. */
static void apply_sync(struct tour *tour, const struct sync *sync)
{
	struct disk_images *images = tour->images;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < tour->unsynced_count; i++) {
		uint32_t number = tour->unsynced[i];
		struct write *w = &images->writes[number];
		if (w->file != sync->file || number >= sync->writes || !sync->covers[number]) {
			tour->unsynced[kept++] = number;
			continue;
		}
		memcpy(images->files[w->file].base + w->offset, w->data, w->size);
		poke(tour, w->file, w->data, w->size, w->offset);
		tour->base_key ^= key_of(number, whole(w));
	}
	tour->unsynced_count = kept;
}

static void step(struct tour *tour, const struct event *event)
{
	struct disk_images *images = tour->images;
	struct sync *sync = &images->syncs[event->index];

	switch (event->what) {
	case SIM_DISK_WRITE_BEGUN:
		tour->unsynced[tour->unsynced_count++] = event->index;
		break;
	case SIM_DISK_WRITE_DONE:
		images->writes[event->index].is_done = true;
		break;
	case SIM_DISK_SYNC_BEGUN:
		sync->writes = images->write_count;
		sync->covers = calloc(images->write_count + 1, 1);
		for (uint32_t i = 0; i < images->write_count; i++)
			sync->covers[i] = images->writes[i].is_done;
		break;
	case SIM_DISK_SYNC_DONE:
		check_group(tour);
		apply_sync(tour, sync);
		break;
	}
}

static void make_files(struct tour *tour)
{
	const struct disk_images *images = tour->images;
	char directory[96];
	struct loop *loop;

	assert_int_equal(sim_loop_new(tour->world, tour->host,
				      &(struct loop_options){.name = "files"}, &loop),
			 0);
	memcpy(directory, images->files[0].path, sizeof(directory));
	*strrchr(directory, '/') = '\0';
	assert_int_equal(loop_sync_mkdir(loop, directory), 0);
	for (uint32_t i = 0; i < images->file_count; i++) {
		const struct file *file = &images->files[i];
		struct loop_file *handle;
		struct error err;
		assert_int_equal(loop_sync_open(loop, file->path,
						LOOP_FILE_CREATE | LOOP_FILE_WRITE, &handle, &err),
				 0);
		loop_file_close(loop, handle);
		int64_t size = sim_file_peek(images->host, file->path, file->base, 0, 0);
		assert_true(size >= 0);
		poke(tour, i, file->base, FILE_BYTES, 0);
	}
	assert_int_equal(loop_sync_fsync_dir(loop, directory), 0);
	assert_int_equal(loop_sync_fsync_dir(loop, "/"), 0);
	sim_host_crash(tour->host);
}

uint32_t disk_images_each(struct disk_images *images, struct sim_world *world,
			  struct sim_host *host, uint32_t stride,
			  void (*check)(void *context, const struct disk_cut *cut), void *context)
{
	struct tour tour = {.images = images,
			    .world = world,
			    .host = host,
			    .watch.event = on_check_event,
			    .stride = stride,
			    .check = check,
			    .context = context,
			    .seen_mask = (1u << 20) - 1};

	tour.unsynced = calloc(images->write_count + 1, sizeof(*tour.unsynced));
	tour.seen_keys = calloc(tour.seen_mask + 1, sizeof(*tour.seen_keys));
	tour.seen_floors = calloc(tour.seen_mask + 1, sizeof(*tour.seen_floors));
	make_files(&tour);
	sim_host_watch_disk(host, &tour.watch);
	for (uint32_t i = 0; i <= images->event_count; i++) {
		/* The power goes before event i. */
		bool is_end = i == images->event_count;
		tour.event = i;
		tour.floor = is_end ? images->last_floor : images->events[i].floor;
		add_images(&tour);
		if (!is_end)
			step(&tour, &images->events[i]);
	}
	check_group(&tour);
	sim_host_watch_disk(host, NULL);
	free(tour.unsynced);
	free(tour.group);
	free(tour.seen_keys);
	free(tour.seen_floors);
	free(tour.dirty);
	return tour.checked;
}
