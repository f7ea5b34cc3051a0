/*
 * The links of one loop to the other sheep, by node, loop of that node and class.
 *
 * A link is made when it is asked for first. It is given up when the map says that its node has
 * died, left or started anew: what was outstanding then comes back at once.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/rule.h"
#include "sheep/pg/pg_priv.h"

#define SILENCE_MIN_NS (500 * NS_PER_MS)
#define DIAL_NS	       (100 * NS_PER_MS) /* usually it takes less by far */

struct peer_link {
	struct {
		uint32_t node;
		uint16_t loop;
		uint16_t class;
	} key;
	UT_hash_handle hh;
	struct pg_peers *peers;
	struct net_link *link;
	struct loop *loop;
	struct uuid node;
	uint64_t start;	  /* of the node that it was made for */
	uint64_t up;	  /* the start that is connected; 0: none */
	uint64_t down_ns; /* when it went down, or a dial failed, last */
	bool must_look;	  /* a map came while it was dialled: see is_stuck() */
	char address[LOG_ADDRESS_SIZE];
};

struct pg_peers {
	struct net *net;
	struct cluster_map *map;
	struct peer_link *links;
	struct loop_timer look; /* at links that must be looked at */
	bool is_stopped;
	void (*watch)(void *context, const struct uuid *node, uint64_t start, bool is_up,
		      bool is_by_peer);
	void *watcher;
};

/*
 * What waits for a dial looks at the new map first: the node that cannot be reached may be the one that
 * leads no more. A dial under way is given a moment and judged again after it, a pause between two
 * dials is not: it may be long.
 */
static bool is_stuck(const struct peer_link *link)
{
	return link->key.class == PEER_CLASS_CLIENT && net_link_waiting(link->link) > 0 &&
	       !net_link_is_up(link->link);
}

static void judge_stuck(struct pg_peers *peers, struct peer_link *link)
{
	uint64_t due_ns = link->down_ns + DIAL_NS;

	link->must_look = is_stuck(link) && net_link_state(link->link) != NET_LINK_WAITING &&
			  loop_now(link->loop) < due_ns;
	if (!link->must_look && is_stuck(link))
		net_link_reset(link->link, -ETIMEDOUT, "no connection for now");
	else if (link->must_look &&
		 (!loop_timer_is_armed(&peers->look) || due_ns < peers->look.deadline_ns))
		loop_timer_start(link->loop, &peers->look, due_ns);
}

static void look_again(struct loop_timer *timer)
{
	struct pg_peers *peers = container_of_type(timer, struct pg_peers, look);
	struct peer_link *link, *next;

	HASH_ITER(hh, peers->links, link, next)
		if (link->must_look)
			judge_stuck(peers, link);
}

int pg_peers_new(struct net *net, struct pg_peers **out, struct error *err)
{
	struct pg_peers *peers = calloc(1, sizeof(*peers));

	if (!peers)
		return error_set(err, -ENOMEM, "peers");
	peers->net = net;
	peers->look.fire = look_again;
	*out = peers;
	return 0;
}

void pg_peers_watch(struct pg_peers *peers,
		    void (*watch)(void *context, const struct uuid *node, uint64_t start,
				  bool is_up, bool is_by_peer),
		    void *context)
{
	peers->watch = watch;
	peers->watcher = context;
}

static void tell_up(struct peer_link *link)
{
	link->up = net_link_agreement(link->link)->peer.nonce;
	if (link->up && link->peers->watch)
		link->peers->watch(link->peers->watcher, &link->node, link->up, true, false);
}

static void tell_down(struct peer_link *link, bool is_by_peer)
{
	uint64_t start = link->up;

	link->up = 0;
	if (start && link->peers->watch)
		link->peers->watch(link->peers->watcher, &link->node, start, false, is_by_peer);
}

uint64_t pg_peers_incarnation(const struct pg_peers *peers)
{
	return net_identity(peers->net)->incarnation;
}

const struct cluster_node *pg_peers_self(const struct pg_peers *peers,
					 const struct cluster_map *map)
{
	const struct wire_identity *identity = net_identity(peers->net);
	const struct cluster_node *node = cluster_node_by_uuid(map, &identity->node);

	if (!node || !(node->flags & CLUSTER_NODE_UP))
		return NULL;
	/* R1: as long as it shows an earlier start of ours we have no part in anything. */
	return node->incarnation == identity->incarnation || !RULE(R1_REGISTERED_FIRST) ? node
											: NULL;
}

static void link_free(struct pg_peers *peers, struct peer_link *link)
{
	HASH_DEL(peers->links, link);
	tell_down(link, false);
	net_link_free(link->link);
	free(link);
}

void pg_peers_stop(struct pg_peers *peers)
{
	struct peer_link *link, *next;

	peers->is_stopped = true;
	loop_timer_stop(net_loop(peers->net), &peers->look);
	HASH_ITER(hh, peers->links, link, next)
		link_free(peers, link);
}

void pg_peers_free(struct pg_peers *peers)
{
	if (!peers)
		return;
	pg_peers_stop(peers);
	cluster_map_put(peers->map);
	free(peers);
}

static bool is_there(const struct cluster_node *node)
{
	return node && node->flags & CLUSTER_NODE_UP;
}

void pg_peers_apply(struct pg_peers *peers, struct cluster_map *map)
{
	struct peer_link *link, *next;

	cluster_map_get(map);
	cluster_map_put(peers->map);
	peers->map = map;
	/* Who is silent for so long neither leads nor follows: what waits for it goes elsewhere. */
	uint64_t lease_ns = cluster_setting_ns(map, CLUSTER_SETTING_LEASE);
	if (!lease_ns)
		lease_ns = cluster_setting_ns(map, CLUSTER_SETTING_GRACE);
	net_set_silence(peers->net, max_of(lease_ns, SILENCE_MIN_NS));
	HASH_ITER(hh, peers->links, link, next) {
		const struct cluster_node *node = cluster_node(map, link->key.node);
		if (!is_there(node) || node->start != link->start) {
			link_free(peers, link);
		} else if (strcmp(node->address, link->address) != 0) {
			tell_down(link, false);
			if (net_link_set_address(link->link, node->address) < 0)
				link_free(peers, link);
			else
				memcpy(link->address, node->address, sizeof(link->address));
		} else {
			judge_stuck(peers, link);
		}
	}
}

static void changed(struct net_link *net_link, bool is_up, int error)
{
	struct peer_link *link = net_link_context(net_link);

	link->must_look = false; /* what waited has been sent, or has come back */
	if (is_up) {
		tell_up(link);
		return;
	}
	link->down_ns = loop_now(link->loop);
	/* The other codes are of what we found wrong ourselves. */
	tell_down(link, error == -E_CLOSED || error == -ECONNRESET || error == -EPIPE);
}

static struct peer_link *link_new(struct pg_peers *peers, const struct cluster_node *node,
				  uint16_t loop, unsigned class)
{
	struct peer_link *link = calloc(1, sizeof(*link));
	struct net_link_options options = {
		.address = node->address,
		.protocol = &pg_peer_protocol,
		.class = (uint16_t) class,
		.loop = loop,
		.node = node->uuid,
		.changed = changed,
		.context = link,
	};
	struct error err;

	if (!link)
		return NULL;
	link->key.node = node->id;
	link->key.loop = loop;
	link->key.class = (uint16_t) class;
	link->peers = peers;
	link->node = node->uuid;
	link->start = node->start;
	link->loop = net_loop(peers->net);
	link->down_ns = loop_now(link->loop);
	memcpy(link->address, node->address, sizeof(link->address));
	if (net_link_new(peers->net, &options, &link->link, &err) < 0) {
		log_error("peers: node %u: %s", node->id, err.text);
		free(link);
		return NULL;
	}
	HASH_ADD(hh, peers->links, key, sizeof(link->key), link);
	return link;
}

struct net_link *pg_peers_node_link(struct pg_peers *peers, uint32_t node, uint16_t loop,
				    unsigned class)
{
	struct peer_link *link;
	typeof(link->key) key = {.node = node, .loop = loop, .class = (uint16_t) class};

	HASH_FIND(hh, peers->links, &key, sizeof(key), link);
	if (!link && !peers->is_stopped) {
		const struct cluster_node *row = peers->map ? cluster_node(peers->map, node) : NULL;
		link = is_there(row) ? link_new(peers, row, loop, class) : NULL;
	}
	return link ? link->link : NULL;
}

uint16_t pg_peers_loop_of(const struct cluster_map *map, uint32_t store, uint32_t pg)
{
	const struct cluster_store *row = cluster_store(map, store);
	const struct cluster_node *node = row ? cluster_node(map, row->node) : NULL;

	if (!node || node->loops == 0 || row->shards == 0)
		return FRAME_ANY_LOOP;
	return (uint16_t)(pg % row->shards % node->loops);
}

struct net_link *pg_peers_link(struct pg_peers *peers, uint32_t store, uint32_t pg, unsigned class)
{
	uint32_t node = peers->map ? cluster_store_node(peers->map, store) : 0;

	if (!node)
		return NULL;
	return pg_peers_node_link(peers, node, pg_peers_loop_of(peers->map, store, pg), class);
}
