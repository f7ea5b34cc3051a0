/* The table of commands: all that is known of each, in one place. */
#ifndef CLUSTER_COMMAND_H
#define CLUSTER_COMMAND_H

#include "sheep/cluster/cluster_priv.h"

enum command_needs {
	NEEDS_NODE = 1u << 0,	/* its proposer is registered, in the start that proposed it */
	NEEDS_FORMAT = 1u << 1, /* the cluster is formatted */
};

struct command_row {
	const char *name;
	uint32_t body_size; /* bytes */
	uint32_t row_size;  /* bytes of each row; 0: there are none */
	uint32_t rows_max;
	uint32_t needs;			     /* enum command_needs */
	uint16_t reserved_at, reserved_size; /* in the body: must be zero; size 0: there is none */
	uint16_t flags_at;		     /* in the body: le32 of which... */
	uint32_t flags_known;		     /* ...only these bits are allowed; 0: there is none */
	apply_fn *apply;
	/* When it does nothing although it is well-formed: late, or because things have changed (S0).
	 * A second copy of any command does nothing, by the proposer's window. */
	const char *void_when;
};

/* NULL: unknown. */
const struct command_row *command_row(uint32_t type);
/* Is it whole? Then *@out is filled in, and borrows from @command. */
enum proto_status command_parse(const void *command, size_t size, struct log_body *out,
				struct error *err);
/* NULL: too many rows, or no memory. */
struct cluster_command *cluster_command_retarget(const struct log_retarget_row *rows,
						 uint32_t count);

#endif
