/*
 * Two images and what lies between them.
 *
 *   front    the newest contents: reads come from here, writes change it at once
 *   medium   what no power cut can take any more
 *   cache    the writes since, oldest first, each with its bytes; a flush moves them to the medium
 *
 * A cut plays the cache onto a copy of the medium and leaves out what is lost. Each write is decided by
 * itself, and in pieces of 512 bytes, 4 KiB or whole, so that any later write may survive an earlier one and
 * the sectors of one write may each be old or new. A write with FUA is kept whole, in its place in the
 * order: what older writes to its sectors do before it does not matter.
 *
 * Always true: front = medium with the whole cache played onto it.
 */
#include "tests/functional/faulty_disk.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <urcu/list.h>

#include "lib/base/random.h"
#include "lib/base/size.h"

#define BLOCK  4096u
#define SECTOR 512u
#define CHUNK  MIB

struct cached {
	struct cds_list_head node;
	uint64_t offset;
	uint64_t length;
	enum faulty_durability durability;
	bool is_zero;
	uint8_t data[];
};

struct faulty_disk {
	uint64_t size;
	uint64_t cache_max;
	uint8_t *front;
	uint8_t *medium;
	uint64_t chunk_count;
	bool *touched; /* per CHUNK: may it hold anything but zeroes? Saves looking at all of it */
	struct cds_list_head cache;
	struct faulty_disk_stats stats;
};

static uint8_t *map_memory(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void unmap_memory(uint8_t *memory, uint64_t size)
{
	if (memory)
		(void)munmap(memory, size);
}

int faulty_disk_new(uint64_t size, uint64_t cache_max, struct faulty_disk **out)
{
	struct faulty_disk *disk = calloc(1, sizeof(*disk));

	if (!disk)
		return -ENOMEM;
	disk->size = size;
	disk->cache_max = cache_max;
	CDS_INIT_LIST_HEAD(&disk->cache);
	disk->chunk_count = div_up(size, CHUNK);
	disk->touched = calloc(disk->chunk_count, sizeof(*disk->touched));
	disk->front = map_memory(size);
	disk->medium = map_memory(size);
	if (!disk->touched || !disk->front || !disk->medium) {
		faulty_disk_free(disk);
		return -ENOMEM;
	}
	*out = disk;
	return 0;
}

void faulty_disk_free(struct faulty_disk *disk)
{
	struct cached *cached, *next;

	if (!disk)
		return;
	cds_list_for_each_entry_safe(cached, next, &disk->cache, node)
		free(cached);
	free(disk->touched);
	unmap_memory(disk->front, disk->size);
	unmap_memory(disk->medium, disk->size);
	free(disk);
}

static bool is_zero(const uint8_t *data, uint64_t length)
{
	return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}

/* Whole pages are given back, which zeroes them. */
static void zero(uint8_t *image, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;
	uint64_t first = min_of(round_up(offset, BLOCK), end);
	uint64_t last = max_of(round_down(end, BLOCK), first);

	memset(image + offset, 0, first - offset);
	memset(image + last, 0, end - last);
	if (first < last && madvise(image + first, last - first, MADV_DONTNEED) < 0)
		memset(image + first, 0, last - first);
}

static void touch(struct faulty_disk *disk, uint64_t offset, uint64_t length)
{
	for (uint64_t chunk = offset / CHUNK; chunk < div_up(offset + length, CHUNK); chunk++)
		disk->touched[chunk] = true;
}

/* The next block from @at on that may hold something; the disk's size if there is none. */
static uint64_t next_block(const struct faulty_disk *disk, uint64_t at)
{
	while (at < disk->size && !disk->touched[at / CHUNK])
		at = min_of(round_down(at, CHUNK) + CHUNK, disk->size);
	return at;
}

/* Part of a cached write: @from bytes into it. */
static void play(uint8_t *image, const struct cached *cached, uint64_t from, uint64_t length)
{
	if (cached->is_zero)
		zero(image, cached->offset + from, length);
	else
		memcpy(image + cached->offset + from, cached->data + from, length);
}

static void write_back(struct faulty_disk *disk, struct cached *cached)
{
	play(disk->medium, cached, 0, cached->length);
	cds_list_del(&cached->node);
	disk->stats.cached_bytes -= cached->is_zero ? 0 : cached->length;
	disk->stats.cached_count--;
	free(cached);
}

static struct cached *oldest(struct faulty_disk *disk)
{
	return cds_list_entry(disk->cache.next, struct cached, node);
}

const uint8_t *faulty_disk_at(const struct faulty_disk *disk, uint64_t offset)
{
	return disk->front + offset;
}

int faulty_disk_write(struct faulty_disk *disk, uint64_t offset, const void *data, uint64_t length,
		      enum faulty_durability durability)
{
	bool zeroes = !data || is_zero(data, length);
	struct cached *cached = malloc(sizeof(*cached) + (zeroes ? 0 : length));

	if (!cached)
		return -ENOMEM;
	*cached = (struct cached){
		.offset = offset,
		.length = length,
		.durability = durability,
		.is_zero = zeroes,
	};
	if (!zeroes) {
		memcpy(cached->data, data, length);
		touch(disk, offset, length);
	}
	cds_list_add_tail(&cached->node, &disk->cache);
	play(disk->front, cached, 0, length);
	disk->stats.writes++;
	disk->stats.cached_count++;
	disk->stats.cached_bytes += zeroes ? 0 : length;
	while (disk->stats.cached_bytes > disk->cache_max)
		write_back(disk, oldest(disk));
	return 0;
}

void faulty_disk_flush(struct faulty_disk *disk)
{
	while (!cds_list_empty(&disk->cache))
		write_back(disk, oldest(disk));
	disk->stats.flushes++;
}

static void flip(uint8_t *image, uint64_t offset, uint64_t length)
{
	for (uint64_t at = offset; at < offset + length; at += BLOCK)
		image[at] ^= 0x55;
}

void faulty_disk_rot(struct faulty_disk *disk, uint64_t offset, uint64_t length)
{
	faulty_disk_flush(disk);
	flip(disk->front, offset, length);
	flip(disk->medium, offset, length);
}

const struct faulty_disk_stats *faulty_disk_stats(const struct faulty_disk *disk)
{
	return &disk->stats;
}

/* ---- power cuts ---- */

struct dice {
	struct random random;
	uint64_t keep_percent; /* drawn once per cut: some lose nearly all, some nearly nothing */
};

static bool is_kept(struct dice *dice)
{
	return random_below(&dice->random, 100) < dice->keep_percent;
}

/* Play some pieces of @cached; false if any was left out. */
static bool play_torn(uint8_t *image, const struct cached *cached, struct dice *dice)
{
	static const uint64_t pieces[] = {UINT64_MAX, BLOCK, SECTOR};
	uint64_t piece = pieces[random_below(&dice->random, ARRAY_COUNT(pieces))];
	bool whole = true;

	for (uint64_t at = 0; at < cached->length;) {
		/* Pieces are aligned on the disk, not in the write. */
		uint64_t left = cached->length - at;
		uint64_t length = piece == UINT64_MAX
					  ? left
					  : min_of(left, piece - (cached->offset + at) % piece);

		if (is_kept(dice))
			play(image, cached, at, length);
		else
			whole = false;
		at += length;
	}
	return whole;
}

static void play_survivors(const struct faulty_disk *disk, enum faulty_cut how, uint64_t seed,
			   uint8_t *image, struct faulty_report *report)
{
	struct cached *cached;
	struct dice dice;

	random_init(&dice.random, seed);
	dice.keep_percent = 5 + random_below(&dice.random, 91);
	cds_list_for_each_entry(cached, &disk->cache, node) {
		bool whole = how == FAULTY_CUT_ALL || cached->durability == FAULTY_DURABLE;

		if (whole)
			play(image, cached, 0, cached->length);
		else if (how == FAULTY_CUT_RANDOM)
			whole = play_torn(image, cached, &dice);
		report->unflushed++;
		report->lost += !whole;
	}
}

static int save(int fd, const struct faulty_disk *disk, const uint8_t *image)
{
	if (ftruncate(fd, (off_t)disk->size) < 0)
		return -errno;
	for (uint64_t at = 0; (at = next_block(disk, at)) < disk->size; at += BLOCK) {
		if (is_zero(image + at, BLOCK))
			continue;
		if (pwrite(fd, image + at, BLOCK, (off_t)at) != BLOCK)
			return errno ? -errno : -EIO;
	}
	return 0;
}

int faulty_disk_cut(const struct faulty_disk *disk, enum faulty_cut how, uint64_t seed,
		    const char *path, struct faulty_report *report, struct error *err)
{
	uint8_t *image = map_memory(disk->size);
	int fd, rc;

	if (!image)
		return error_set(err, -ENOMEM, "image");
	for (uint64_t at = 0; (at = next_block(disk, at)) < disk->size; at += BLOCK)
		if (!is_zero(disk->medium + at, BLOCK))
			memcpy(image + at, disk->medium + at, BLOCK);
	*report = (struct faulty_report){0};
	play_survivors(disk, how, seed, image, report);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	rc = fd < 0 ? -errno : save(fd, disk, image);
	if (fd >= 0 && close(fd) < 0 && rc == 0)
		rc = -errno;
	unmap_memory(image, disk->size);
	return rc < 0 ? error_set(err, rc, "'%s'", path) : 0;
}

/* One run of data of the file, to both images. */
static int load_run(struct faulty_disk *disk, int fd, uint64_t from, uint64_t to)
{
	if (to > disk->size)
		return -EFBIG;
	for (uint64_t at = from; at < to;) {
		ssize_t n = pread(fd, disk->medium + at, to - at, (off_t)at);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (uint64_t)n;
	}
	memcpy(disk->front + from, disk->medium + from, to - from);
	touch(disk, from, to - from);
	return 0;
}

int faulty_disk_load(struct faulty_disk *disk, const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	off_t data, hole = 0;

	if (fd < 0)
		return error_set(err, -errno, "'%s'", path);
	while (rc == 0 && (data = lseek(fd, hole, SEEK_DATA)) >= 0) {
		hole = lseek(fd, data, SEEK_HOLE);
		rc = hole < 0 ? -errno : load_run(disk, fd, (uint64_t)data, (uint64_t)hole);
	}
	if (rc == 0 && errno != ENXIO) /* which is how the last hole is told */
		rc = -errno;
	(void)close(fd);
	return rc < 0 ? error_set(err, rc, "'%s'", path) : 0;
}
