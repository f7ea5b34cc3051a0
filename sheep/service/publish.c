/*
 * Between the engine's loop and the others: maps out, proposals in.
 *
 * Every loop holds a reference to its own current map and gets each newer one as a mail, in
 * order. So a map does not change under a loop in mid-turn, a loop sees every change and can
 * compare, and nobody reads what another loop may free.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/log.h"
#include "lib/base/size.h"
#include "sheep/service/node_priv.h"
#include "sheep/service/note.h"

/* A proposal whose outcome nobody waits for is given up after so long. */
#define COMMAND_NS (10 * NS_PER_S)

/* ---- maps ---- */

struct map_mail {
	struct loop_mail mail;
	struct worker *worker;
	struct cluster_map *map; /* a reference; NULL: the stores */
	uint32_t node;
	uint64_t session;
	struct wire_identity identity;
	bool is_all; /* any PG may have changed */
	uint32_t pg_count;
	uint64_t pgs[];
};

static void worker_apply(struct worker *worker, const struct map_mail *mail)
{
	cluster_map_put(worker->map);
	worker->map = cluster_map_get(mail->map);
	net_set_identity(worker->net, &mail->identity);
	pg_peers_apply(worker->peers, mail->map);
	pg_set_apply(worker->set, mail->map, mail->is_all ? NULL : mail->pgs, mail->pg_count);
	gateway_apply(worker->gateway, mail->map, mail->node, mail->session);
}

static void worker_add_stores(struct worker *worker)
{
	struct node *node = worker->node;

	for (unsigned i = 0; i < node->store_count; i++) {
		struct node_store *store = &node->stores[i];
		int rc = pg_set_add_store(worker->set, store->store, store->id, store->incarnation);
		if (rc < 0)
			log_error("store %s: %s", store_path(store->store), err_text(rc));
	}
}

static void deliver_map(struct loop *loop, struct loop_mail *loop_mail)
{
	struct map_mail *mail = container_of_type(loop_mail, struct map_mail, mail);

	if (mail->map)
		worker_apply(mail->worker, mail);
	else
		worker_add_stores(mail->worker);
	cluster_map_put(mail->map);
	free(mail);
}

static void post(struct worker *worker, struct cluster_map *map,
		 const struct cluster_result *result)
{
	uint32_t count = result ? result->pgs.count : 0;
	struct map_mail *mail = calloc(1, sizeof(*mail) + count * sizeof(mail->pgs[0]));

	if (!mail) {
		/* A loop that misses a map would serve by an old one. */
		struct error err;
		error_set(&err, -ENOMEM, "map of the cluster");
		node_fail(worker->node, &err);
		return;
	}
	mail->worker = worker;
	mail->map = map ? cluster_map_get(map) : NULL;
	mail->node = worker->node->id;
	mail->session = worker->node->session;
	mail->identity = node_identity(worker->node);
	mail->is_all = !result;
	mail->pg_count = count;
	if (count)
		memcpy(mail->pgs, result->pgs.ids, count * sizeof(mail->pgs[0]));
	mail->mail.deliver = deliver_map;
	if (worker->index == 0)
		deliver_map(worker->loop, &mail->mail);
	else
		loop_post(worker->loop, &mail->mail);
}

void node_publish(struct node *node, struct cluster_map *map, const struct cluster_result *result)
{
	for (unsigned i = 0; i < node->store_count; i++)
		store_set_deadline(node->stores[i].store,
				   cluster_setting_ns(map, CLUSTER_SETTING_STORE_DEADLINE));
	for (unsigned i = 0; i < node->worker_count; i++)
		post(&node->workers[i], map, result);
	/* After the loops' mails: what the hub answers by this map reaches a loop that has it. */
	gateway_hub_apply(node->hub, map, node->session);
}

void node_publish_stores(struct node *node)
{
	for (unsigned i = 0; i < node->worker_count; i++)
		post(&node->workers[i], NULL, NULL);
}

static void deliver_ask_again(struct loop *loop, struct loop_mail *mail)
{
	struct worker *worker = container_of_type(mail, struct worker, ask_mail);

	__atomic_store_n(&worker->is_asking, false, __ATOMIC_RELEASE);
	pg_set_ask_again(worker->set);
}

void node_ask_again(struct node *node)
{
	for (unsigned i = 0; i < node->worker_count; i++) {
		struct worker *worker = &node->workers[i];
		if (__atomic_exchange_n(&worker->is_asking, true, __ATOMIC_ACQ_REL))
			continue; /* the mail is on its way */
		worker->ask_mail.deliver = deliver_ask_again;
		loop_post(worker->loop, &worker->ask_mail);
	}
}

/* ---- proposals ---- */

struct command_mail {
	struct loop_mail mail;
	struct node *node;
	struct cluster_command *command;
};

struct hub_proposal {
	struct proposal proposal;
	struct node *node;
	void *token;
};

static void on_hub_decided(struct proposal *proposal, enum proto_status status, const char *text,
			   uint64_t id)
{
	struct hub_proposal *mine = container_of_type(proposal, struct hub_proposal, proposal);

	gateway_hub_decided(mine->node->hub, mine->token, status == PROTO_STATUS_OK);
	free(mine);
}

int node_propose_for_hub(void *context, struct cluster_command *command, void *token)
{
	struct node *node = context;
	struct hub_proposal *mine = calloc(1, sizeof(*mine));

	int rc = !mine ? -ENOMEM : !node_is_serving(node) ? -E_SHUTDOWN : 0;

	if (rc < 0) {
		cluster_command_free(command);
		free(mine);
		return rc;
	}
	mine->proposal.done = on_hub_decided;
	mine->node = node;
	mine->token = token;
	state_propose(node->state, command, &mine->proposal, UINT64_MAX);
	return 0;
}

void node_propose(struct node *node, struct cluster_command *command)
{
	if (!command)
		log_warning("out of memory for a command; it is tried again");
	else if (!node_is_serving(node))
		cluster_command_free(command);
	else
		state_propose(node->state, command, NULL,
			      loop_now(node->workers[0].loop) + COMMAND_NS);
}

static void deliver_command(struct loop *loop, struct loop_mail *loop_mail)
{
	struct command_mail *mail = container_of_type(loop_mail, struct command_mail, mail);

	node_propose(mail->node, mail->command);
	free(mail);
}

void worker_propose(void *context, struct cluster_command *command)
{
	struct worker *worker = context;
	struct command_mail *mail;

	if (worker->index == 0) {
		node_propose(worker->node, command);
		return;
	}
	mail = calloc(1, sizeof(*mail));
	if (!mail) {
		cluster_command_free(command); /* may be lost, by contract */
		return;
	}
	mail->node = worker->node;
	mail->command = command;
	mail->mail.deliver = deliver_command;
	loop_post(worker->node->workers[0].loop, &mail->mail);
}

/* ---- stores ---- */

struct failed_mail {
	struct loop_mail mail;
	struct node_store *store;
	struct worker *worker; /* NULL: the engine's loop, for the log */
	int error;
};

/* On the engine's loop: in the log, and no note of it may stay, as none was published when it failed early. */
static void report_failed(struct node_store *store)
{
	struct node *node = store->node;
	struct error err = {0};

	if (store->id)
		node_propose(node, cluster_command_store_failed(store->id, store->incarnation));
	if (note_remove(node->workers[0].loop, node->note_dir, store->store, &err) < 0)
		log_warning("%s", err.text);
}

static void deliver_failed(struct loop *loop, struct loop_mail *loop_mail)
{
	struct failed_mail *mail = container_of_type(loop_mail, struct failed_mail, mail);
	struct node_store *store = mail->store;

	if (mail->worker)
		pg_set_store_failed(mail->worker->set, store->store, mail->error);
	else
		report_failed(store);
	free(mail);
}

static void post_failed(struct node_store *store, struct worker *worker, struct loop *loop,
			int error)
{
	struct failed_mail *mail = calloc(1, sizeof(*mail));

	if (!mail) {
		log_error("store %s: out of memory to tell of its failure",
			  store_path(store->store));
		return;
	}
	*mail = (struct failed_mail){
		.mail.deliver = deliver_failed, .store = store, .worker = worker, .error = error};
	loop_post(loop, &mail->mail);
}

/* On the loop of the shard that saw it: every loop has shards of the store. */
void worker_store_failed(struct node_store *store, int error)
{
	struct node *node = store->node;

	note_void(store->note);
	for (unsigned i = 0; i < node->worker_count; i++)
		post_failed(store, &node->workers[i], node->workers[i].loop, error);
	post_failed(store, NULL, node->workers[0].loop, error);
}

void worker_store_corrupt(struct node_store *store, uint32_t pg, const struct object_key *key)
{
	struct node *node = store->node;
	struct loop *loop = store_loop_of(store->store, pg);

	for (unsigned i = 0; i < node->worker_count; i++)
		if (node->workers[i].loop == loop)
			pg_set_store_corrupt(node->workers[i].set, store->store, pg, key);
}
