/*
 * Status codes that peers and admin clients send each other.
 *
 * The numbers are the protocol: a row is added at the end and never changed.
 * lib/wire maps them to and from the codes of lib/base/err.h.
 */
#ifndef PROTO_STATUS_H
#define PROTO_STATUS_H

/* X(name, number, text) */
#define PROTO_STATUS_LIST(X)                                                                       \
	X(OK, 0, "ok")                                                                             \
	X(INVALID, 1, "invalid request")                                                           \
	X(IO, 2, "I/O error")                                                                      \
	X(NO_MEMORY, 3, "out of memory")                                                           \
	X(NO_SPACE, 4, "no space left")                                                            \
	X(NOT_FOUND, 5, "no such thing")                                                           \
	X(EXISTS, 6, "exists already")                                                             \
	X(BUSY, 7, "busy or in use")                                                               \
	X(TIMED_OUT, 8, "timed out")                                                               \
	X(READ_ONLY, 9, "not permitted")                                                           \
	X(UNSUPPORTED, 10, "not supported")                                                        \
	X(STALE_EPOCH, 11, "the request names an older epoch")                                     \
	X(FUTURE_EPOCH, 12, "the request names an epoch this node has not seen")                   \
	X(NOT_PRIMARY, 13, "this store does not lead the placement group")                         \
	X(VERSION, 14, "the object has another version")                                           \
	X(MISSING, 15, "the object is missing here")                                               \
	X(CHECKSUM, 16, "checksum mismatch")                                                       \
	X(PROTOCOL, 17, "protocol error")                                                          \
	X(WRONG_CLUSTER, 18, "another cluster")                                                    \
	X(WRONG_VERSION, 19, "no common protocol version")                                         \
	X(SHUTDOWN, 20, "shutting down")                                                           \
	X(NOT_FORMATTED, 21, "the cluster is not formatted")                                       \
	X(STALE_SESSION, 22, "the session has ended")                                              \
	X(LOST_WRITES, 23, "acknowledged writes were lost in a power failure")                     \
	X(NO_QUORUM, 24, "no quorum")                                                              \
	X(STALE_GENERATION, 25, "the volume is owned by another gateway")                          \
	X(STORE_FAILED, 26, "the store has stopped after an I/O error")                            \
	X(CORRUPT, 27, "corrupt data")                                                             \
	X(STALE, 28, "overtaken by another change")                                                \
	X(TRY_AGAIN, 29, "cannot be served now, try again")                                        \
	X(TOO_LARGE, 30, "too large")                                                              \
	X(RANGE, 31, "out of range")                                                               \
	X(LOST, 32, "no copy of the data is left")

enum proto_status {
#define PROTO_STATUS_ENUM(name, number, text) PROTO_STATUS_##name = (number),
	PROTO_STATUS_LIST(PROTO_STATUS_ENUM)
#undef PROTO_STATUS_ENUM
};

#endif
