/*
 * Bounded reading and writing of byte strings from outside.
 *
 * A reader or writer that runs over its end sets `failed` and stays failed:
 * callers check once, at the end. Failed reads yield zeroes.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes_reader {
	const uint8_t *data;
	size_t left; /* bytes */
	bool failed;
};

static inline struct bytes_reader bytes_reader_of(const void *data, size_t size)
{
	return (struct bytes_reader){.data = data, .left = size};
}

/* Borrow the next @size bytes; NULL at the end. */
static inline const void *bytes_take(struct bytes_reader *reader, size_t size)
{
	if (reader->failed || size > reader->left) {
		reader->failed = true;
		return NULL;
	}
	const void *at = reader->data;
	reader->data += size;
	reader->left -= size;
	return at;
}

/* Copy the next @size bytes to @out; zeroes it at the end. */
static inline void bytes_read(struct bytes_reader *reader, void *out, size_t size)
{
	const void *at = bytes_take(reader, size);

	if (at)
		memcpy(out, at, size);
	else
		memset(out, 0, size);
}

static inline bool bytes_done(const struct bytes_reader *reader)
{
	return !reader->failed && reader->left == 0;
}

struct bytes_writer {
	uint8_t *data;
	size_t used; /* bytes */
	size_t size;
	bool failed;
};

static inline struct bytes_writer bytes_writer_of(void *data, size_t size)
{
	return (struct bytes_writer){.data = data, .size = size};
}

/* Room for @size bytes to be filled in by the caller; NULL if there is none. */
static inline void *bytes_reserve(struct bytes_writer *writer, size_t size)
{
	if (writer->failed || size > writer->size - writer->used) {
		writer->failed = true;
		return NULL;
	}
	void *at = writer->data + writer->used;
	writer->used += size;
	return at;
}

static inline void bytes_write(struct bytes_writer *writer, const void *data, size_t size)
{
	void *at = bytes_reserve(writer, size);

	if (at)
		memcpy(at, data, size);
}

#endif
