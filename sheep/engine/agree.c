/*
 * The agreement: life, inputs, the roles (agree_priv.h draws them).
 *
 * Each input ends the same way: what it makes necessary is written, said and told, the timer is set,
 * and if we have left that is told last, since nothing of us may be left after that.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"
#include "sheep/engine/agree_priv.h"

static const uint8_t role_next[AGREE_ROLE_COUNT] = {
	[AGREE_OUT] = BIT(AGREE_SEEK) | BIT(AGREE_STOPPED),
	[AGREE_SEEK] = BIT(AGREE_SEEK) | BIT(AGREE_ASK) | BIT(AGREE_FOLLOW) | BIT(AGREE_OUT) |
		       BIT(AGREE_STOPPED),
	[AGREE_ASK] = BIT(AGREE_SEEK) | BIT(AGREE_LEAD) | BIT(AGREE_FOLLOW) | BIT(AGREE_OUT) |
		      BIT(AGREE_STOPPED),
	[AGREE_FOLLOW] = BIT(AGREE_SEEK) | BIT(AGREE_FOLLOW) | BIT(AGREE_OUT) | BIT(AGREE_STOPPED),
	[AGREE_LEAD] = BIT(AGREE_SEEK) | BIT(AGREE_FOLLOW) | BIT(AGREE_OUT) | BIT(AGREE_STOPPED),
};

static const char *const role_names[AGREE_ROLE_COUNT] = {
	[AGREE_OUT] = "out",	    [AGREE_SEEK] = "seeking", [AGREE_ASK] = "asking",
	[AGREE_FOLLOW] = "follows", [AGREE_LEAD] = "leads",   [AGREE_STOPPED] = "stopped",
};

/* The only place that writes agree->role. */
void agree_enter(struct agree *agree, enum agree_role next, const char *why)
{
	assert(role_next[agree->role] & BIT(next));
	if (agree->role != next)
		log_debug("corosync: term %llu: %s -> %s: %s", (unsigned long long)agree->term,
			  role_names[agree->role], role_names[next], why);
	if (agree->role == AGREE_LEAD)
		agree_lead_done(agree);
	agree->role = next;
	agree->stats.is_leader = next == AGREE_LEAD;
}

uint64_t agree_now(const struct agree *agree)
{
	return agree->ops.now(agree->context);
}

bool agree_is_open(const struct agree *agree)
{
	return !agree->is_leaving && !agree->has_failed;
}

void agree_fail(struct agree *agree, const struct error *err)
{
	if (agree->has_failed)
		return;
	agree->has_failed = true; /* the peers stay: somebody may be going through them */
	agree_enter(agree, AGREE_STOPPED, err->text);
	if (!agree->is_leaving)
		agree->ops.failed(agree->context, err);
}

void agree_fail_text(struct agree *agree, int code, const char *format, ...)
{
	struct error err = {0};
	char text[ERROR_TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	error_set(&err, code, "%s", text);
	agree_fail(agree, &err);
}

void agree_set_term(struct agree *agree, uint64_t term)
{
	struct agree_peer *peer;

	agree->term = term;
	agree->leader = (struct uuid){0};
	agree->match = 0;
	agree->told_ack = 0;
	if (RULE(G1_VOTE_ONCE))
		agree->wants_vote = false; /* it was for an older term, and would name this one */
	cds_list_for_each_entry(peer, &agree->peers, link) {
		peer->has_voted = false;
		peer->acked = 0;
		peer->is_behind = peer->gets_image = false;
		peer->flying = 0;
	}
}

void agree_see_term(struct agree *agree, uint64_t term, const char *why)
{
	if (term <= agree->term)
		return;
	agree_set_term(agree, term);
	if (agree->role == AGREE_LEAD || agree->role == AGREE_FOLLOW || agree->role == AGREE_ASK)
		agree_seek(agree, why);
}

void agree_become_ready(struct agree *agree)
{
	if (agree->is_ready || !agree_is_open(agree))
		return;
	if (!agree->disk.is_founded && RULE(G2_FOUNDED)) {
		/* Else a start after this one could believe that nobody was, and drop its copy. */
		agree->wants_ready = true;
		agree_disk_go(agree);
		return;
	}
	agree->wants_ready = false;
	agree->is_ready = true;
	agree->want_state = true;
	agree->ops.ready(agree->context);
	agree_tell_members(agree);
	agree_tell_quorum(agree);
	for (uint32_t i = 0; i < agree->nodes.count && agree_is_open(agree); i++) {
		const struct agree_node *row = &agree->nodes.rows[i];

		if (row->ended && !uuid_is_equal(&row->node, &agree->self.node))
			agree->ops.ended(agree->context, &row->node, row->start,
					 row->ended == 1 ? ENGINE_END_DIED : ENGINE_END_LEFT);
	}
	for (uint32_t i = 0; i < agree->end_count && agree_is_open(agree); i++)
		agree->ops.ended(agree->context, &agree->ends[i].node, agree->ends[i].start,
				 agree->ends[i].how);
}

/* ---- messages ---- */

static void on_bye(struct agree *agree, struct agree_peer *peer, const struct cpg_message *message,
		   const uint8_t *body, size_t size)
{
	(void)message;
	(void)body;
	(void)size;
	if (peer == agree->me) {
		agree->bye_came = true;
		return;
	}
	if (!peer->is_known)
		return;
	peer->said_bye = true;
	agree_end(agree, &peer->node, peer->start, ENGINE_END_LEFT);
	agree_tell_members(agree);
	agree_lead_nodes(agree);
	if (peer == agree->head)
		agree_seek(agree, "the leader leaves");
}

struct message_row {
	void (*handle)(struct agree *agree, struct agree_peer *peer,
		       const struct cpg_message *message, const uint8_t *body, size_t size);
	size_t size;	/* of the body, at least */
	bool is_exact;	/* and at most */
	bool needs_log; /* it is about our log */
	bool is_known;	/* its sender has said its state */
};

static const struct message_row rows[] = {
	[CPG_TYPE_STATE] = {on_state, sizeof(struct cpg_state), false, false, false},
	[CPG_TYPE_ASK] = {on_ask, sizeof(struct cpg_ask), true, true, true},
	[CPG_TYPE_VOTE] = {on_vote, sizeof(struct cpg_vote), true, true, true},
	[CPG_TYPE_ENTRIES] = {on_entries, sizeof(struct cpg_entries), false, false, true},
	[CPG_TYPE_ACK] = {on_ack, sizeof(struct cpg_ack), true, true, true},
	[CPG_TYPE_NEED] = {on_need, sizeof(struct cpg_need), true, true, true},
	[CPG_TYPE_IMAGE] = {on_image, sizeof(struct cpg_part), false, false, true},
	[CPG_TYPE_RECEIVED] = {on_received, sizeof(struct cpg_received), true, true, true},
	[CPG_TYPE_PROPOSAL] = {on_proposal, sizeof(struct cpg_proposal), false, true, true},
	[CPG_TYPE_ENDED] = {on_ended, sizeof(struct cpg_ended), true, true, true},
	[CPG_TYPE_BYE] = {on_bye, 0, true, false, false},
};

void agree_message_seal(uint8_t *data, struct cpg_message *head, size_t size)
{
	head->crc = to_le32(0);
	memcpy(data, head, sizeof(*head));
	head->crc = to_le32(crc32c(data, size));
	memcpy(data, head, sizeof(*head));
}

static bool message_is_whole(const uint8_t *data, size_t size, struct cpg_message *out)
{
	struct cpg_message head;
	uint32_t crc;

	if (size < sizeof(head) || size > CPG_MESSAGE_MAX)
		return false;
	memcpy(&head, data, sizeof(head));
	*out = head;
	if (from_le32(head.magic) != CPG_MESSAGE_MAGIC || from_le32(head.size) != size)
		return false;
	head.crc = to_le32(0);
	crc = crc32c_extend(crc32c(&head, sizeof(head)), data + sizeof(head), size - sizeof(head));
	return crc == from_le32(out->crc);
}

static void log_foreign(struct agree *agree, struct agree_id from, const char *what)
{
	if (agree_now(agree) < agree->foreign_log_ns)
		return;
	agree->foreign_log_ns = agree_now(agree) + AGREE_WAIT_LOG_NS;
	log_warning("corosync: node %u, process %u: %s: ignored", from.node, from.pid, what);
}

static void take_message(struct agree *agree, struct agree_id from, const uint8_t *data,
			 size_t size)
{
	struct agree_peer *peer = agree_peer_by_id(agree, from);
	const struct message_row *row;
	struct cpg_message head;
	uint16_t type;

	if (!peer)
		return;
	if (!message_is_whole(data, size, &head)) {
		log_foreign(agree, from, "it says what is no message of ours on our channel");
		return;
	}
	if (from_le16(head.version) != CPG_VERSION) {
		if (from_le16(head.version) > CPG_VERSION && !agree->is_ready)
			agree_fail_text(
				agree, -E_WRONG_VERSION,
				"node %u of corosync speaks version %u of the log's protocol, this "
				"sheep %u: upgrade it",
				from.node, from_le16(head.version), CPG_VERSION);
		else
			log_foreign(agree, from, "it speaks another version of the log's protocol");
		return;
	}
	type = from_le16(head.type);
	if (type >= ARRAY_COUNT(rows) || !rows[type].handle)
		return;
	row = &rows[type];
	size -= sizeof(head);
	if (size < row->size || (row->is_exact && size != row->size) ||
	    (row->is_known && !peer->is_known))
		return;
	if (row->needs_log && (uuid_is_null(&agree->log_uuid) ||
			       memcmp(head.log, agree->log_uuid.bytes, sizeof(head.log)) != 0))
		return;
	row->handle(agree, peer, &head, data + sizeof(head), size);
}

/* ---- time ---- */

static uint64_t role_deadline(const struct agree *agree)
{
	switch (agree->role) {
	case AGREE_SEEK:
	case AGREE_ASK:
		return agree->round_ns;
	case AGREE_FOLLOW:
		return agree->heard_ns + AGREE_SILENCE_NS;
	case AGREE_LEAD:
		return agree->beat_ns;
	default:
		return UINT64_MAX;
	}
}

static void run_role(struct agree *agree)
{
	switch (agree->role) {
	case AGREE_SEEK:
	case AGREE_ASK:
		agree_seek_timer(agree);
		break;
	case AGREE_FOLLOW:
		log_info("corosync: the leader says nothing");
		agree_seek(agree, "the leader says nothing");
		break;
	case AGREE_LEAD:
		if (!agree->votequorum &&
		    agree_now(agree) >= agree->no_quorum_ns + AGREE_NO_QUORUM_NS) {
			agree_seek(agree, "corosync has no quorum"); /* others may have it */
			break;
		}
		agree->want_beat = true;
		if (!agree->nodes.count)
			agree->want_state =
				true; /* others that lead a first log give way, or we do */
		break;
	default:
		break;
	}
}

static uint64_t outbox_deadline(const struct agree *agree)
{
	bool flies =
		agree->flying_bytes && (agree->role == AGREE_FOLLOW || agree->role == AGREE_LEAD);

	return flies ? agree->proposed_ns + AGREE_PROPOSE_NS : UINT64_MAX;
}

static uint64_t next_deadline(const struct agree *agree)
{
	uint64_t at = UINT64_MAX;

	if (agree->has_left)
		return at;
	if (agree->wants_turn)
		return 0;
	if (agree->is_leaving)
		return agree->is_blocked ? min_of(agree->blocked_ns, agree->leave_at_ns)
					 : agree->leave_at_ns;
	if (agree->role == AGREE_OUT || agree->role == AGREE_STOPPED)
		return at;
	if (agree->is_blocked)
		return agree->blocked_ns; /* what is due could not be said before */
	at = min_of(role_deadline(agree), outbox_deadline(agree));
	if (agree->twice_ns)
		at = min_of(at, agree->twice_ns);
	if (agree->role == AGREE_LEAD && !agree->nodes_end.count)
		at = min_of(at, max_of(agree->born_ns, agree_now(agree) + AGREE_BEAT_NS / 4));
	return at;
}

static void take_time(struct agree *agree)
{
	uint64_t now = agree_now(agree);
	char node[UUID_TEXT_SIZE];

	agree->wants_turn = false;
	if (!agree_is_open(agree))
		return;
	agree_judge_suspects(agree);
	agree_lead_nodes(agree);
	if (agree->twice_ns && now >= agree->twice_ns) {
		agree_fail_text(agree, -EBUSY, "node %s is running already",
				uuid_format(&agree->self.node, node));
		return;
	}
	if (now >= role_deadline(agree))
		run_role(agree);
	if (now >= outbox_deadline(agree)) {
		agree->proposed_ns = now;
		agree_outbox_again(agree);
	}
}

/* ---- inputs ---- */

static bool input_begin(struct agree *agree)
{
	if (agree->has_left)
		return false;
	assert(!agree->is_inside);
	agree->is_inside = true;
	return true;
}

/* Nothing of @agree may be there afterwards. */
static void input_end(struct agree *agree)
{
	bool is_gone = agree->role == AGREE_OUT || agree->role == AGREE_STOPPED || agree->bye_came;

	agree_compact_go(agree);
	agree_pump(agree);
	agree->is_inside = false;
	if (agree->is_leaving && (is_gone || agree_now(agree) >= agree->leave_at_ns)) {
		agree->has_left = true;
		agree->ops.set_timer(agree->context, UINT64_MAX);
		agree->ops.left(agree->context);
		return;
	}
	agree->ops.set_timer(agree->context, next_deadline(agree));
}

void agree_start(struct agree *agree)
{
	if (!input_begin(agree))
		return;
	agree_restore_tell(agree);
	agree_disk_go(agree);
	input_end(agree);
}

void agree_view(struct agree *agree, const struct agree_view *view)
{
	if (!input_begin(agree))
		return;
	if (agree->role != AGREE_STOPPED)
		agree_take_view(agree, view);
	input_end(agree);
}

void agree_deliver(struct agree *agree, struct agree_id from, const void *data, size_t size)
{
	if (!input_begin(agree))
		return;
	if (agree->role != AGREE_STOPPED && agree->role != AGREE_OUT)
		take_message(agree, from, data, size);
	input_end(agree);
}

void agree_can_send(struct agree *agree)
{
	if (!input_begin(agree))
		return;
	agree->is_blocked = false;
	input_end(agree);
}

void agree_written(struct agree *agree, int rc)
{
	if (!input_begin(agree))
		return;
	agree_take_written(agree, rc);
	input_end(agree);
}

void agree_image_written(struct agree *agree, int rc)
{
	if (!input_begin(agree))
		return;
	agree_take_image_written(agree, rc);
	input_end(agree);
}

void agree_timer(struct agree *agree)
{
	if (!input_begin(agree))
		return;
	take_time(agree);
	input_end(agree);
}

void agree_quorum(struct agree *agree, bool has_quorum)
{
	if (!input_begin(agree))
		return;
	if (agree->votequorum != has_quorum) {
		log_info("corosync: %s", has_quorum ? "quorum" : "no quorum");
		agree->votequorum = has_quorum;
		agree->no_quorum_ns = agree_now(agree);
		agree->born_ns = agree_now(agree) + AGREE_FIRST_NS;
		agree_tell_quorum(agree);
		agree_consider(agree);
		agree_count_acks(agree);
		agree_lead_nodes(agree);
	}
	input_end(agree);
}

/* ---- life ---- */

struct agree *agree_new(const struct agree_options *options, const struct agree_ops *ops,
			void *context)
{
	struct agree *agree = calloc(1, sizeof(*agree));
	void *info = malloc(options->self.info_size + 1);
	uint8_t *out = malloc(CPG_MESSAGE_MAX);

	if (!agree || !info || !out) {
		free(agree);
		free(info);
		free(out);
		return NULL;
	}
	assert(options->self.info_size <= CPG_INFO_MAX && options->self.start);
	if (options->self.info_size)
		memcpy(info, options->self.info, options->self.info_size);
	agree->ops = *ops;
	agree->context = context;
	agree->random = options->random;
	agree->self = options->self;
	agree->self.info = info;
	agree->wanted = options->log;
	agree->compact_bytes = options->compact_bytes;
	agree->out = out;
	CDS_INIT_LIST_HEAD(&agree->peers);
	CDS_INIT_LIST_HEAD(&agree->proposals);
	return agree;
}

void agree_free(struct agree *agree)
{
	if (!agree)
		return;
	agree_peers_done(agree);
	agree_outbox_done(agree);
	agree_log_done(agree);
	agree_disk_done(agree);
	agree_lead_done(agree);
	agree_follow_done(agree);
	agree_nodes_done(&agree->nodes);
	agree_nodes_done(&agree->nodes_end);
	free(agree->restored);
	free((void *)agree->self.info);
	free(agree->out);
	free(agree);
}

void agree_leave(struct agree *agree)
{
	uint64_t now = agree_now(agree);

	if (agree->is_leaving)
		return;
	agree->is_leaving = true;
	agree->want_bye = true;
	agree->leave_at_ns = now + AGREE_LEAVE_NS;
	if (agree->is_inside)
		return; /* the input's end does the rest */
	agree_pump(agree);
	if (agree->role == AGREE_OUT || agree->role == AGREE_STOPPED)
		agree->leave_at_ns = now;
	agree->ops.set_timer(agree->context, agree->is_blocked
						     ? min_of(agree->blocked_ns, agree->leave_at_ns)
						     : agree->leave_at_ns);
}

void agree_turn_soon(struct agree *agree)
{
	agree->wants_turn = true;
	if (!agree->is_inside)
		agree->ops.set_timer(agree->context, 0);
}

struct uuid agree_log(const struct agree *agree)
{
	return agree->log_uuid;
}

void agree_stats_get(const struct agree *agree, struct agree_stats *out)
{
	*out = agree->stats;
	out->term = agree->term;
	out->commit = agree->log.commit;
	out->last = agree_last(agree).index;
	out->copy = agree->log_id;
	out->voters = agree->voters.count;
	out->voter_changes = agree->log.voter_entries;
}
