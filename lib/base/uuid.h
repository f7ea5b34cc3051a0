/* UUIDs (RFC 9562) as 16 bytes and as text. */
#ifndef BASE_UUID_H
#define BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "lib/base/random.h"

#define UUID_TEXT_SIZE 37 /* with the closing zero */

struct uuid {
	uint8_t bytes[16];
};

/* A version 4 UUID from @random. */
struct uuid uuid_make(struct random *random);

/* The lower-case text form, in @out. Returns @out. */
const char *uuid_format(const struct uuid *uuid, char out[UUID_TEXT_SIZE]);

/* 0, or -EINVAL when @text is no UUID. */
int uuid_parse(const char *text, struct uuid *out);

static inline bool uuid_is_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static inline bool uuid_is_null(const struct uuid *uuid)
{
	static const struct uuid none;

	return uuid_is_equal(uuid, &none);
}

#endif
