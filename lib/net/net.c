/*
 * What the streams of one loop share: the hook that sends at the end of a turn, the services, and
 * the pool of requests.
 *
 * Requests are taken from chunks that are allocated when the pool has never been that empty, and kept:
 * their number is bounded by the credits that were granted, and what is in use at once
 * settles at what the load needs.
 */
#include "lib/net/net_priv.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

#define REQUESTS_PER_CHUNK 32

struct request_chunk {
	struct cds_list_head link;
	struct net_request requests[REQUESTS_PER_CHUNK];
};

static void set_defaults(struct net_options *options)
{
	const struct net_options defaults = {
		.sessions_max = 1024,
		.credit_requests = 256,
		.credit_bytes = 64 * MIB,
		.hello_timeout_ns = 5 * NS_PER_S,
		.connect_timeout_ns = 3 * NS_PER_S,
		.silence_ns = 3 * NS_PER_S,
		.backoff_min_ns = 20 * NS_PER_MS,
		.backoff_max_ns = 2 * NS_PER_S,
	};

#define DEFAULT_OF(field)        \
	if (options->field == 0) \
	options->field = defaults.field
	DEFAULT_OF(sessions_max);
	DEFAULT_OF(credit_requests);
	DEFAULT_OF(credit_bytes);
	DEFAULT_OF(hello_timeout_ns);
	DEFAULT_OF(connect_timeout_ns);
	DEFAULT_OF(silence_ns);
	DEFAULT_OF(backoff_min_ns);
	DEFAULT_OF(backoff_max_ns);
#undef DEFAULT_OF
	options->backoff_max_ns = max_of(options->backoff_max_ns, options->backoff_min_ns);
}

static void flush_run(struct loop_hook *hook)
{
	struct net *net = container_of_type(hook, struct net, flush);

	while (!cds_list_empty(&net->dirty)) {
		struct net_stream *stream =
			cds_list_first_entry(&net->dirty, struct net_stream, dirty);
		net_stream_flush(stream);
	}
}

int net_new(struct loop *loop, const struct net_options *options,
	    const struct wire_identity *identity, struct net **out, struct error *err)
{
	struct net *net;

	if (options->credit_requests > WIRE_CREDIT_REQUESTS_MAX)
		return error_set(err, -EINVAL, "credit of %u requests, the limit is %u",
				 options->credit_requests, WIRE_CREDIT_REQUESTS_MAX);
	net = calloc(1, sizeof(*net));
	if (!net)
		return error_set(err, -ENOMEM, "network");
	net->loop = loop;
	net->options = *options;
	set_defaults(&net->options);
	net->identity = *identity;
	net->flush = (struct loop_hook){.run = flush_run, .phase = LOOP_HOOK_FLUSH};
	CDS_INIT_LIST_HEAD(&net->dirty);
	CDS_INIT_LIST_HEAD(&net->listeners);
	CDS_INIT_LIST_HEAD(&net->sessions);
	CDS_INIT_LIST_HEAD(&net->links);
	CDS_INIT_LIST_HEAD(&net->request_spares);
	CDS_INIT_LIST_HEAD(&net->request_chunks);
	net_group(&net, 1);
	if (!net->group) {
		free(net);
		return error_set(err, -ENOMEM, "network");
	}
	*out = net;
	return 0;
}

void net_free(struct net *net)
{
	struct request_chunk *chunk, *next;

	if (!net)
		return;
	assert(net_is_stopped(net) && cds_list_empty(&net->links));
	loop_hook_disarm(net->loop, &net->flush);
	cds_list_for_each_entry_safe(chunk, next, &net->request_chunks, link) {
		free(chunk);
	}
	free(net->group);
	free(net);
}

void net_group(struct net *const *nets, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct net **group = calloc(count, sizeof(struct net *));
		if (group)
			memcpy(group, nets, count * sizeof(struct net *));
		free(nets[i]->group);
		nets[i]->group = group;
		nets[i]->group_count = group ? count : 0;
	}
}

void net_set_identity(struct net *net, const struct wire_identity *identity)
{
	net->identity = *identity;
}

const struct wire_identity *net_identity(const struct net *net)
{
	return &net->identity;
}

struct loop *net_loop(const struct net *net)
{
	return net->loop;
}

void net_set_silence(struct net *net, uint64_t silence_ns)
{
	net->options.silence_ns = silence_ns;
}

const struct net_stats *net_stats(const struct net *net)
{
	return &net->stats;
}

void net_stop(struct net *net)
{
	net->is_stopping = true;
	net_listeners_stop_all(net);
	net_session_stop_all(net);
	net_link_stop_all(net);
}

bool net_is_stopped(struct net *net)
{
	return cds_list_empty(&net->listeners) && cds_list_empty(&net->sessions) &&
	       net->stream_count == 0 && net->busy == 0 &&
	       __atomic_load_n(&net->incoming, __ATOMIC_ACQUIRE) == 0;
}

int net_serve(struct net *net, const struct net_service *service)
{
	if (net_find_service(net, service->protocol->magic))
		return -EEXIST;
	if (net->service_count == NET_SERVICES_MAX)
		return -ENOMEM;
	net->services[net->service_count++] = *service;
	return 0;
}

const struct net_service *net_find_service(const struct net *net, uint32_t magic)
{
	for (unsigned i = 0; i < net->service_count; i++)
		if (net->services[i].protocol->magic == magic)
			return &net->services[i];
	return NULL;
}

static void grow_requests(struct net *net)
{
	struct request_chunk *chunk = calloc(1, sizeof(*chunk));

	if (!chunk)
		return;
	cds_list_add(&chunk->link, &net->request_chunks);
	for (unsigned i = 0; i < REQUESTS_PER_CHUNK; i++)
		cds_list_add(&chunk->requests[i].link, &net->request_spares);
}

struct net_request *net_request_new(struct net *net)
{
	if (cds_list_empty(&net->request_spares))
		grow_requests(net);
	if (cds_list_empty(&net->request_spares))
		return NULL;
	struct net_request *request =
		cds_list_first_entry(&net->request_spares, struct net_request, link);
	cds_list_del(&request->link);
	return request;
}

void net_request_free(struct net *net, struct net_request *request)
{
	cds_list_add(&request->link, &net->request_spares);
}
