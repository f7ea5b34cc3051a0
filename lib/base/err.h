/*
 * Error codes and error texts.
 *
 * A function returns 0 (or a count) or a negative code: -errno for what the
 * kernel said, -E_* for what we say. Start-up, config and admin code also fills
 * a struct error, whose text grows outward: "volume 'db': size 1000 is ...".
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <errno.h>

/* X(name, text) */
#define ERR_LIST(X)                                                            \
	X(E_PROTOCOL, "protocol error")                                        \
	X(E_VERSION, "the object has another version")                         \
	X(E_STALE_EPOCH, "the request names an older epoch")                   \
	X(E_FUTURE_EPOCH, "the request names an epoch this node has not seen") \
	X(E_NOT_PRIMARY, "this store does not lead the placement group")       \
	X(E_MISSING, "the object is missing here")                             \
	X(E_CHECKSUM, "checksum mismatch")                                     \
	X(E_CORRUPT, "corrupt data")                                           \
	X(E_WRONG_CLUSTER, "another cluster")                                  \
	X(E_WRONG_VERSION, "no common protocol version")                       \
	X(E_NOT_FORMATTED, "the cluster is not formatted")                     \
	X(E_STALE_SESSION, "the session has ended")                            \
	X(E_LOST_WRITES, "acknowledged writes were lost in a power failure")   \
	X(E_LOST, "no copy of the data is left")                               \
	X(E_NO_QUORUM, "no quorum")                                            \
	X(E_STALE_GENERATION, "the volume is owned by another gateway")        \
	X(E_STORE_FAILED, "the store has stopped after an I/O error")          \
	X(E_CLOSED, "connection closed")                                       \
	X(E_SHUTDOWN, "shutting down")                                         \
	X(E_NOT_FOUND, "no such thing")                                        \
	X(E_STALE, "overtaken by another change")                              \
	X(E_USAGE, "wrong usage")

enum err_code {
	ERR_FIRST = 10000,
#define ERR_ENUM(name, text) name,
	ERR_LIST(ERR_ENUM)
#undef ERR_ENUM
		ERR_END
};

/* The text of a code of either kind and either sign; never NULL. */
const char *err_text(int code);

#define ERROR_TEXT_MAX 512

struct error {
	int code; /* negative, or 0 when unset */
	char text[ERROR_TEXT_MAX];
};

/*
 * Fill @err with @code and a text, followed by the code's own text where the
 * code is an errno. @err may be NULL. Returns @code, so that it can be
 * returned on.
 */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "what: " in front of the text of @err. Returns @code. @err may be NULL. */
int error_wrap(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Give @err another code, and drop what error_set() appended for the old one: for a text that
 * needs no errno behind it. Returns @code. @err may be NULL.
 */
int error_recode(struct error *err, int code);

#endif
