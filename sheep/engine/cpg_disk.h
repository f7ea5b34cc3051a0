/*
 * The files of the engine on corosync: DIR/log.NUMBER, DIR/image.NUMBER, and DIR/lock, which the running sheep
 * holds. What is in them is the business of agree.h; here they are made, appended to, synced and
 * removed, without ever blocking the loop but in cpg_disk_open() and cpg_disk_read().
 *
 * At most one write of the log and one of an image are under way. A full disk is waited for. Callbacks
 * run on the loop, never inside a call of this header.
 */
#ifndef ENGINE_CPG_DISK_H
#define ENGINE_CPG_DISK_H

#include "lib/base/err.h"
#include "lib/loop/loop.h"

enum cpg_disk_kind { CPG_DISK_LOG, CPG_DISK_IMAGE, CPG_DISK_KINDS };

struct cpg_disk;

struct cpg_disk_callbacks {
	/* A write of this kind is on the disk, or failed for good. */
	void (*written)(void *context, enum cpg_disk_kind kind, int rc);
	void (*closed)(void *context);
};

/*
 * Use directory @dir, made if it is not there. Blocks. @callbacks are borrowed. 0; -EBUSY: another process
 * uses it; or an error, with a text.
 */
int cpg_disk_open(struct loop *loop, const char *dir, const struct cpg_disk_callbacks *callbacks,
		  void *context, struct cpg_disk **out, struct error *err);
/* Numbers of the log files, ascending; until the first write. */
const uint64_t *cpg_disk_logs(const struct cpg_disk *disk, uint32_t *count);
/*
 * The bytes of a file, from malloc(3). It and its name are synced first: a killed process may have left it in
 * memory only, and what is built upon it must not outlive it. Blocks. 0 or -errno.
 */
int cpg_disk_read(struct cpg_disk *disk, enum cpg_disk_kind kind, uint64_t number, void **data,
		  size_t *size);

/* Memory is borrowed until `written`. */

/* Append to the log file that cpg_disk_make() made last, and sync it. */
void cpg_disk_append(struct cpg_disk *disk, const void *data, size_t size);
/* Make a file in place of what is there under its number, and sync it and its name. */
void cpg_disk_make(struct cpg_disk *disk, enum cpg_disk_kind kind, uint64_t number,
		   const void *data, size_t size);
/* Remove all files of that kind with lower numbers, by and by. */
void cpg_disk_remove_below(struct cpg_disk *disk, enum cpg_disk_kind kind, uint64_t number);
uint64_t cpg_disk_syncs(const struct cpg_disk *disk);

/* Ends what is under way, without `written`; `closed` follows. */
void cpg_disk_close(struct cpg_disk *disk);
void cpg_disk_free(struct cpg_disk *disk); /* after `closed`, or never written; NULL is allowed */

#endif
