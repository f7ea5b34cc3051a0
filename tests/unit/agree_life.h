/*
 * One member of the agreement on corosync that is alone: its group and its disk are made up here, so that a test can
 * do to the files what it likes between two starts.
 */
#ifndef TESTS_AGREE_LIFE_H
#define TESTS_AGREE_LIFE_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/size.h"
#include "sheep/engine/agree.h"

#define AGREE_LIFE_FILES_MAX	64
#define AGREE_LIFE_SEEN_MAX	4096
#define AGREE_LIFE_MESSAGES_MAX 64

struct agree_life_file {
	enum agree_file kind;
	uint64_t number;
	uint8_t *data;
	size_t size;
};

struct agree_life_disk {
	struct agree_life_file files[AGREE_LIFE_FILES_MAX];
	unsigned count;
	uint64_t starts; /* each start has a number of its own */
};

/* One start of the member, and what its user was told. */
struct agree_life {
	struct agree_life_disk *disk;
	struct agree *agree;
	struct random random;
	uint64_t now_ns, timer_ns;
	struct {
		void *data;
		size_t size;
	} messages[AGREE_LIFE_MESSAGES_MAX]; /* to be delivered */
	unsigned message_count;
	bool has_written, has_imaged; /* to be told */
	uint64_t log_number;
	bool is_ready, has_failed;
	uint64_t index, digest;
	uint64_t seen[AGREE_LIFE_SEEN_MAX]; /* digest at each index */
};

extern const struct uuid agree_life_node; /* whose log it is */

/* NULL if there is none. */
struct agree_life_file *agree_life_disk_find(struct agree_life_disk *disk, enum agree_file kind,
					     uint64_t number);
/* In place of what was there. */
void agree_life_disk_make(struct agree_life_disk *disk, enum agree_file kind, uint64_t number,
			  const void *data, size_t size);
void agree_life_disk_drop(struct agree_life_disk *disk, enum agree_file kind, uint64_t number);
/* @to is made; agree_life_disk_done() frees what is in it. */
void agree_life_disk_copy(const struct agree_life_disk *from, struct agree_life_disk *to);
void agree_life_disk_done(struct agree_life_disk *disk);
/* The log with the highest number, or NULL. */
struct agree_life_file *agree_life_disk_newest(struct agree_life_disk *disk);

/* What engine_open() does: 0, or why it is refused. agree_life_end() frees it in either case. @disk: borrowed. */
int agree_life_open(struct agree_life *life, struct agree_life_disk *disk, const struct uuid *as,
		    struct error *err);
/* Until it is ready or has failed. */
void agree_life_start(struct agree_life *life);
void agree_life_end(struct agree_life *life);
/* @count commands, of different lengths; all are committed at the end. */
void agree_life_propose(struct agree_life *life, unsigned count);

#endif
