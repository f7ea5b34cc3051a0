/* What figures are on the wire; and objects that clients cannot read, or not all of, for `cluster health`. */
#include "sheep/service/figures.h"

#define LOOK_MAX 65536u /* objects of a PG that are looked at: a turn of the loop can bear that */

static void note(struct figures *figures, uint32_t pg, const struct store_object *object)
{
	if (object->is_missing)
		figures->objects_unread++;
	else
		figures->objects_lost++;
	if (figures->lost_count < FIGURES_LOST_MAX)
		figures->lost[figures->lost_count++] = (struct figures_lost){
			.layer = object->key.layer,
			.index = object->key.index,
			.pg = pg,
			.blocks = object->is_missing ? 0 : object->lost_blocks,
		};
}

/* Where there is nothing of the kind it costs nothing. */
void figures_look_for_lost(struct figures *figures, struct store *store,
			   const struct pg_status *status)
{
	struct store_object object;
	struct object_key cursor;
	const struct object_key *after = NULL;
	uint32_t left = status->lost + status->missing; /* at most */

	if (status->role != PG_ROLE_PRIMARY)
		return;
	for (uint32_t i = 0; left > 0 && i < LOOK_MAX; i++) {
		if (store_object_next(store, status->pg, after, &object) <= 0)
			return;
		cursor = object.key;
		after = &cursor;
		if (!object.is_missing && !object.lost_blocks)
			continue;
		note(figures, status->pg, &object);
		left--;
	}
}

static void pack_lost(const struct figures *figures, struct peer_figures_lost *out)
{
	for (uint32_t i = 0; i < figures->lost_count; i++)
		out[i] = (struct peer_figures_lost){
			.layer = to_le64(figures->lost[i].layer),
			.index = to_le32(figures->lost[i].index),
			.pg = to_le32(figures->lost[i].pg),
			.blocks = to_le32(figures->lost[i].blocks),
		};
}

void figures_pack(const struct figures *figures, void *out)
{
	struct peer_figures_store *stores = out;
	struct peer_figures_row *rows = (void *)(stores + figures->store_count);

	for (uint32_t i = 0; i < figures->store_count; i++)
		stores[i] = (struct peer_figures_store){
			.size_bytes = to_le64(figures->stores[i].size_bytes),
			.live_bytes = to_le64(figures->stores[i].live_bytes),
			.allocated_bytes = to_le64(figures->stores[i].allocated_bytes),
			.credit_bytes = to_le64(figures->stores[i].credit_bytes),
			.last_reign = to_le64(figures->stores[i].last.reign),
			.last_n = to_le64(figures->stores[i].last.n),
			.objects = to_le32(figures->stores[i].objects),
			.missing = to_le32(figures->stores[i].missing),
			.store = to_le32(figures->stores[i].store),
		};
	for (uint32_t i = 0; i < figures->row_count; i++)
		rows[i] = (struct peer_figures_row){
			.objects_missing = to_le64(figures->rows[i].objects_missing),
			.bytes_missing = to_le64(figures->rows[i].bytes_missing),
			.pg = to_le32(figures->rows[i].pg),
			.store = to_le32(figures->rows[i].store),
		};
	pack_lost(figures, (void *)(rows + figures->row_count));
}

void figures_unpack_lost(struct figures *figures, const struct peer_figures_reply *reply,
			 const struct peer_figures_lost *rows)
{
	figures->objects_lost = from_le64(reply->objects_lost);
	figures->objects_unread = from_le64(reply->objects_unread);
	figures->lost_count = from_le32(reply->lost_count);
	for (uint32_t i = 0; i < figures->lost_count; i++)
		figures->lost[i] = (struct figures_lost){
			.layer = from_le64(rows[i].layer),
			.index = from_le32(rows[i].index),
			.pg = from_le32(rows[i].pg),
			.blocks = from_le32(rows[i].blocks),
		};
}
