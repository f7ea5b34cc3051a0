/*
 * Status numbers and error codes, by one table.
 *
 * The first row of a number gives the code that it is turned back into; further rows of
 * the same number are codes that only travel one way. So what a node forwards
 * unchanged stays the same, and what it cannot say exactly becomes something true.
 */
#include "lib/wire/wire.h"

#include "lib/base/size.h"

struct status_row {
	int code; /* positive, of either kind */
	uint32_t status;
};

static const struct status_row rows[] = {
	{EINVAL, PROTO_STATUS_INVALID},
	{EIO, PROTO_STATUS_IO},
	{ENOMEM, PROTO_STATUS_NO_MEMORY},
	{ENOSPC, PROTO_STATUS_NO_SPACE},
	{E_NOT_FOUND, PROTO_STATUS_NOT_FOUND},
	{EEXIST, PROTO_STATUS_EXISTS},
	{EBUSY, PROTO_STATUS_BUSY},
	{ETIMEDOUT, PROTO_STATUS_TIMED_OUT},
	{EPERM, PROTO_STATUS_READ_ONLY},
	{EOPNOTSUPP, PROTO_STATUS_UNSUPPORTED},
	{E_STALE_EPOCH, PROTO_STATUS_STALE_EPOCH},
	{E_FUTURE_EPOCH, PROTO_STATUS_FUTURE_EPOCH},
	{E_NOT_PRIMARY, PROTO_STATUS_NOT_PRIMARY},
	{E_VERSION, PROTO_STATUS_VERSION},
	{E_MISSING, PROTO_STATUS_MISSING},
	{E_CHECKSUM, PROTO_STATUS_CHECKSUM},
	{E_PROTOCOL, PROTO_STATUS_PROTOCOL},
	{E_WRONG_CLUSTER, PROTO_STATUS_WRONG_CLUSTER},
	{E_WRONG_VERSION, PROTO_STATUS_WRONG_VERSION},
	{E_SHUTDOWN, PROTO_STATUS_SHUTDOWN},
	{E_NOT_FORMATTED, PROTO_STATUS_NOT_FORMATTED},
	{E_STALE_SESSION, PROTO_STATUS_STALE_SESSION},
	{E_LOST_WRITES, PROTO_STATUS_LOST_WRITES},
	{E_LOST, PROTO_STATUS_LOST},
	{E_NO_QUORUM, PROTO_STATUS_NO_QUORUM},
	{E_STALE_GENERATION, PROTO_STATUS_STALE_GENERATION},
	{E_STORE_FAILED, PROTO_STATUS_STORE_FAILED},
	{E_CORRUPT, PROTO_STATUS_CORRUPT},
	{E_STALE, PROTO_STATUS_STALE},
	{EAGAIN, PROTO_STATUS_TRY_AGAIN},
	{E2BIG, PROTO_STATUS_TOO_LARGE},
	{ERANGE, PROTO_STATUS_RANGE},
	/* One way only. */
	{E_USAGE, PROTO_STATUS_INVALID},
	{ENOENT, PROTO_STATUS_NOT_FOUND},
	{EROFS, PROTO_STATUS_READ_ONLY},
	{EACCES, PROTO_STATUS_READ_ONLY},
	{ESHUTDOWN, PROTO_STATUS_SHUTDOWN},
	{ENOSYS, PROTO_STATUS_UNSUPPORTED},
	{EFBIG, PROTO_STATUS_TOO_LARGE},
	{EMSGSIZE, PROTO_STATUS_TOO_LARGE},
	{EDQUOT, PROTO_STATUS_NO_SPACE},
	/* The sender lost a third party or gave up: its trouble, which may pass. */
	{E_CLOSED, PROTO_STATUS_TRY_AGAIN},
	{ECANCELED, PROTO_STATUS_TRY_AGAIN},
	{EINTR, PROTO_STATUS_TRY_AGAIN},
	{EPIPE, PROTO_STATUS_TRY_AGAIN},
	{ECONNRESET, PROTO_STATUS_TRY_AGAIN},
	{ECONNREFUSED, PROTO_STATUS_TRY_AGAIN},
	{EMFILE, PROTO_STATUS_NO_MEMORY},
	{ENFILE, PROTO_STATUS_NO_MEMORY},
	{ENOBUFS, PROTO_STATUS_NO_MEMORY},
};

uint32_t wire_status_of(int code)
{
	if (code >= 0)
		return PROTO_STATUS_OK;
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		if (rows[i].code == -code)
			return rows[i].status;
	return PROTO_STATUS_IO;
}

int wire_status_code(uint32_t status)
{
	if (status == PROTO_STATUS_OK)
		return 0;
	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
		if (rows[i].status == status)
			return -rows[i].code;
	return -EIO;
}

const char *wire_status_name(uint32_t status)
{
	switch (status) {
#define STATUS_NAME(name, number, text) \
	case number:                    \
		return #name;
		PROTO_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
	}
	return "UNKNOWN";
}
