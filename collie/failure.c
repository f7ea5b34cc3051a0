#include "collie/failure.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

#include "collie/clean.h"
#include "include/proto/status.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

static const struct status_row {
	const char *name, *text;
} statuses[] = {
#define STATUS_ROW(name, number, text) [number] = {#name, text},
	PROTO_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

/* Statuses that are more than a refusal. */
static const uint8_t exits[] = {
	[PROTO_STATUS_EXISTS] = COLLIE_EXISTS,
	[PROTO_STATUS_NO_SPACE] = COLLIE_NO_SPACE,
	[PROTO_STATUS_NOT_FOUND] = COLLIE_NOT_FOUND,
	[PROTO_STATUS_BUSY] = COLLIE_BUSY,
	[PROTO_STATUS_TIMED_OUT] = COLLIE_BUSY,
	[PROTO_STATUS_NO_QUORUM] = COLLIE_BUSY, /* it was waited for until --timeout */
	[PROTO_STATUS_IO] = COLLIE_UNREACHABLE,
	[PROTO_STATUS_NO_MEMORY] = COLLIE_UNREACHABLE,
	[PROTO_STATUS_CHECKSUM] = COLLIE_UNREACHABLE,
	[PROTO_STATUS_PROTOCOL] = COLLIE_UNREACHABLE,
	[PROTO_STATUS_WRONG_CLUSTER] = COLLIE_UNREACHABLE,
	[PROTO_STATUS_WRONG_VERSION] = COLLIE_UNREACHABLE,
	[PROTO_STATUS_SHUTDOWN] = COLLIE_UNREACHABLE,
};

enum collie_exit failure_exit_of(uint32_t status)
{
	if (status >= ARRAY_COUNT(statuses) || !statuses[status].name)
		return COLLIE_UNREACHABLE;
	if (status == PROTO_STATUS_OK)
		return COLLIE_DONE;
	if (status < ARRAY_COUNT(exits) && exits[status])
		return exits[status];
	return COLLIE_REFUSED;
}

void failure_code_of(uint32_t status, char *out, size_t size)
{
	if (status < ARRAY_COUNT(statuses) && statuses[status].name)
		snprintf(out, size, "%s", statuses[status].name);
	else
		snprintf(out, size, "status_%u", status);
	for (char *p = out; *p; p++)
		*p = (char)tolower((unsigned char)*p);
}

int failure_set(struct failure *failure, enum collie_exit exit, const char *code,
		const char *format, ...)
{
	char text[sizeof(failure->text)];
	va_list ap;

	failure->exit = exit;
	snprintf(failure->code, sizeof(failure->code), "%s", code);
	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	/* Some of it may come from the other side, or be a strange argument. */
	clean_copy(failure->text, sizeof(failure->text), text, strlen(text));
	return (int)exit;
}

int failure_from_status(struct failure *failure, uint32_t status, const char *text, size_t size)
{
	failure->exit = failure_exit_of(status);
	failure_code_of(status, failure->code, sizeof(failure->code));
	if (size > 0)
		clean_copy(failure->text, sizeof(failure->text), text, size);
	else if (status < ARRAY_COUNT(statuses) && statuses[status].name)
		snprintf(failure->text, sizeof(failure->text), "%s", statuses[status].text);
	else
		snprintf(failure->text, sizeof(failure->text),
			 "the sheep answers with status %u, which this collie does not know",
			 status);
	return (int)failure->exit;
}
