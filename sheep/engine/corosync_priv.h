/* What a test of the engine on corosync looks at (corosync.c). */
#ifndef ENGINE_COROSYNC_PRIV_H
#define ENGINE_COROSYNC_PRIV_H

#include "sheep/engine/agree.h"
#include "sheep/engine/cpg_disk.h"
#include "sheep/engine/cpg_link.h"
#include "sheep/engine/engine_priv.h"

struct corosync {
	struct engine engine;
	char channel[CPG_CHANNEL_MAX + 1];
	struct agree *agree;
	struct cpg_link *link;
	struct cpg_disk *disk;
	struct loop_timer timer;
	struct loop_op start_op, quit_op;
	bool is_started, is_leaving;
	bool is_link_stopped, is_disk_closed;
	bool told_foreign;
	bool is_crash; /* of a test: the group is not told that we leave it */
};

/* Out of the group, close the files, then `left`. The agreement is asked nothing any more. */
void corosync_close(struct corosync *corosync);

#endif
