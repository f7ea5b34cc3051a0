/* What figures are on the wire; and objects that clients cannot read, or not all of, for `cluster health`. */
#include "sheep/service/figures.h"

#include <errno.h>
#include <stdlib.h>

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

uint32_t figures_packed_size(const struct figures *figures)
{
	return figures->store_count * (uint32_t)sizeof(struct peer_figures_store) +
	       figures->row_count * (uint32_t)sizeof(struct peer_figures_row) +
	       figures->lost_count * (uint32_t)sizeof(struct peer_figures_lost) +
	       figures->use.layer_count * (uint32_t)sizeof(struct peer_figures_layer) +
	       figures->use.pg_count * (uint32_t)sizeof(le32);
}

static void pack_use(const struct figures_use *use, struct peer_figures_layer *layers)
{
	le32 *pgs = (void *)(layers + use->layer_count);

	for (uint32_t i = 0; i < use->layer_count; i++)
		layers[i] = (struct peer_figures_layer){
			.data_blocks = to_le64(use->layers[i].data_blocks),
			.missing = to_le64(use->layers[i].missing),
		};
	for (uint32_t i = 0; i < use->pg_count; i++)
		pgs[i] = to_le32(use->pgs[i]);
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
	struct peer_figures_lost *lost = (void *)(rows + figures->row_count);
	pack_lost(figures, lost);
	pack_use(&figures->use, (void *)(lost + figures->lost_count));
}

/* ---- what came ---- */

/* No layer holds more than all objects that it can have. */
static bool is_possible(const struct peer_figures_layer *layer)
{
	return from_le64(layer->data_blocks) <= (uint64_t)OBJECT_BLOCKS << 32;
}

int figures_look_at(const struct peer_figures_reply *reply, const struct slice *payload,
		    uint32_t layer_count, struct figures_view *out)
{
	struct figures_view view = {.store_count = from_le32(reply->store_count),
				    .row_count = from_le32(reply->row_count),
				    .lost_count = from_le32(reply->lost_count),
				    .layer_count = from_le32(reply->layer_count),
				    .pg_count = from_le32(reply->pg_count)};

	if (view.store_count > CLUSTER_NODE_STORES_MAX || view.row_count > FIGURES_ROWS_MAX ||
	    view.lost_count > FIGURES_LOST_MAX || view.layer_count != layer_count ||
	    view.pg_count > (layer_count ? FIGURES_PGS_MAX : 0) ||
	    payload->size != view.store_count * sizeof(*view.stores) +
				     view.row_count * sizeof(*view.rows) +
				     view.lost_count * sizeof(*view.lost) +
				     view.layer_count * sizeof(*view.layers) +
				     view.pg_count * sizeof(*view.pgs))
		return -E_PROTOCOL;
	view.stores = (const void *)payload->data;
	view.rows = (const void *)(view.stores + view.store_count);
	view.lost = (const void *)(view.rows + view.row_count);
	view.layers = (const void *)(view.lost + view.lost_count);
	view.pgs = (const void *)(view.layers + view.layer_count);
	for (uint32_t i = 0; i < view.layer_count; i++)
		if (!is_possible(&view.layers[i]))
			return -E_PROTOCOL;
	for (uint32_t i = 1; i < view.pg_count; i++)
		if (from_le32(view.pgs[i]) <= from_le32(view.pgs[i - 1]))
			return -E_PROTOCOL;
	*out = view;
	return 0;
}

static int unpack_use(const struct figures_view *view, const struct figures_use *asked,
		      struct figures_use *out)
{
	*out = (struct figures_use){0};
	if (view->layer_count == 0)
		return 0;
	out->layers = calloc(view->layer_count, sizeof(*out->layers));
	if (!out->layers)
		return -ENOMEM;
	out->layer_count = view->layer_count;
	for (uint32_t i = 0; i < view->layer_count; i++)
		out->layers[i] = (struct figures_layer){
			.layer = asked->layers[i].layer,
			.data_blocks = from_le64(view->layers[i].data_blocks),
			.missing = from_le64(view->layers[i].missing) > 0};
	for (uint32_t i = 0; i < view->pg_count; i++)
		if (figures_use_add_pg(out, from_le32(view->pgs[i])) < 0)
			return -ENOMEM;
	return 0;
}

int figures_unpack(const struct peer_figures_reply *reply, const struct figures_view *view,
		   const struct figures_use *asked, struct figures *out)
{
	*out = (struct figures){
		.objects_missing = from_le64(reply->objects_missing),
		.bytes_missing = from_le64(reply->bytes_missing),
		.objects_moved = from_le64(reply->objects_moved),
		.bytes_moved = from_le64(reply->bytes_moved),
		.row_count = view->row_count,
		.objects_lost = from_le64(reply->objects_lost),
		.objects_unread = from_le64(reply->objects_unread),
		.lost_count = view->lost_count,
	};
	for (uint32_t i = 0; i < view->row_count; i++)
		out->rows[i] = (struct figures_row){
			.pg = from_le32(view->rows[i].pg),
			.store = from_le32(view->rows[i].store),
			.objects_missing = from_le64(view->rows[i].objects_missing),
			.bytes_missing = from_le64(view->rows[i].bytes_missing),
		};
	for (uint32_t i = 0; i < view->lost_count; i++)
		out->lost[i] = (struct figures_lost){
			.layer = from_le64(view->lost[i].layer),
			.index = from_le32(view->lost[i].index),
			.pg = from_le32(view->lost[i].pg),
			.blocks = from_le32(view->lost[i].blocks),
		};
	return unpack_use(view, asked, &out->use);
}

int figures_unpack_question(const struct peer_figures *body, const struct slice *payload,
			    uint64_t *out)
{
	uint32_t count = from_le32(body->layer_count);
	const le64 *layers = (const void *)payload->data;

	if (count > PEER_FIGURES_LAYERS_MAX || payload->size != count * sizeof(*layers) ||
	    from_le32(body->reserved) != 0)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		out[i] = from_le64(layers[i]);
		if (i > 0 && out[i] <= out[i - 1])
			return -EINVAL;
	}
	return 0;
}
