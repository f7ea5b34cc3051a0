/*
 * What a power cut may leave of a disk, enumerated.
 *
 * A recorder watches the disk of a simulated host and keeps every write and sync with its content. Then for each
 * point between two events it makes the images that a power cut there may leave:
 *
 *   all      everything unsynced is there
 *   none     nothing of it
 *   one      one of the unsynced writes is there, alone; for each
 *   but one  one is missing; for each
 *   last     only the last so many are there: the disk wrote them first; for each number
 *   torn     one write is cut at a sector of 512 bytes of its first block (of batches: of the whole
 *            descriptor), before or behind the cut is there, the others are there or are not
 *
 * Images that are equal are made once, with the strictest demand.
 */
#ifndef TESTS_DISK_IMAGES_H
#define TESTS_DISK_IMAGES_H

#include "tests/sim/sim.h"

struct disk_images;

/*
 * Watch all files in @directory of @host, of which nothing may be unsynced. @floor is asked at each event: what
 * must have survived if the power goes before it.
 */
struct disk_images *disk_images_record(struct sim_host *host, struct loop *loop,
				       const char *directory, uint32_t (*floor)(void *context),
				       void *context);
/* No more events. */
void disk_images_stop(struct disk_images *images);

struct disk_cut {
	uint32_t event;	  /* the power goes behind this one of the record */
	uint32_t floor;	  /* what must be there */
	const char *what; /* names the pattern, for people */
};

/*
 * Make each image in @host, which has no files yet but gets those of the recorded one; @check looks at it and
 * may write to it, but leaves no process behind. Every @stride-th image only (1: all).
 * Returns how many were checked.
 */
uint32_t disk_images_each(struct disk_images *images, struct sim_world *world,
			  struct sim_host *host, uint32_t stride,
			  void (*check)(void *context, const struct disk_cut *cut), void *context);
uint32_t disk_images_events(const struct disk_images *images);
uint32_t disk_images_batches(const struct disk_images *images);
void disk_images_free(struct disk_images *images);

#endif
