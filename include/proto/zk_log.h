/*
 * What the engine `zookeeper:HOSTS[/ROOT]` keeps in ZooKeeper (docs/protocol/zookeeper-log.md):
 *
 *   ROOT/format               struct zk_format: which log this is
 *   ROOT/log/SEGMENT/e-N      struct zk_entry, then its body; SEGMENT and N are ten digits, N is
 *                             ZooKeeper's. After the first seal of a segment nothing in it counts
 *   ROOT/newest               struct zk_newest: the image to begin with
 *   ROOT/image/NAME/NUMBER    its bytes, in chunks
 *   ROOT/members/NODE-START   ephemeral: struct zk_member, then its info
 *   ROOT/ended/NODE-START     this start has stopped serving and left
 */
#ifndef PROTO_ZK_LOG_H
#define PROTO_ZK_LOG_H

#include "include/proto/endian.h"

#define ZK_VERSION	1u
#define ZK_FORMAT_MAGIC 0x6b7a7065656873ull /* "sheepzk" */
#define ZK_NEWEST_MAGIC 0x6e7a7065656873ull /* "sheepzn" */
#define ZK_ENTRY_MAGIC	0x657a7065656873ull /* "sheepze" */

struct zk_format {
	le64 magic;
	le32 version;	 /* of everything under ROOT; another one is refused */
	le32 reserved;	 /* zero; so in all below */
	uint8_t log[16]; /* UUID of the log */
};
WIRE_SIZE(struct zk_format, 32);

enum zk_entry_type {
	ZK_ENTRY_COMMAND = 1, /* body: the command */
	ZK_ENTRY_SEAL =
		2, /* body: le64, the segment it is in, else it is void: the log goes on in the next */
};

struct zk_entry {
	le64 magic;
	le32 type; /* enum zk_entry_type */
	le32 reserved;
	uint8_t node[16]; /* the proposer */
	le64 start;
	le64 sequence; /* of its proposal, from 1 in each start */
};
WIRE_SIZE(struct zk_entry, 48);

#define ZK_CHUNK_SIZE (512u << 10)

struct zk_newest {
	le64 magic;
	le32 version;
	le32 crc;      /* CRC32C of the image's bytes */
	le64 index;    /* the image stands for everything up to here */
	le64 segment;  /* where the log goes on */
	le64 size;     /* bytes, in chunks of ZK_CHUNK_SIZE */
	char name[40]; /* of the directory with the chunks; closed by a zero */
};
WIRE_SIZE(struct zk_newest, 80);

struct zk_member {
	uint8_t node[16];
	le64 start;
	le64 reserved;
};
WIRE_SIZE(struct zk_member, 32);

#endif
