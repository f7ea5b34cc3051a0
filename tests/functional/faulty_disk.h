/*
 * A disk in memory with a volatile cache: what was written and not flushed can be lost, in part
 * and torn, at a power cut.
 */
#ifndef FUNCTIONAL_FAULTY_DISK_H
#define FUNCTIONAL_FAULTY_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"

struct faulty_disk;

/*
 * @size: a multiple of 4096. @cache_max: bytes of unflushed writes beyond which the oldest reach
 * the medium by themselves. 0 or -ENOMEM.
 */
int faulty_disk_new(uint64_t size, uint64_t cache_max, struct faulty_disk **out);
void faulty_disk_free(struct faulty_disk *disk); /* NULL is allowed */
/* Fill a new disk from the file @path, as if flushed. */
int faulty_disk_load(struct faulty_disk *disk, const char *path, struct error *err);

/* What is read: the newest contents. Borrowed. */
const uint8_t *faulty_disk_at(const struct faulty_disk *disk, uint64_t offset);

enum faulty_durability { FAULTY_CACHED, FAULTY_DURABLE };

/* @data: NULL for zeroes. 0 or -ENOMEM, then nothing has changed. */
int faulty_disk_write(struct faulty_disk *disk, uint64_t offset, const void *data, uint64_t length,
		      enum faulty_durability durability);
void faulty_disk_flush(struct faulty_disk *disk);
/* Flip bits in each 4 KiB of the range, on the medium, too: what is there is silently wrong. */
void faulty_disk_rot(struct faulty_disk *disk, uint64_t offset, uint64_t length);

#define FAULTY_CUTS(X)                                                       \
	X(NONE, "none", "no unflushed write survives")                       \
	X(ALL, "all", "every one does, as if a process had only been ended") \
	X(RANDOM, "random", "each is kept, dropped or torn at random")

enum faulty_cut {
#define FAULTY_CUT_ENUM(name, text, meaning) FAULTY_CUT_##name,
	FAULTY_CUTS(FAULTY_CUT_ENUM)
#undef FAULTY_CUT_ENUM
		FAULTY_CUT_COUNT
};

struct faulty_report {
	uint64_t unflushed; /* writes that were in the cache */
	uint64_t lost;	    /* of them, in whole or in part */
};

/* What a power cut leaves behind, to the file @path, sparse. The disk itself does not change. */
int faulty_disk_cut(const struct faulty_disk *disk, enum faulty_cut how, uint64_t seed,
		    const char *path, struct faulty_report *report, struct error *err);

struct faulty_disk_stats {
	uint64_t writes;
	uint64_t flushes;
	uint64_t cached_bytes; /* now */
	uint64_t cached_count;
};
const struct faulty_disk_stats *faulty_disk_stats(const struct faulty_disk *disk);

#endif
