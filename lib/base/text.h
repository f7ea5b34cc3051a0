/* Bounded text, and the textual forms of names, sizes and numbers. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A string that is cut, never overrun. Always closed by a zero. */
struct text {
	char *data;
	size_t size; /* of the memory at data */
	size_t used; /* without the closing zero */
	bool is_cut;
};

struct text text_of(char *data, size_t size);
void text_append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Copy @from to @out of @size bytes. Returns 0, or -ENAMETOOLONG when it does not
 * fit (then @out is untouched).
 */
int text_copy(char *out, size_t size, const char *from);

/* Valid UTF-8 without NUL or control characters, @length bytes? */
bool text_is_clean(const char *data, size_t length);

/*
 * A whole number: decimal digits only, nothing around them. Returns 0,
 * -EINVAL or -ERANGE (above @max).
 */
int text_parse_u64(const char *text, uint64_t max, uint64_t *out);

/* Bytes, or with K M G T P (powers of 1024). 0, -EINVAL or -ERANGE. */
int text_parse_size(const char *text, uint64_t *out);

/* A size for people: "1.5 GiB". Returns @out. */
#define TEXT_SIZE_MAX 24
const char *text_format_size(uint64_t bytes, char out[TEXT_SIZE_MAX]);

#endif
