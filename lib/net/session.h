/* An accepted connection, as session.c and request.c share it. */
#ifndef NET_SESSION_H
#define NET_SESSION_H

#include "lib/net/net_priv.h"

enum session_state {
	SESSION_GREETING,
	SESSION_MOVING,
	SESSION_REFUSING,
	SESSION_OPEN,
	SESSION_CLOSING,
	SESSION_STATE_COUNT
};

struct net_session {
	struct net_stream stream;
	struct wire_decoder decoder;
	struct wire_outbox outbox;
	struct net *net;
	const struct net_service *service; /* of the serving loop */
	enum session_state state;
	uint32_t magic;
	struct wire_agreement agreement;
	uint64_t hello_request; /* the id that the reply to HELLO carries */
	struct wire_message hello_reply;
	struct slice refusal; /* its text */
	char refusal_text[FRAME_TEXT_MAX + 1];
	struct wire_message pong;
	uint64_t ping_request;
	bool owes_pong;
	bool was_opened; /* the service knows it */
	bool is_stream_gone;

	uint32_t requests; /* not answered */
	uint32_t oneways;  /* not given back */
	uint64_t charged;  /* of requests that are not answered */

	struct loop_timer watch;
	struct loop_op move_op;
	struct loop_mail mail;
	struct net *target;
	struct cds_list_head link; /* in the net */
	void *user;
	char address[LOOP_ADDRESS_MAX];
};

/* ---- session.c ---- */

/* End it because of @error (0: nothing wrong); @why is for the log, NULL: the code's text. */
void session_fail(struct net_session *session, int error, const char *why);
/* It is freed when it is closing and nobody has a request of it any more. */
void session_free_if_over(struct net_session *session);

/* ---- request.c ---- */

/* Wire's check of a header, in an open session. */
int session_check_header(struct wire_decoder *decoder, const struct wire_frame *frame);
/* A frame of an open session; takes the payload's reference. 0, or an error that ends the session. */
int session_take_frame(struct net_session *session, struct wire_frame *frame, struct error *err);
/* A message of the session was sent, or dropped with its stream. */
void session_message_gone(struct net_session *session, struct wire_message *message);

#endif
