#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

void scratch_make(char *dir, size_t size, const char *name)
{
	int length = snprintf(dir, size, "%s.------", name);

	assert_true(length > 0 && (size_t)length < size);
	memset(dir + length - 6, 'X', 6);
	assert_non_null(mkdtemp(dir));
}

void scratch_remove(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[512];

	while (dir && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (unlink(name) < 0)
			scratch_remove(name);
	}
	if (dir)
		(void)closedir(dir);
	(void)rmdir(path);
}
