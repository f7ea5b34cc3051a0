/*
 * Who lives: an ephemeral node for each start, which goes with its session. That it is gone is a
 * hint only; that its start has left is written down by itself, before its node goes.
 *
 * A look: list the members (with a watch), then those who have left, then ask each new member who
 * it is. The second list was made after the first: whoever left, and is not in the first, is in it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/engine/zk_priv.h"

struct zk_peer {
	struct cds_list_head link;
	char name[ZK_NAME_MAX];
	struct engine_member member; /* info: from malloc */
	bool is_known;		     /* it has answered */
	bool is_listed;		     /* by the look that is under way */
};

static void look(struct zk *zk);

static void later(struct zk *zk)
{
	zk->members.is_waiting = true;
	zk_retry(zk);
}

static void peer_free(struct zk_peer *peer)
{
	cds_list_del(&peer->link);
	free((void *)peer->member.info);
	free(peer);
}

/* NODE-START */
static bool parse_name(const char *name, struct uuid *node, uint64_t *start)
{
	char text[UUID_TEXT_SIZE], *end;
	size_t length = UUID_TEXT_SIZE - 1;

	if (strlen(name) != length + 17 || name[length] != '-')
		return false;
	memcpy(text, name, length);
	text[length] = '\0';
	*start = strtoull(name + length + 1, &end, 16);
	return uuid_parse(text, node) == 0 && *end == '\0' && *start != 0;
}

/* ---- telling ---- */

static int compare_members(const void *a, const void *b)
{
	const struct engine_member *left = a, *right = b;

	return memcmp(left->node.bytes, right->node.bytes, sizeof(left->node.bytes));
}

static void tell_members(struct zk *zk)
{
	struct engine_member *all;
	struct zk_peer *peer;
	uint32_t count = 0;

	cds_list_for_each_entry(peer, &zk->members.peers, link)
		count += peer->is_known;
	all = calloc(count + 1, sizeof(*all));
	if (!all) {
		later(zk);
		return;
	}
	count = 0;
	cds_list_for_each_entry(peer, &zk->members.peers, link)
		if (peer->is_known)
			all[count++] = peer->member;
	qsort(all, count, sizeof(*all), compare_members);
	engine_tell_members(&zk->engine, all, count);
	free(all);
}

static void end_look(struct zk *zk)
{
	struct zk_members *members = &zk->members;
	struct zk_peer *peer, *next;

	if (members->calls)
		return;
	members->is_looking = false;
	cds_list_for_each_entry_safe(peer, next, &members->peers, link)
		if (!peer->is_listed)
			peer_free(peer);
	if (zk->engine.state == ENGINE_READY)
		tell_members(zk);
	if (zk->is_stopped)
		return;
	if (!members->is_there)
		zk_members_go(zk);
	else if (members->is_changed)
		look(zk);
}

/* ---- a look ---- */

static struct zk_peer *find(struct zk *zk, const char *name)
{
	struct zk_peer *peer;

	cds_list_for_each_entry(peer, &zk->members.peers, link)
		if (strcmp(peer->name, name) == 0)
			return peer;
	return NULL;
}

static void on_member(struct zk_call *call)
{
	struct zk *zk = call->zk;
	const struct zk_member *body = (const void *)call->data;
	const char *name = strrchr(call->about, '/') + 1;
	struct zk_peer *peer = find(zk, name);

	zk->members.calls--;
	if (call->rc == ZOK && peer && !peer->is_known && call->size >= sizeof(*body)) {
		peer->member.info_size = (uint32_t)(call->size - sizeof(*body));
		void *info = malloc(peer->member.info_size + 1);
		if (info && peer->member.info_size)
			memcpy(info, body + 1, peer->member.info_size);
		peer->member.info = info;
		peer->is_known = info != NULL;
	}
	if (zk_is_passing(call->rc))
		later(zk);
	end_look(zk);
}

static void ask_members(struct zk *zk)
{
	struct zk_peer *peer;
	char path[ZK_PATH_MAX];

	cds_list_for_each_entry(peer, &zk->members.peers, link) {
		if (peer->is_known || !peer->is_listed)
			continue;
		zk_path(zk, path, "/members/%s", peer->name);
		if (!zk_get(zk, path, 0, on_member)) {
			later(zk);
			break;
		}
		zk->members.calls++;
	}
	end_look(zk);
}

static bool was_told(const struct zk_members *members, const char *name)
{
	for (uint32_t i = 0; i < members->ended_count; i++)
		if (strcmp(members->ended[i], name) == 0)
			return true;
	return false;
}

static void note_told(struct zk_members *members, const char *name)
{
	char **bigger = realloc(members->ended, (members->ended_count + 1) * sizeof(*bigger));

	if (!bigger)
		return; /* it is told again, then */
	members->ended = bigger;
	members->ended[members->ended_count] = strdup(name);
	members->ended_count += members->ended[members->ended_count] != NULL;
}

static bool is_in(const struct zk_call *list, const char *name)
{
	for (uint32_t i = 0; i < list->name_count; i++)
		if (strcmp(list->names[i], name) == 0)
			return true;
	return false;
}

/* Those whose node has started again since: it has removed what it wrote when it left. */
static void forget_told(struct zk_members *members, const struct zk_call *list)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < members->ended_count; i++) {
		if (is_in(list, members->ended[i]))
			members->ended[kept++] = members->ended[i];
		else
			free(members->ended[i]);
	}
	members->ended_count = kept;
}

static void on_ended(struct zk_call *call)
{
	struct zk *zk = call->zk;
	struct zk_members *members = &zk->members;
	struct uuid node;
	uint64_t start;

	members->calls--;
	if (call->rc != ZOK) {
		later(zk);
		members->is_looking = false;
		return;
	}
	forget_told(members, call);
	for (uint32_t i = 0; i < call->name_count && zk->engine.state == ENGINE_READY; i++) {
		if (was_told(members, call->names[i]) || !parse_name(call->names[i], &node, &start))
			continue;
		note_told(members, call->names[i]);
		engine_tell_ended(&zk->engine, &node, start, ENGINE_END_LEFT);
		if (zk->is_stopped)
			return;
	}
	ask_members(zk);
}

static void list_peer(struct zk *zk, const char *name)
{
	struct zk_peer *peer = find(zk, name);
	struct uuid node;
	uint64_t start;

	if (!peer && parse_name(name, &node, &start)) {
		peer = calloc(1, sizeof(*peer));
		if (!peer) {
			later(zk);
			return;
		}
		(void)snprintf(peer->name, sizeof(peer->name), "%s", name);
		peer->member.node = node;
		peer->member.start = start;
		cds_list_add_tail(&peer->link, &zk->members.peers);
	}
	if (peer)
		peer->is_listed = true;
}

/* Our node went, and not with our session: another start of this node has removed it. */
static bool was_replaced(struct zk *zk)
{
	struct zk_peer *peer;

	cds_list_for_each_entry(peer, &zk->members.peers, link)
		if (peer->is_listed && peer->member.start != zk->engine.self.start &&
		    uuid_is_equal(&peer->member.node, &zk->engine.self.node))
			return true;
	return false;
}

static void on_members(struct zk_call *call)
{
	struct zk *zk = call->zk;
	char own[ZK_NAME_MAX], path[ZK_PATH_MAX];
	struct zk_peer *peer;
	bool has_own = false;

	zk->members.calls--;
	if (call->rc != ZOK) {
		zk->members.is_looking = false;
		later(zk);
		return;
	}
	zk_member_name(&zk->engine.self.node, zk->engine.self.start, own);
	cds_list_for_each_entry(peer, &zk->members.peers, link)
		peer->is_listed = false;
	for (uint32_t i = 0; i < call->name_count; i++) {
		list_peer(zk, call->names[i]);
		has_own |= strcmp(call->names[i], own) == 0;
	}
	if (!has_own && was_replaced(zk)) {
		zk_fail(zk, -EBUSY,
			"this node is running already: another start of it has joined at %s",
			zk->root);
		return;
	}
	zk->members.is_there = has_own;
	zk_path(zk, path, "/ended");
	if (zk_list(zk, path, false, 0, on_ended)) {
		zk->members.calls++;
	} else {
		zk->members.is_looking = false;
		later(zk);
	}
}

static void look(struct zk *zk)
{
	char path[ZK_PATH_MAX];

	zk->members.is_looking = true;
	zk->members.is_changed = false;
	zk_path(zk, path, "/members");
	if (zk_list(zk, path, true, 0, on_members)) {
		zk->members.calls++;
	} else {
		zk->members.is_looking = false;
		later(zk);
	}
}

void zk_members_changed(struct zk *zk)
{
	zk->members.is_changed = true;
	if (!zk->members.is_looking && zk->members.is_there && !zk->members.calls)
		look(zk);
}

/* ---- our own node ---- */

static void on_gone(struct zk_call *call)
{
	call->zk->members.calls--; /* gone, or gone already */
	if (zk_is_passing(call->rc))
		later(call->zk);
	if (!call->zk->members.calls)
		zk_members_go(call->zk);
}

static void on_there(struct zk_call *call)
{
	struct zk *zk = call->zk;

	zk->members.calls--;
	if (call->rc == ZNODEEXISTS) { /* of an earlier session of ours: it would go with that */
		if (zk_delete(zk, call->about, 0, on_gone))
			zk->members.calls++;
		else
			later(zk);
		return;
	}
	if (call->rc != ZOK) {
		later(zk);
		return;
	}
	zk->members.is_there = true;
	look(zk);
}

/* Earlier starts of this node: their processes are gone, or they shall not go on. */
static void on_earlier(struct zk_call *call)
{
	struct zk *zk = call->zk;
	char own[ZK_NAME_MAX], path[ZK_PATH_MAX];
	struct {
		struct zk_member body;
		uint8_t info[ENGINE_INFO_MAX];
	} data;

	zk->members.calls--;
	if (call->rc != ZOK) {
		later(zk);
		return;
	}
	zk_member_name(&zk->engine.self.node, zk->engine.self.start, own);
	for (uint32_t i = 0; i < call->name_count; i++) {
		if (strncmp(call->names[i], own, UUID_TEXT_SIZE) != 0 ||
		    strcmp(call->names[i], own) == 0)
			continue;
		zk_path(zk, path, "%s/%s", call->number ? "/ended" : "/members", call->names[i]);
		if (!zk_delete(zk, path, 0, on_gone)) {
			later(zk);
			return;
		}
		zk->members.calls++;
	}
	if (zk->members.calls)
		return; /* the last of them begins anew */
	if (!call->number) {
		zk_path(zk, path, "/ended");
		if (zk_list(zk, path, false, 1, on_earlier))
			zk->members.calls++;
		else
			later(zk);
		return;
	}
	data.body = (struct zk_member){.start = to_le64(zk->engine.self.start)};
	memcpy(data.body.node, zk->engine.self.node.bytes, sizeof(data.body.node));
	memcpy(data.info, zk->engine.self.info, zk->engine.self.info_size);
	zk_path(zk, path, "/members/%s", own);
	if (zk_create(zk, path, &data, sizeof(data.body) + zk->engine.self.info_size, ZOO_EPHEMERAL,
		      0, on_there))
		zk->members.calls++;
	else
		later(zk);
}

/*
 * Become a member, or look. Only when the reader has found that it is the right log. An earlier
 * start's node is removed, so that of two starts of one node, which can only be a copy of a
 * directory, the later goes on and the earlier one learns it.
 */
void zk_members_go(struct zk *zk)
{
	char path[ZK_PATH_MAX];

	zk->members.is_waiting = false;
	if (uuid_is_null(&zk->engine.log))
		return;
	if (zk->members.calls) {
		later(zk);
		return;
	}
	if (zk->members.is_there) {
		look(zk);
		return;
	}
	zk_path(zk, path, "/members");
	if (zk_list(zk, path, false, 0, on_earlier))
		zk->members.calls++;
	else
		later(zk);
}

void zk_members_lost(struct zk *zk)
{
	zk->members.is_there = false;
	zk->members.is_looking = false;
}

void zk_members_done(struct zk *zk)
{
	struct zk_peer *peer, *next;

	cds_list_for_each_entry_safe(peer, next, &zk->members.peers, link)
		peer_free(peer);
	for (uint32_t i = 0; i < zk->members.ended_count; i++)
		free(zk->members.ended[i]);
	free(zk->members.ended);
}
