/* How a transfer goes on that the kernel did only in part. */
#include "lib/base/size.h"
#include "lib/loop/posix.h"

#define IOV_COUNT_MAX 1024u /* the kernel's UIO_MAXIOV */

unsigned posix_transfer_rest(const struct loop_op *op, const struct iovec **out,
			     struct iovec *single)
{
	size_t skip = (size_t)op->result;
	const struct iovec *iov = op->iov;

	while (skip >= iov->iov_len) {
		skip -= iov->iov_len;
		iov++;
	}
	if (skip == 0 && iov + 1 < op->iov + op->iov_count) {
		*out = iov;
		return min_of((unsigned)(op->iov + op->iov_count - iov), IOV_COUNT_MAX);
	}
	*single = (struct iovec){(char *)iov->iov_base + skip, iov->iov_len - skip};
	*out = single;
	return 1;
}

bool posix_read_is_whole(const struct loop_op *op)
{
	const struct loop_file *file = op->target;

	/* Only the end of the file makes a direct read uneven; to go on there is -EINVAL. */
	return (uint64_t)op->result == op->length || (file->is_direct && op->result % 512 != 0);
}
