/*
 * The commands of the standard. Rows that a later issue adds: BLOCK_STATUS (needs meta contexts and
 * structured replies); RESIZE is not offered. Without a row a command is answered with EINVAL, as
 * proto.md (Error values) wants it.
 */
#include "lib/nbd/nbd_priv.h"

const struct nbd_command nbd_standard_commands[] = {
	{
		.number = NBD_CMD_READ,
		.name = "READ",
		.traits = NBD_COMMAND_RANGE | NBD_COMMAND_DATA | NBD_COMMAND_BOUNDED,
		.flags = NBD_CMD_FLAG_DF,
	},
	{
		.number = NBD_CMD_WRITE,
		.name = "WRITE",
		.traits = NBD_COMMAND_RANGE | NBD_COMMAND_PAYLOAD | NBD_COMMAND_BOUNDED |
			  NBD_COMMAND_WRITES | NBD_COMMAND_GROWS,
	},
	{
		.number = NBD_CMD_DISC,
		.name = "DISC",
		.traits = NBD_COMMAND_ENDS,
	},
	{
		.number = NBD_CMD_FLUSH,
		.name = "FLUSH",
		.traits = NBD_COMMAND_ZEROED,
		.needs = NBD_FLAG_SEND_FLUSH,
	},
	{
		/* proto.md does not say what a trim past the end gets; EINVAL, as from others. */
		.number = NBD_CMD_TRIM,
		.name = "TRIM",
		.traits = NBD_COMMAND_RANGE | NBD_COMMAND_WRITES,
		.needs = NBD_FLAG_SEND_TRIM,
	},
	{
		.number = NBD_CMD_CACHE,
		.name = "CACHE",
		.traits = NBD_COMMAND_RANGE,
		.needs = NBD_FLAG_SEND_CACHE,
	},
	{
		.number = NBD_CMD_WRITE_ZEROES,
		.name = "WRITE_ZEROES",
		.traits = NBD_COMMAND_RANGE | NBD_COMMAND_WRITES | NBD_COMMAND_GROWS,
		.needs = NBD_FLAG_SEND_WRITE_ZEROES,
		.flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
	},
	{0},
};
