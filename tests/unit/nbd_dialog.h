/*
 * What client and server say to each other, spelt out, for the tests of the listener and of the device. Numbers are
 * written out, so that a wrong constant of include/proto/nbd.h is seen.
 */
#ifndef TESTS_UNIT_NBD_DIALOG_H
#define TESTS_UNIT_NBD_DIALOG_H

#include "tests/unit/nbd_peer.h"

#define FIXED		  1u
#define FIXED_NOZERO	  3u
#define UNSUP		  0x80000001u
#define POLICY		  0x80000002u
#define INVALID		  0x80000003u
#define PLATFORM	  0x80000004u
#define UNKNOWN		  0x80000006u
#define SHUTDOWN	  0x80000007u
#define TOO_BIG		  0x80000009u
#define FLAGS_ON_WIRE	  (PEER_FLAGS | 1u)
#define PAYLOAD_MAX	  (32u << 20)

#define TEXT_UNKNOWN	  "this option is not known here"
#define TEXT_LENGTHS	  "the lengths inside of the option do not add up"
#define TEXT_NAME	  "the export's name is not UTF-8, or has control characters"
#define TEXT_NO_DATA	  "this option takes no data"
#define TEXT_TOO_LONG	  "the option's data is too long"
#define TEXT_TOO_SHORT	  "the option's data is too short"
#define TEXT_TOO_MUCH	  "too much option data on one connection"

#define EPERM_ON_WIRE	  1u
#define EIO_ON_WIRE	  5u
#define ENOMEM_ON_WIRE	  12u
#define EINVAL_ON_WIRE	  22u
#define ENOSPC_ON_WIRE	  28u
#define EOVERFLOW_ON_WIRE 75u
#define ENOTSUP_ON_WIRE	  95u
#define ESHUTDOWN_ON_WIRE 108u

enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS, RESIZE };
enum { FUA = 1, NO_HOLE = 2, DF = 4, REQ_ONE = 8, FAST = 16, PAYLOAD_LEN = 32 };

struct dialog {
	struct blob client;
	struct blob server;
};

/* ---- negotiation ---- */

/* The greeting, and the client's answer to it. */
struct dialog dialog_of(uint32_t flags);
/* Runs it whole and split at every position, with @check at the end of each; frees it. */
void dialog_play_listener(struct dialog *d, const struct peer_options *options,
			  void (*check)(struct peer *peer));
/* The tail that shows that both sides are still in step: ABORT and its ACK. */
void dialog_abort(struct dialog *d);
/* For the end of one. */
void listener_is_closed(struct peer *peer);
void listener_is_closed_by_rule(struct peer *peer);
void listener_is_dropped(struct peer *peer);
void listener_is_negotiated(struct peer *peer);
void info_was_closed(struct peer *peer);

/* ---- transmission ---- */

/* As dialog_play_listener(), behind the negotiation. */
void dialog_play_device(struct dialog *d, const struct peer_options *options,
			void (*check)(struct peer *peer));
void dialog_write(struct dialog *d, uint64_t cookie, uint64_t offset, size_t size, int number);
/* A read of what is still zero: shows that both sides are in step. */
void dialog_read(struct dialog *d, uint64_t cookie);
void peer_feed_request(struct peer *peer, uint16_t type, uint64_t cookie, uint64_t offset,
		       uint32_t length);
/* All that was sent since the last time; forgets it, here and in @server. */
void peer_expect_sent(struct peer *peer, struct blob *server);
void device_is_open(struct peer *peer);
void nothing_was_handed(struct peer *peer);
void device_is_drained(struct peer *peer);
void device_has_failed(struct peer *peer);

#endif
