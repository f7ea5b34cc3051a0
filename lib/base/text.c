#include "lib/base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/assert.h"

struct text text_of(char *data, size_t size)
{
	assert(size > 0);
	data[0] = '\0';
	return (struct text){.data = data, .size = size};
}

void text_append(struct text *text, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(text->data + text->used, text->size - text->used, format, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= text->size - text->used) {
		text->is_cut = true;
		text->used = strlen(text->data);
		return;
	}
	text->used += (size_t)n;
}

int text_copy(char *out, size_t size, const char *from)
{
	size_t length = strlen(from);

	if (length >= size)
		return -ENAMETOOLONG;
	memcpy(out, from, length + 1);
	return 0;
}

/* How many bytes the UTF-8 sequence at @p takes, 0 if it is not one (RFC 3629, 4). */
static size_t utf8_length(const unsigned char *p, size_t left)
{
	static const struct {
		unsigned char first_low, first_high, second_low, second_high, length;
	} rows[] = {
		{0x20, 0x7e, 0, 0, 1},	     {0xc2, 0xdf, 0x80, 0xbf, 2},
		{0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
		{0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
		{0xf4, 0xf4, 0x80, 0x8f, 4},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (p[0] < rows[i].first_low || p[0] > rows[i].first_high)
			continue;
		if (rows[i].length > left)
			return 0;
		if (rows[i].length > 1 && (p[1] < rows[i].second_low || p[1] > rows[i].second_high))
			return 0;
		for (size_t k = 2; k < rows[i].length; k++)
			if (p[k] < 0x80 || p[k] > 0xbf)
				return 0;
		return rows[i].length;
	}
	return 0;
}

bool text_is_clean(const char *data, size_t length)
{
	const unsigned char *p = (const unsigned char *)data;

	while (length > 0) {
		size_t n = utf8_length(p, length);
		/* U+0080 to U+009F are controls too */
		if (n == 0 || (n == 2 && p[0] == 0xc2 && p[1] < 0xa0))
			return false;
		p += n;
		length -= n;
	}
	return true;
}

static int parse_digits(const char **at, uint64_t *out)
{
	uint64_t value = 0;
	const char *p = *at;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(value, 10u, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -ERANGE;
	}
	*at = p;
	*out = value;
	return 0;
}

int text_parse_u64(const char *text, uint64_t max, uint64_t *out)
{
	uint64_t value;
	int rc = parse_digits(&text, &value);

	if (rc < 0)
		return rc;
	if (*text)
		return -EINVAL;
	if (value > max)
		return -ERANGE;
	*out = value;
	return 0;
}

int text_parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGTP";
	uint64_t value;
	int rc = parse_digits(&text, &value);

	if (rc < 0)
		return rc;
	if (*text) {
		const char *unit = strchr(units, *text);
		if (!unit || text[1])
			return -EINVAL;
		if (__builtin_mul_overflow(value, 1ull << (10 * (unit - units + 1)), &value))
			return -ERANGE;
	}
	*out = value;
	return 0;
}

const char *text_format_size(uint64_t bytes, char out[TEXT_SIZE_MAX])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned unit = 0;
	uint64_t scale = 1;

	while (unit < 6 && bytes / scale >= 1024) {
		scale *= 1024;
		unit++;
	}
	if (bytes % scale == 0)
		snprintf(out, TEXT_SIZE_MAX, "%llu %s", (unsigned long long)(bytes / scale),
			 units[unit]);
	else
		snprintf(out, TEXT_SIZE_MAX, "%.1f %s", (double)bytes / (double)scale, units[unit]);
	return out;
}
