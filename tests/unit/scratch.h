/*
 * A directory for the files of a test, below the one it runs in: not /tmp, which may be a tmpfs, since O_DIRECT is
 * to be met where the build is.
 */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stddef.h>

/* @dir: filled with its path, which begins with @name. */
void scratch_make(char *dir, size_t size, const char *name);
/* A directory and all in it. */
void scratch_remove(const char *path);

#endif
