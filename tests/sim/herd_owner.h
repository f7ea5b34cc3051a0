/* Connections to the volume of a herd, and operations on it, one at a time: whoever writes comes to own it. */
#ifndef TESTS_SIM_HERD_OWNER_H
#define TESTS_SIM_HERD_OWNER_H

#include "tests/sim/herd.h"

struct connection {
	struct gateway_open open;
	struct herd_node *node;
	struct gateway_volume *volume; /* NULL: not open */
	unsigned lost;
	bool is_answered;
	void *context;
};

struct op {
	struct gateway_io io;
	struct loop_mail mail;
	struct connection *connection;
	void (*then)(struct op *op); /* NULL: somebody waits */
	void *context;
	struct buffer *buffer;
	bool is_done;
	int result;
	uint8_t value; /* that was written or read */
};

/* Does not wait. */
void connection_begin_open(struct herd *herd, unsigned node, struct connection *connection);
/* Open when this returns; lives as long as the herd. */
struct connection *connection_open(struct herd *herd, unsigned node);
/* A block of an object. The caller frees it when it is done. */
struct op *op_begin_block(struct connection *connection, enum gateway_io_kind kind, uint32_t object,
			  uint32_t block, uint8_t value);
/* The first block of the object; lives as long as the herd. */
struct op *op_begin(struct connection *connection, enum gateway_io_kind kind, uint32_t object,
		    uint8_t value);
/* Its result. */
int op_await(struct herd *herd, struct op *op, uint64_t ms);
/* And wait. */
int connection_write(struct herd *herd, struct connection *connection, uint32_t object,
		     uint8_t value);
uint8_t connection_read(struct herd *herd, struct connection *connection, uint32_t object);

#endif
