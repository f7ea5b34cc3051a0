/*
 * The first frame each way: who is there, which version, whose cluster.
 *
 * Version first: a node of the future must get "no common version" and not a complaint about
 * something it does differently. Then the cluster, so that a foreign node learns
 * nothing more. A judge fills in the other side's identity even when it refuses, for the log.
 */
#include "lib/wire/wire.h"

#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"
#include "lib/base/size.h"
#include "lib/base/text.h"

void wire_hello_make(struct frame_hello *out, const struct wire_protocol *protocol,
		     const struct wire_identity *self, uint16_t class, uint16_t loop, uint64_t link)
{
	*out = (struct frame_hello){
		.version_min = to_le16(protocol->version_min),
		.version_max = to_le16(protocol->version_max),
		.class = to_le16(class),
		.loop = to_le16(loop),
		.features = to_le64(protocol->features),
		.required = to_le64(protocol->required),
		.incarnation = to_le64(self->incarnation),
		.nonce = to_le64(self->nonce),
		.link = to_le64(link),
		.node_id = to_le32(self->node_id),
		.flags = to_le32(self->flags),
	};
	memcpy(out->cluster, self->cluster.bytes, sizeof(out->cluster));
	memcpy(out->node, self->node.bytes, sizeof(out->node));
}

void wire_hello_reply_make(struct frame_hello_reply *out, const struct wire_protocol *protocol,
			   const struct wire_identity *self, const struct wire_agreement *agreement)
{
	*out = (struct frame_hello_reply){
		.version_min = to_le16(protocol->version_min),
		.version_max = to_le16(protocol->version_max),
		.features = to_le64(protocol->features),
		.required = to_le64(protocol->required),
		.incarnation = to_le64(self->incarnation),
		.nonce = to_le64(self->nonce),
		.node_id = to_le32(self->node_id),
		.flags = to_le32(self->flags),
		.loops = to_le16(self->loops),
	};
	memcpy(out->cluster, self->cluster.bytes, sizeof(out->cluster));
	memcpy(out->node, self->node.bytes, sizeof(out->node));
	if (!agreement)
		return;
	out->version = to_le16(agreement->version);
	out->loop = to_le16(agreement->loop);
	out->features = to_le64(agreement->features);
	out->session = to_le64(agreement->session);
	out->credit_requests = to_le32(agreement->credit_requests);
	out->credit_bytes = to_le64(agreement->credit_bytes);
}

/* ---- what both judges check ---- */

struct version_range {
	uint16_t min, max;
};

/* The highest common version. */
static int choose_version(const struct wire_protocol *protocol, struct version_range theirs,
			  uint16_t *out, struct error *err)
{
	uint16_t version = min_of(protocol->version_max, theirs.max);

	if (theirs.min > theirs.max)
		return error_set(err, -E_PROTOCOL, "hello: version range %u to %u", theirs.min,
				 theirs.max);
	if (version < protocol->version_min || version < theirs.min)
		return error_set(err, -E_WRONG_VERSION,
				 "we speak versions %u to %u of the %s protocol, the other side "
				 "%u to %u: no common version",
				 protocol->version_min, protocol->version_max, protocol->name,
				 theirs.min, theirs.max);
	*out = version;
	return 0;
}

static int check_features(const struct wire_protocol *protocol, uint64_t features,
			  uint64_t required, struct error *err)
{
	uint64_t lacks = required & ~protocol->features;

	if (lacks)
		return error_set(err, -EOPNOTSUPP,
				 "the other side requires features 0x%llx, which are unknown here",
				 (unsigned long long)lacks);
	lacks = protocol->required & ~features;
	if (lacks)
		return error_set(err, -EOPNOTSUPP,
				 "features 0x%llx are required here, the other side lacks them",
				 (unsigned long long)lacks);
	return 0;
}

/* Two sides that are in different clusters never talk. */
static int check_cluster(const struct wire_identity *self, const struct uuid *theirs,
			 struct error *err)
{
	char ours_text[UUID_TEXT_SIZE], theirs_text[UUID_TEXT_SIZE];

	if (uuid_is_null(theirs) || uuid_is_null(&self->cluster) ||
	    uuid_is_equal(theirs, &self->cluster))
		return 0;
	return error_set(err, -E_WRONG_CLUSTER,
			 "this node belongs to cluster %s, the other side to cluster %s",
			 uuid_format(&self->cluster, ours_text), uuid_format(theirs, theirs_text));
}

/* Classes that are not open need a cluster on both sides. */
static int check_membership(const struct wire_protocol *protocol, const struct wire_identity *self,
			    const struct uuid *theirs, uint16_t class, struct error *err)
{
	if (protocol->open_classes & BIT(class))
		return 0;
	if (uuid_is_null(&self->cluster))
		return error_set(err, -E_NOT_FORMATTED, "this node belongs to no cluster yet");
	if (uuid_is_null(theirs))
		return error_set(err, -E_NOT_FORMATTED, "the other side belongs to no cluster yet");
	return 0;
}

static bool words_are_zero(const le64 *words, unsigned count)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < count; i++)
		any |= from_le64(words[i]);
	return any == 0;
}

/* ---- the acceptor ---- */

int wire_hello_judge(const struct wire_protocol *protocol, const struct wire_identity *self,
		     const struct wire_frame *frame, struct wire_agreement *out, struct error *err)
{
	struct frame_hello hello;
	int rc;

	*out = (struct wire_agreement){0};
	if (frame->op != FRAME_OP_HELLO || frame->flags)
		return error_set(err, -E_PROTOCOL, "the first frame is no hello");
	if (frame->body_size < sizeof(hello))
		return error_set(err, -E_PROTOCOL, "hello of %u bytes, at least %zu are needed",
				 frame->body_size, sizeof(hello));
	memcpy(&hello, frame->body, sizeof(hello));
	memcpy(out->peer.cluster.bytes, hello.cluster, sizeof(hello.cluster));
	memcpy(out->peer.node.bytes, hello.node, sizeof(hello.node));
	out->peer.node_id = from_le32(hello.node_id);
	out->peer.flags = from_le32(hello.flags);
	out->peer.incarnation = from_le64(hello.incarnation);
	out->peer.nonce = from_le64(hello.nonce);
	out->link = from_le64(hello.link);
	out->class = from_le16(hello.class);
	out->loop = from_le16(hello.loop);
	out->features = from_le64(hello.features) & protocol->features;

	rc = choose_version(
		protocol,
		(struct version_range){from_le16(hello.version_min), from_le16(hello.version_max)},
		&out->version, err);
	if (rc < 0)
		return rc;
	if (frame->payload_size)
		return error_set(err, -E_PROTOCOL, "hello with a payload");
	if (!words_are_zero(hello.reserved, ARRAY_COUNT(hello.reserved)))
		return error_set(err, -E_PROTOCOL, "hello: reserved field is not zero");
	rc = check_cluster(self, &out->peer.cluster, err);
	if (rc < 0)
		return rc;
	rc = check_features(protocol, from_le64(hello.features), from_le64(hello.required), err);
	if (rc < 0)
		return rc;
	if (out->class >= protocol->classes)
		return error_set(err, -E_PROTOCOL, "hello: unknown class %u", out->class);
	return check_membership(protocol, self, &out->peer.cluster, out->class, err);
}

/* ---- the dialler ---- */

/* The text of a refusal, or the name of its status where there is no decent one. */
static int refused(const struct wire_frame *frame, struct error *err)
{
	const char *text = (const char *)frame->payload.data;
	int code = wire_status_code(frame->status);

	if (frame->payload_size == 0 || frame->payload_size > FRAME_TEXT_MAX ||
	    !text_is_clean(text, frame->payload_size))
		return error_set(err, code, "refused with status %s",
				 wire_status_name(frame->status));
	return error_set(err, code, "refused: %.*s", (int)frame->payload_size, text);
}

/* The fields that only an acceptance has. */
static int take_acceptance(const struct wire_protocol *protocol,
			   const struct frame_hello_reply *reply, struct wire_agreement *out,
			   struct error *err)
{
	out->version = from_le16(reply->version);
	out->loop = from_le16(reply->loop);
	out->features = from_le64(reply->features);
	out->session = from_le64(reply->session);
	out->credit_requests = from_le32(reply->credit_requests);
	out->credit_bytes = from_le64(reply->credit_bytes);
	if (out->version < protocol->version_min || out->version > protocol->version_max)
		return error_set(err, -E_PROTOCOL,
				 "the other side chose version %u, we offered %u to %u",
				 out->version, protocol->version_min, protocol->version_max);
	if (out->features & ~protocol->features)
		return error_set(err, -E_PROTOCOL,
				 "the other side chose features 0x%llx, which we did not offer",
				 (unsigned long long)(out->features & ~protocol->features));
	if (out->credit_requests == 0)
		return error_set(err, -E_PROTOCOL, "the other side grants no credit");
	out->credit_requests = min_of(out->credit_requests, WIRE_CREDIT_REQUESTS_MAX);
	return 0;
}

int wire_hello_reply_judge(const struct wire_protocol *protocol, const struct wire_identity *self,
			   const struct wire_frame *frame, struct wire_agreement *out,
			   struct error *err)
{
	struct frame_hello_reply reply;
	int rc;

	if (frame->op != FRAME_OP_HELLO || !(frame->flags & FRAME_REPLY))
		return error_set(err, -E_PROTOCOL, "the first frame is no reply to hello");
	if (frame->body_size < sizeof(reply))
		return error_set(err, -E_PROTOCOL,
				 "reply to hello of %u bytes, at least %zu are needed",
				 frame->body_size, sizeof(reply));
	memcpy(&reply, frame->body, sizeof(reply));
	memcpy(out->peer.cluster.bytes, reply.cluster, sizeof(reply.cluster));
	memcpy(out->peer.node.bytes, reply.node, sizeof(reply.node));
	out->peer.node_id = from_le32(reply.node_id);
	out->peer.flags = from_le32(reply.flags);
	out->peer.incarnation = from_le64(reply.incarnation);
	out->peer.nonce = from_le64(reply.nonce);
	out->peer.loops = from_le16(reply.loops);
	if (frame->status != PROTO_STATUS_OK)
		return refused(frame, err);
	rc = take_acceptance(protocol, &reply, out, err);
	if (rc < 0)
		return rc;
	if (frame->payload_size)
		return error_set(err, -E_PROTOCOL, "acceptance with a payload");
	if (reply.reserved16.raw || !words_are_zero(reply.reserved, ARRAY_COUNT(reply.reserved)))
		return error_set(err, -E_PROTOCOL, "reply to hello: reserved field is not zero");
	rc = check_cluster(self, &out->peer.cluster, err);
	if (rc < 0)
		return rc;
	return check_features(protocol, out->features, from_le64(reply.required), err);
}
