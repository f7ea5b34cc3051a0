/*
 * The files of the engine `local:DIR` (docs/protocol/local-log.md): all sheep of one machine
 * append to them and read them.
 *
 *   DIR/log                      struct local_root: which log this is; made once, never removed
 *   DIR/file.NUMBER.ID           struct local_file, then records, then a seal
 *   DIR/image.INDEX.NUMBER       struct local_image, then the user's bytes: the state where
 *                                file NUMBER begins
 *   DIR/members/NODE             struct local_member, locked as long as this start lives
 *   DIR/tmp.*                    not yet renamed
 */
#ifndef PROTO_LOCAL_LOG_H
#define PROTO_LOCAL_LOG_H

#include "include/proto/endian.h"

#define LOCAL_VERSION	   1u
#define LOCAL_ROOT_MAGIC   0x676f6c7065656873ull /* "sheeplog" */
#define LOCAL_FILE_MAGIC   0x6c69667065656873ull /* "sheepfil" */
#define LOCAL_IMAGE_MAGIC  0x676d697065656873ull /* "sheepimg" */
#define LOCAL_MEMBER_MAGIC 0x6d656d7065656873ull /* "sheepmem" */

/* DIR/log */
struct local_root {
	le64	magic;
	le32	version;	/* of all files here; another one is refused */
	le32	crc;		/* crc32c of this struct with crc = 0; so in all below */
	uint8_t	log[16];	/* UUID of the log */
	uint8_t	file[16];	/* id of file 1 */
	uint8_t	reserved[16];	/* zero; so in all below */
};
WIRE_SIZE(struct local_root, 64);

/* The head of a file of records. */
struct local_file {
	le64	magic;
	le32	version;
	le32	crc;
	uint8_t	log[16];
	uint8_t	id[16];		/* random; seeds the CRCs of its records */
	le64	number;		/* from 1 */
	uint8_t	reserved[8];
};
WIRE_SIZE(struct local_file, 64);

/*
 * A record: this head, `length` bytes of body, the token once more. It lies at any offset. The mark
 * occurs nowhere in a record but at its start: where the bytes would contain it, the body is
 * XORed with another mask. So a record that was cut short ends, for every reader, where the next
 * mark begins.
 */
#define LOCAL_MARK_SIZE 8
#define LOCAL_MARK	"\xf5sheep:\xd6"

enum local_record_type {
	LOCAL_RECORD_COMMAND = 1, /* body: the command */
	LOCAL_RECORD_SEAL = 2,	  /* body: struct local_seal; what follows in this file does not count */
};

struct local_record {
	uint8_t	mark[LOCAL_MARK_SIZE];
	le32	head_crc;	/* crc32c of the file's id, then this struct with head_crc = 0 */
	le32	body_crc;	/* crc32c of the body as it lies in the file */
	le32	length;		/* of the body, bytes */
	le16	type;
	le16	reserved;
	uint8_t	node[16];	/* the proposer */
	le64	start;
	le64	sequence;	/* its proposals, from 1 in each start */
	le64	token;		/* random, without the mark's first byte */
	le64	mask;		/* the body is XORed with these 8 bytes, repeated */
};
WIRE_SIZE(struct local_record, 72);
WIRE_OFFSET(struct local_record, node, 24);

#define LOCAL_TAIL_SIZE 8 /* le64 token, after the body */

struct local_seal {
	uint8_t	id[16];		/* of the next file, which is there and synced */
	le64	number;		/* its number: that of this file, plus 1 */
	uint8_t	reserved[8];
};
WIRE_SIZE(struct local_seal, 32);

struct local_image {
	le64	magic;
	le32	version;
	le32	crc;
	uint8_t	log[16];
	uint8_t	id[16];		/* of the file that goes on from here */
	le64	number;		/* its number */
	le64	index;		/* of the last command in the image */
	le64	size;		/* of the user's bytes */
	le32	data_crc;
	uint8_t	reserved[20];
};
WIRE_SIZE(struct local_image, 96);

#define LOCAL_STATE_LEFT 0x7466656c2e657962ull /* "bye.left" */

struct local_member {
	le64	magic;
	le32	version;
	le32	crc;		/* over this struct with crc = 0 and state = 0, then the info */
	uint8_t	log[16];
	uint8_t	node[16];
	le64	start;
	le32	pid;		/* of its process, in its namespace: a hint */
	le32	info_size;	/* that many bytes follow */
	le64	state;		/* LOCAL_STATE_LEFT when it has left; else 0 */
	uint8_t	reserved[24];
};
WIRE_SIZE(struct local_member, 96);
WIRE_OFFSET(struct local_member, state, 64);

#endif
