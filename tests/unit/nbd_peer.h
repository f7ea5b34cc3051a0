/*
 * A host for lib/nbd that moves bytes by hand, with a disk in memory behind it: for the tests of
 * the listener and the device, and for fuzzing.
 */
#ifndef TESTS_UNIT_NBD_PEER_H
#define TESTS_UNIT_NBD_PEER_H

#include <stdarg.h>

#include "lib/nbd/nbd.h"

/* ---- bytes, spelt out ---- */

struct blob {
	uint8_t *data;
	size_t size;
	size_t room;
};

/*
 * Append by a format: '1', '2', '4', '8': a big-endian number of that size (uint64_t); 's': a
 * string (const char *); 'z': that many zeroes (size_t); 'p': that many bytes of a pattern
 * (size_t, then int for the pattern's number). Blanks are skipped.
 */
void blob_add(struct blob *blob, const char *format, ...);
void blob_append(struct blob *blob, const void *data, size_t size);
void blob_free(struct blob *blob);
uint8_t pattern_byte(int number, size_t index);

/* What a test expects of each option: header of the client, reply of the server. */
void client_hello(struct blob *blob, uint32_t flags);
void client_option(struct blob *blob, uint32_t option, const void *data, size_t size);
void client_go(struct blob *blob, uint32_t option, const char *name, unsigned infos, ...);
void client_request(struct blob *blob, uint16_t flags, uint16_t type, uint64_t cookie,
		    uint64_t offset, uint32_t length);
void server_greeting(struct blob *blob);
void server_option(struct blob *blob, uint32_t option, uint32_t type, const void *data,
		   size_t size);
void server_text(struct blob *blob, uint32_t option, uint32_t type, const char *text);
void server_info_export(struct blob *blob, uint32_t option, uint64_t size, uint16_t flags);
void server_info_block_size(struct blob *blob, uint32_t option, uint32_t minimum,
			    uint32_t preferred, uint32_t maximum);
void server_reply(struct blob *blob, uint32_t error, uint64_t cookie);

/* ---- the peer ---- */

#define PEER_FLAGS                                                                            \
	(NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_CACHE | \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN)
#define PEER_DISK     65536u
#define PEER_HELD_MAX 512

struct peer_options {
	struct nbd_limits limits;
	struct nbd_export export; /* size and flags 0: PEER_DISK and PEER_FLAGS */
	const char *const *names; /* exports of the listing, closed by NULL; NULL: "disk" */
	void (*tune)(struct nbd_server *server);	    /* adds rows */
	void (*callbacks)(struct nbd_callbacks *callbacks); /* replaces some */
	int open_rc;
	const char *open_text;
	bool opens_later;    /* peer_open_now() */
	bool lists_later;    /* peer_list_now() */
	bool holds_requests; /* peer_answer() */
	bool in_place;	     /* uses nbd_device_want() */
	size_t send_max;     /* bytes sent at once; 0: all */
};

struct peer {
	struct peer_options options;
	struct nbd_host host;
	struct nbd_server *server;
	struct nbd_listener *listener;
	struct nbd_device *device;
	struct blob out; /* all that was sent */
	uint8_t *disk;
	struct nbd_request *held[PEER_HELD_MAX];
	unsigned held_count;
	uint64_t *list_cursor;
	unsigned handled, opened, closed, cancelled, done, dropped, woken;
	bool is_muted; /* nothing is sent */
	unsigned flushes, trims, zeroes, caches;
	uint16_t last_flags;
};

void peer_init(struct peer *peer, const struct peer_options *options);
/* Starts in transmission, without a listener. */
void peer_init_device(struct peer *peer, const struct peer_options *options);
/* Ends the connection, answers what is held, frees all; checks that nothing leaked. */
void peer_done(struct peer *peer);

/* Feed until all is taken or the peer is blocked; sends meanwhile. Returns what was taken. */
size_t peer_feed(struct peer *peer, const void *data, size_t size);
void peer_eof(struct peer *peer);
void peer_send(struct peer *peer);
void peer_open_now(struct peer *peer);
void peer_list_now(struct peer *peer);
/* Answer the request held at @index as the disk does, or with @rc. */
void peer_answer(struct peer *peer, unsigned index, int rc);

/*
 * Run @client against fresh peers: whole, byte by byte, split at every position, with small sends,
 * and with payload received in place. Each must send exactly @server and then satisfy @check.
 */
void check_transcript(const struct peer_options *options, bool starts_in_transmission,
		      const struct blob *client, const struct blob *server,
		      void (*check)(struct peer *peer));

#endif
