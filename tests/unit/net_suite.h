/*
 * What lib/net/net.h promises, on any back end of the loop.
 *
 *   test_net.c       io_uring, and what only threads show
 *   test_sim_net.c   the simulator
 *
 * A rig is a sheep that serves a small protocol on one loop and another that dials it from
 * a second loop.
 */
#ifndef TESTS_UNIT_NET_SUITE_H
#define TESTS_UNIT_NET_SUITE_H

#include "lib/net/net.h"
#include "tests/unit/loop_suite.h"

enum net_test_op {
	OP_ECHO = 1,  /* payload and body come back */
	OP_HOLD = 2,  /* is answered by rig_release() */
	OP_NOTE = 3,  /* one-way */
	OP_NEW = 4,   /* since version 2 */
	OP_GROWN = 5, /* bodies have grown */
	OP_READ = 6,  /* gives as many bytes as the body says, in pieces */
	OP_UNSERVED = 7,
	OP_FAIL = 8,  /* answers with the code in the body */
	OP_LONG = 9,  /* its body comes back, however long */
	OP_LATE = 10, /* known to nobody who serves */
	OP_COUNT
};

struct test_body {
	le32 seed;
	le32 size;
};

struct test_grown {
	le32 old;
	le32 old_too;
	le32 new;
	le32 newer;
};

extern const struct wire_protocol test_protocol;

struct rig {
	struct bed *bed;
	struct net *server, *client;
	struct net_listener *listener;
	struct net_link *link;
	struct net_service service;
	/* of the server */
	unsigned opened, closed, notes, handled;
	int closed_error;
	int refuse_with;
	struct net_session *session; /* opened last */
	struct net_request *held[4096];
	unsigned held_count;
	bool is_lazy; /* do not answer ECHO before rig_release() */
	/* of the link */
	unsigned ups, downs;
	int down_error;
};

extern const struct wire_identity identity_a, identity_b;

/* @options of both nets may be NULL. */
struct rig *rig_new(struct bed *bed, const struct net_options *server_options,
		    const struct net_options *client_options);
void rig_free(struct rig *rig);
/* A link of the rig's client to its server. */
struct net_link *rig_link(struct rig *rig, const struct net_link_options *options);
/* Answer all requests that are held. */
void rig_release(struct rig *rig, int status);

/* A call with what came of it. */
struct test_call {
	struct net_call call;
	struct test_body body;
	struct slice slices[4];
	unsigned done;
	int result;
	uint32_t reply_seed;
	uint64_t order;		 /* the how-manieth completion of all */
	bool is_right;		 /* the echo is what was sent */
	struct test_grown grown; /* the reply's, as long as we know it */
	struct slice kept;
};
extern uint64_t test_call_order;

void test_call_init(struct test_call *call, uint16_t op, uint32_t seed, uint32_t size);
/* Gives the call a payload of @size bytes that depends on its seed, in @pieces. */
void test_call_fill(struct test_call *call, struct loop *loop, uint32_t size, unsigned pieces);
void test_call_drop(struct test_call *call); /* its payload */
int test_call_wait(struct rig *rig, struct test_call *call);

/* A peer by hand: sends what it likes, keeps what comes. */
struct raw {
	struct bed *bed;
	struct loop *loop;
	struct loop_socket *socket;
	struct call recv, send;
	struct iovec iov, send_iov;
	uint8_t *data;
	size_t size, room;
	unsigned prefix_size; /* bytes of the next thing that raw_hello() sends along */
	bool is_ended;	      /* the other side closed it, one way or the other */
	bool is_reading;      /* without it what comes stays in the kernel */
};

/* Connected to @address. */
struct raw *raw_dial(struct bed *bed, const char *address);
/* The next connection that @listener, on the bed's other loop, gets. */
struct raw *raw_accept(struct bed *bed, struct loop_listener *listener);
void raw_free(struct raw *raw);
void raw_read(struct raw *raw); /* from now on */
/* Send; true if it went, false if the connection had ended. */
bool raw_send(struct raw *raw, const void *data, size_t size);
/* Send a frame; body and payload are zeroes. */
bool raw_frame(struct raw *raw, uint16_t op, uint16_t flags, uint64_t request, uint32_t body_size,
	       uint32_t payload_size, uint32_t reply_max);
/* HELLO of @self; @link names it. */
void raw_hello(struct raw *raw, const struct wire_identity *self, uint64_t link);
/* Until there are @size bytes, or it has ended. */
void raw_expect(struct raw *raw, size_t size);

extern const struct CMUnitTest net_suite_life[];
extern const size_t net_suite_life_count;
extern const struct CMUnitTest net_suite_calls[];
extern const size_t net_suite_calls_count;
extern const struct CMUnitTest net_suite_lies[];
extern const size_t net_suite_lies_count;

#endif
