/*
 * Opening a sheep: loops, stores, what lives on each loop, the peer listener, the engine, signals.
 * Blocking, and before any loop runs. What fails half way is given up as if it had not begun.
 */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "lib/base/text.h"
#include "sheep/service/admin.h"
#include "sheep/service/exports.h"
#include "sheep/service/figures.h"
#include "sheep/service/identity.h"
#include "sheep/service/node_priv.h"
#include "sheep/service/note.h"

/* ---- signals ---- */

static void on_signal(struct loop_op *op, int result)
{
	struct node *node = container_of_type(op, struct node, signal_op);
	struct signalfd_siginfo info;

	if (result < 0) { /* cancelled: the last thing of a stop */
		for (unsigned i = 0; i < node->worker_count; i++)
			loop_stop(node->workers[i].loop);
		return;
	}
	while (read(node->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (node->signals++ > 0) {
			log_warning("sheep: a second signal: stopping at once");
			_exit(1);
		}
		node_stop(node, strsignal((int)info.ssi_signo));
	}
	loop_poll(node->workers[0].loop, op, node->signal_fd, POLLIN);
}

static int open_signals(struct node *node, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return error_set(err, -errno, "signals");
	(void)signal(SIGPIPE, SIG_IGN);
	node->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (node->signal_fd < 0)
		return error_set(err, -errno, "signalfd");
	node->signal_op.done = on_signal;
	loop_poll(node->workers[0].loop, &node->signal_op, node->signal_fd, POLLIN);
	return 0;
}

/* ---- opening ---- */

/* What waits for a node that cannot be reached waits no longer before it looks at the map again. */
#define CONNECT_NS NS_PER_S
#define ENGINE_DIR "engine"

static int open_loops(struct node *node, struct logger *logger, struct error *err)
{
	for (unsigned i = 0; i < node->worker_count; i++) {
		struct worker *worker = &node->workers[i];
		const struct loop_options options = {
			.backend = node->settings->io, .name = "loop", .logger = logger};
		worker->node = node;
		worker->index = i;
		int rc = loop_new(&options, &worker->loop, err);
		if (rc < 0)
			return error_wrap(err, rc, "loop %u", i);
		node->loops[i] = worker->loop;
	}
	return 0;
}

static void on_store_failed(void *context, struct store *store, int error)
{
	worker_store_failed(context, error);
}

static void on_store_corrupt(void *context, struct store *store, uint32_t pg,
			     const struct object_key *key)
{
	worker_store_corrupt(context, pg, key);
}

/* What did its last end leave? And a new note, which counts from its registration on. */
static int judge_store(struct node_store *store, const char *path, struct error *err)
{
	struct loop *loop = store->node->workers[0].loop;
	const char *dir = store->node->note_dir;
	const char *why = note_judge(loop, dir, store->store);

	store->held = note_held(loop, dir, store->store);
	struct error no_note = {0};

	store->is_unclean = why;
	store_set_unclean(store->store, why);
	if (why) {
		log_warning("store '%s': %s: its copies are filled again", path, why);
		/* The cleaner may append before the registration is applied: its log would reach the note. */
		int rc = note_remove(loop, dir, store->store, err);
		if (rc < 0)
			return rc;
	}
	if (note_open(loop, dir, store->store, &store->note, &no_note) < 0)
		log_warning("%s: after a crash it will count as unclean", no_note.text);
	return 0;
}

static int open_stores(struct node *node, struct error *err)
{
	struct loop *loop = node->workers[0].loop;
	const struct store_options options = {.size_bytes = node->settings->store_size};
	char dir[NOTE_PATH_MAX];
	int rc = note_dir(loop, node->settings->runtime_dir, dir, err);

	if (rc < 0)
		return rc;
	node->note_dir = strdup(dir);
	if (!node->note_dir)
		return error_set(err, -ENOMEM, "stores");
	for (unsigned i = 0; i < node->settings->stores.count; i++) {
		struct node_store *store = &node->stores[i];
		const struct store_callbacks callbacks = {
			.failed = on_store_failed, .corrupt = on_store_corrupt, .context = store};
		const char *path = node->settings->stores.items[i];
		store->node = node;
		rc = store_open(node->loops, node->worker_count, path, &options, &callbacks,
				&store->store, err);
		if (rc < 0)
			return rc; /* the text names it */
		node->store_count++;
		store->start = random_u64(loop_random(loop));
		rc = judge_store(store, path, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

char *const *node_directories(const struct node *node, unsigned *count)
{
	const struct settings *settings = node->settings;

	*count = node->store_count ? settings->stores.count : 1;
	return node->store_count ? settings->stores.items : &settings->state;
}

/* A node with stores was once its first store; a gateway is what it drew at its first start. */
static int open_identity(struct node *node, struct error *err)
{
	struct loop *loop = node->workers[0].loop;
	struct uuid preset = uuid_make(loop_random(loop));
	unsigned count;
	char *const *paths = node_directories(node, &count);
	int rc = 0;

	if (node->store_count)
		preset = store_identity(node->stores[0].store)->uuid;
	else
		rc = loop_sync_mkdir(loop, paths[0]);
	if (rc < 0 && rc != -EEXIST)
		return error_set(err, rc, "state directory '%s'", paths[0]);
	rc = identity_open(loop, paths, count, &preset, &node->uuid, err);
	return rc < 0 ? rc : identity_log(loop, paths, count, &node->log, err);
}

static int open_worker(struct node *node, struct worker *worker, struct error *err)
{
	const struct wire_identity identity = node_identity(node);
	const struct net_options net_options = {.loop_index = (uint16_t)worker->index,
						.connect_timeout_ns = CONNECT_NS};
	const struct pg_env env = {
		.loop = worker->loop, .context = worker, .propose = worker_propose};
	int rc = net_new(worker->loop, &net_options, &identity, &worker->net, err);

	if (rc < 0)
		return rc;
	rc = pg_peers_new(worker->net, &worker->peers, err);
	if (rc < 0)
		return rc;
	pg_peers_watch(worker->peers, links_changed, node->links);
	struct pg_env with_peers = env;
	with_peers.peers = worker->peers;
	rc = pg_set_new(&with_peers, &worker->set, err);
	if (rc < 0)
		return rc;
	node->sets[worker->index] = worker->set;
	const struct net_service service = {.protocol = figures_protocol(node->figures),
					    .context = worker->set};
	rc = net_serve(worker->net, &service);
	if (rc < 0)
		return error_set(err, rc, "peer protocol");
	const struct gateway_options gateway_options = {
		.loop = worker->loop,
		.loop_index = worker->index,
		.loop_count = node->worker_count,
		.hub = node->hub,
		.hub_loop = node->workers[0].loop,
		.loops = node->loops,
		.sets = node->sets,
		.peers = worker->peers,
	};
	worker->gateway = gateway_new(&gateway_options);
	worker->exports = worker->gateway ? exports_new(worker->net, worker->gateway) : NULL;
	return worker->exports ? 0 : error_set(err, -ENOMEM, "gateway");
}

static void on_links(void *context, const struct uuid *uuid, uint64_t start, bool is_closed)
{
	struct node *node = context;

	if (node->state && !uuid_is_equal(uuid, &node->uuid))
		state_peer_link(node->state, uuid, start, is_closed);
}

static int open_workers(struct node *node, struct error *err)
{
	const struct gateway_hub_options hub_options = {
		.loop = node->workers[0].loop, .propose = node_propose_for_hub, .context = node};
	struct net *nets[SETTINGS_LOOPS_MAX];

	node->hub = gateway_hub_new(&hub_options);
	node->figures = figures_new(node);
	node->links = links_new(node->workers[0].loop, on_links, node);
	if (!node->hub || !node->figures || !node->links)
		return error_set(err, -ENOMEM, "gateway");
	for (unsigned i = 0; i < node->worker_count; i++) {
		int rc = open_worker(node, &node->workers[i], err);
		if (rc < 0)
			return rc;
		nets[i] = node->workers[i].net;
	}
	net_group(nets, node->worker_count);
	return pg_set_group(node->sets, node->worker_count, err);
}

/*
 * Where the engine keeps what it keeps on this node: where it has done so before, else in the first store, so
 * that stores may be named in another order, and added. A gateway has its state directory.
 */
static int find_engine_dir(const struct node *node, char out[PATH_MAX], struct error *err)
{
	const struct settings *settings = node->settings;
	char *const *paths = settings->stores.count ? settings->stores.items : &settings->state;
	unsigned count = settings->stores.count ? settings->stores.count : 1;

	for (unsigned i = 0; i <= count; i++) {
		const char *path = paths[i < count ? i : 0];
		struct text text = text_of(out, PATH_MAX);

		text_append(&text, "%s/" ENGINE_DIR, path);
		if (text.is_cut)
			return error_set(err, -ENAMETOOLONG, "'%s'", path);
		if (access(out, F_OK) == 0)
			return 0;
	}
	return 0; /* the last was the first */
}

static bool has_stamp(const struct node *node)
{
	for (unsigned i = 0; i < node->store_count; i++)
		if (!uuid_is_null(&store_identity(node->stores[i].store)->cluster))
			return true;
	return false;
}

static int open_cluster(struct node *node, struct error *err)
{
	struct loop *loop = node->workers[0].loop;
	char engine_dir[PATH_MAX];
	struct state_options options = {
		.loop = loop,
		.engine = node->settings->cluster,
		.engine_dir = engine_dir,
		.node = node->uuid,
		.log = node->log,
		.start = node->start,
		.callbacks = &node_state_callbacks,
		.context = node,
	};
	int rc = find_engine_dir(node, engine_dir, err);

	if (rc == 0)
		rc = state_open(&options, &node->state, err);
	if (rc == -E_WRONG_CLUSTER && has_stamp(node)) {
		/* The map will say which cluster that is, and check_cluster() refuses it. */
		node->wrong_log = *err;
		options.log = (struct uuid){0};
		rc = state_open(&options, &node->state, err);
	}
	if (rc < 0)
		return node_explain(node, rc, err);
	node->caretaker = caretaker_new(loop, node->state, &node->uuid);
	if (!node->caretaker)
		return error_set(err, -ENOMEM, "caretaker");
	return admin_new(node, &node->admin, err);
}

int node_open(const struct settings *settings, struct logger *logger, struct node **out,
	      struct error *err)
{
	struct node *node = calloc(1, sizeof(*node));
	int rc;

	if (!node)
		return error_set(err, -ENOMEM, "sheep");
	node->settings = settings;
	node->signal_fd = -1;
	node->workers = calloc(settings->loops, sizeof(*node->workers));
	node->loops = calloc(settings->loops, sizeof(*node->loops));
	node->sets = calloc(settings->loops, sizeof(*node->sets));
	node->stores = calloc(settings->stores.count + 1, sizeof(*node->stores));
	if (!node->workers || !node->loops || !node->sets || !node->stores) {
		node->is_abandoned = true;
		node_free(node);
		return error_set(err, -ENOMEM, "sheep");
	}
	node->worker_count = settings->loops;
	rc = open_loops(node, logger, err);
	if (rc == 0)
		rc = open_stores(node, err);
	if (rc == 0) {
		node->start = random_u64(loop_random(node->workers[0].loop)) | 1;
		rc = open_identity(node, err);
	}
	if (rc == 0)
		rc = open_workers(node, err);
	if (rc == 0)
		rc = node_listen_peers(node, err);
	if (rc == 0)
		rc = open_cluster(node, err);
	if (rc == 0)
		rc = open_signals(node, err);
	if (rc < 0) {
		node_abandon(node);
		return rc;
	}
	*out = node;
	return 0;
}
