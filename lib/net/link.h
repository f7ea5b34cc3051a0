/* The dialling side, as link.c and call.c share it. */
#ifndef NET_LINK_H
#define NET_LINK_H

#include "lib/net/net_priv.h"

struct net_link {
	struct net *net;
	struct net_link_options options; /* without the address */
	char address[LOOP_ADDRESS_MAX];
	char dialled[LOOP_ADDRESS_MAX]; /* what the connect in flight borrows */
	uint64_t name;			/* ours, for the other side, the same after a reconnect */
	enum net_link_state state;
	bool is_kept; /* net_link_connect() */
	bool is_freed;
	bool is_telling; /* callbacks run: the link stays */
	bool was_up;	 /* of the connection that is closing */

	struct loop_op connect_op;
	struct loop_timer timer; /* of the state: connect, hello, silence, pause */
	uint32_t failures;	 /* in a row */
	uint64_t not_before_ns;	 /* of the next dial */
	uint64_t up_ns;		 /* since when it is up */
	struct error error;	 /* of the last failure */
	int logged_code;

	struct net_stream stream;
	struct wire_decoder decoder;
	struct wire_outbox outbox;
	struct wire_window window;
	struct wire_agreement agreement;
	struct wire_message hello;
	struct wire_message ping;
	uint64_t ping_id;	      /* waits for its reply; 0: none */
	uint64_t ping_ns;	      /* when it was sent */
	uint64_t due_ns;	      /* since when something is outstanding */
	uint64_t ping_last;	      /* id given last */
	struct buffer *reply_payload; /* of the reply being told, until somebody takes it */
	struct buffer *reply_body;    /* where short bodies are continued with zeroes */

	struct cds_list_head waiting; /* for the link or for credit */
	struct cds_list_head sent;    /* have credit, or are one-way and in the outbox */
	struct cds_list_head failed;  /* to be completed by fail_op */
	uint32_t waiting_count, outstanding;
	struct loop_op fail_op;
	struct cds_list_head link; /* in the net */
};

/* ---- link.c ---- */

void link_fail(struct net_link *link, int error, const char *why);
void link_free_if_over(struct net_link *link);
void link_copy_text(char *out, size_t size, const char *from);
/* There is something to send, or the link is wanted otherwise: dial if it is time. */
void link_decide(struct net_link *link);

/* ---- call.c ---- */

/* Hand waiting calls to the outbox as far as credit goes. */
void link_pump(struct net_link *link);
/* Complete @call without a reply, from a completion of its own. */
void link_fail_later(struct net_link *link, struct net_call *call, int error);
/* The call is off all lists: tell its owner. */
void link_call_done(struct net_link *link, struct net_call *call, int result);
int link_check_header(struct wire_decoder *decoder, const struct wire_frame *frame);
/* A frame of a link that is up; takes the payload's reference. 0, or an error that ends it. */
int link_take_frame(struct net_link *link, struct wire_frame *frame, struct error *err);
void link_message_sent(struct wire_outbox *outbox, struct wire_message *message);
/* The timer of a link that is up. */
void link_watch(struct net_link *link);
void link_watch_fire(struct net_link *link);

#endif
