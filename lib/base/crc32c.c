#include "lib/base/crc32c.h"

#include <isa-l/crc.h>
#include <limits.h>

uint32_t crc32c_extend(uint32_t crc, const void *data, size_t size)
{
	unsigned char *p = (unsigned char *)(uintptr_t)data; /* ISA-L forgot a const */

	/* crc32_iscsi() inverts neither at the start nor at the end, and counts in int. */
	crc = ~crc;
	while (size > 0) {
		int n = size > INT_MAX ? INT_MAX : (int)size;
		crc = crc32_iscsi(p, n, crc);
		p += n;
		size -= (size_t)n;
	}
	return ~crc;
}

uint32_t crc32c(const void *data, size_t size)
{
	return crc32c_extend(0, data, size);
}
