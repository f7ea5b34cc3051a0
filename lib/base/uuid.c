#include "lib/base/uuid.h"

#include <errno.h>
#include <stdio.h>

struct uuid uuid_make(struct random *random)
{
	struct uuid uuid;
	uint64_t words[2] = {random_u64(random), random_u64(random)};

	memcpy(uuid.bytes, words, sizeof(uuid.bytes));
	uuid.bytes[6] = (uint8_t)(0x40 | (uuid.bytes[6] & 0x0f));
	uuid.bytes[8] = (uint8_t)(0x80 | (uuid.bytes[8] & 0x3f));
	return uuid;
}

const char *uuid_format(const struct uuid *uuid, char out[UUID_TEXT_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	char *p = out;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[uuid->bytes[i] >> 4];
		*p++ = digits[uuid->bytes[i] & 15];
	}
	*p = '\0';
	return out;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int uuid_parse(const char *text, struct uuid *out)
{
	struct uuid uuid;
	const char *p = text;

	for (int i = 0; i < 16; i++) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return -EINVAL;
		int high = digit(*p);
		if (high < 0)
			return -EINVAL;
		int low = digit(p[1]);
		if (low < 0)
			return -EINVAL;
		uuid.bytes[i] = (uint8_t)(high << 4 | low);
		p += 2;
	}
	if (*p)
		return -EINVAL;
	*out = uuid;
	return 0;
}
