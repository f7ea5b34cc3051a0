/* Text from a sheep, made harmless for a terminal. */
#ifndef COLLIE_CLEAN_H
#define COLLIE_CLEAN_H

#include <stddef.h>

/*
 * Copy @size bytes to @out of @out_size bytes (cut at a character's end if need be), closed by
 * a zero. Control characters and what is not UTF-8 become '?'. Returns the bytes written.
 */
size_t clean_copy(char *out, size_t out_size, const char *text, size_t size);

/* How many columns clean text takes on a terminal. */
size_t clean_width(const char *text);

#endif
