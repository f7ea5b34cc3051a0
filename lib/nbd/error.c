/*
 * From our error codes to the numbers of NBD, in one place.
 *
 * proto.md, Error values: only eight are allowed; EDQUOT and EFBIG count as ENOSPC. What has no row
 * is EIO. Whether a number is legal for a given request is decided where the reply is made.
 */
#include "lib/nbd/nbd_priv.h"

#include "lib/base/size.h"

struct error_row {
	int code;
	uint32_t number;
};

static const struct error_row errors[] = {
	{EPERM, NBD_EPERM},
	{EACCES, NBD_EPERM},
	{EROFS, NBD_EPERM},
	{ENOMEM, NBD_ENOMEM},
	{EINVAL, NBD_EINVAL},
	{ERANGE, NBD_EINVAL},
	{E2BIG, NBD_EINVAL},
	{ENOSPC, NBD_ENOSPC},
	{EDQUOT, NBD_ENOSPC},
	{EFBIG, NBD_ENOSPC},
	{EOVERFLOW, NBD_EOVERFLOW},
	{EOPNOTSUPP, NBD_ENOTSUP},
	{ESHUTDOWN, NBD_ESHUTDOWN},
	{E_SHUTDOWN, NBD_ESHUTDOWN},
	{E_STALE_GENERATION, NBD_ESHUTDOWN},
};

/* Of open and list; the default is "not available". */
static const struct error_row refusals[] = {
	{EPERM, NBD_REP_ERR_POLICY},	   {EACCES, NBD_REP_ERR_POLICY},
	{EBUSY, NBD_REP_ERR_POLICY},	   {EINVAL, NBD_REP_ERR_INVALID},
	{E2BIG, NBD_REP_ERR_TOO_BIG},	   {EOPNOTSUPP, NBD_REP_ERR_PLATFORM},
	{ESHUTDOWN, NBD_REP_ERR_SHUTDOWN}, {E_SHUTDOWN, NBD_REP_ERR_SHUTDOWN},
};

static uint32_t find(const struct error_row *rows, size_t count, int rc, uint32_t otherwise)
{
	int code = rc < 0 ? -rc : rc;

	for (size_t i = 0; i < count; i++)
		if (rows[i].code == code)
			return rows[i].number;
	return otherwise;
}

enum nbd_error nbd_error_of(int rc)
{
	if (rc == 0)
		return NBD_SUCCESS;
	return (enum nbd_error)find(errors, ARRAY_COUNT(errors), rc, NBD_EIO);
}

uint32_t nbd_refusal_of(int rc)
{
	return find(refusals, ARRAY_COUNT(refusals), rc, NBD_REP_ERR_UNKNOWN);
}
