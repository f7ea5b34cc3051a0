#include "lib/base/assert.h"
#include "lib/base/size.h"
#include "sheep/gateway/gateway.h"

struct gateway_part gateway_split(uint64_t offset, uint64_t length)
{
	struct gateway_part part = {
		.index = (uint32_t)(offset / OBJECT_SIZE),
		.offset = (uint32_t)(offset % OBJECT_SIZE),
	};

	assert(length > 0);
	part.length = (uint32_t)min_of(length, (uint64_t)(OBJECT_SIZE - part.offset));
	return part;
}
