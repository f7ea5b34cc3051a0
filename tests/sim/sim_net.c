/*
 * Packets and links: what is sent from one end arrives at the other in order,
 * each packet after a delay drawn from its link. A packet that arrives over a
 * cut link, or at a machine without power, is held until that changes, as
 * retransmissions would bring it.
 */
#include <stdlib.h>

#include "lib/base/assert.h"
#include "tests/sim/sim_net.h"

static void on_arrival(struct sim_event *event);

static void send_off(struct sim_packet *packet)
{
	struct sim_world *world = packet->via->from->world;
	uint64_t delay_ns =
		sim_between(world, packet->via->delay_min_ns, packet->via->delay_max_ns);
	uint64_t time_ns = max_of(world->now_ns + delay_ns, packet->from->last_arrival_ns + 1);

	packet->from->last_arrival_ns = time_ns;
	sim_schedule(world, &packet->event, time_ns);
}

struct sim_packet *sim_send_packet(enum sim_packet_kind kind, struct sim_socket *from,
				   struct sim_socket *to, struct sim_link *via, uint32_t size)
{
	struct sim_packet *packet = malloc(sizeof(*packet) + size);

	assert(packet);
	*packet = (struct sim_packet){
		.event.run = on_arrival,
		.via = via,
		.kind = kind,
		.from = sim_socket_get(from),
		.to = to ? sim_socket_get(to) : NULL,
		.size = size,
	};
	CDS_INIT_LIST_HEAD(&packet->held);
	cds_list_add_tail(&packet->link, &via->from->world->packets);
	send_off(packet);
	return packet;
}

void sim_packet_free(struct sim_packet *packet)
{
	sim_unschedule(packet->via->from->world, &packet->event);
	cds_list_del(&packet->link);
	cds_list_del(&packet->held);
	sim_socket_put(packet->from);
	sim_socket_put(packet->to);
	free(packet);
}

struct sim_link *sim_link_between(struct sim_process *from, struct sim_process *to)
{
	return &from->host->links[to->host->index];
}

static bool is_passable(const struct sim_link *link)
{
	return !link->is_cut && link->to->is_up;
}

static void on_arrival(struct sim_event *event)
{
	struct sim_packet *packet = container_of_type(event, struct sim_packet, event);

	sim_trace_note(packet->via->from->world, packet->kind * 1000003ull + packet->size);
	if (is_passable(packet->via))
		sim_packet_arrive(packet);
	else
		cds_list_add_tail(&packet->held, &packet->via->held);
}

static void release_link(struct sim_link *link)
{
	struct sim_packet *packet, *next;

	if (!is_passable(link))
		return;
	cds_list_for_each_entry_safe(packet, next, &link->held, held) {
		cds_list_del(&packet->held);
		CDS_INIT_LIST_HEAD(&packet->held);
		send_off(packet);
	}
}

void sim_net_release(struct sim_host *host)
{
	for (unsigned i = 0; i < host->world->host_count; i++)
		release_link(&host->world->hosts[i]->links[host->index]);
}

void sim_net_init(struct sim_host *host)
{
	struct sim_world *world = host->world;

	host->next_port = 32768;
	for (unsigned i = 0; i < world->host_count; i++) {
		struct sim_link *out = &host->links[i];
		struct sim_link *in = &world->hosts[i]->links[host->index];

		*out = (struct sim_link){.from = host, .to = world->hosts[i]};
		*in = (struct sim_link){.from = world->hosts[i], .to = host};
		CDS_INIT_LIST_HEAD(&out->held);
		CDS_INIT_LIST_HEAD(&in->held);
	}
}

void sim_net_done(struct sim_world *world)
{
	struct sim_packet *packet, *next;

	cds_list_for_each_entry_safe(packet, next, &world->packets, link)
		sim_packet_free(packet);
}

/* ---- what scenarios do to links ---- */

void sim_link_set_delay(struct sim_host *from, struct sim_host *to, uint64_t min_ns,
			uint64_t max_ns)
{
	struct sim_link *link = &from->links[to->index];

	assert(min_ns <= max_ns);
	link->delay_min_ns = min_ns;
	link->delay_max_ns = max_ns;
}

void sim_link_cut(struct sim_host *from, struct sim_host *to)
{
	from->links[to->index].is_cut = true;
}

void sim_link_heal(struct sim_host *from, struct sim_host *to)
{
	struct sim_link *link = &from->links[to->index];

	link->is_cut = false;
	release_link(link);
}

void sim_partition(struct sim_host *a, struct sim_host *b)
{
	sim_link_cut(a, b);
	sim_link_cut(b, a);
}

void sim_unpartition(struct sim_host *a, struct sim_host *b)
{
	sim_link_heal(a, b);
	sim_link_heal(b, a);
}

void sim_reset_streams(struct sim_host *a, struct sim_host *b)
{
	struct sim_process *process;
	struct sim_socket *socket;

	cds_list_for_each_entry(process, &a->processes, link)
		cds_list_for_each_entry(socket, &process->sockets, link)
			if (socket->peer && socket->peer->process->host == b) {
				sim_socket_reset(socket->peer);
				sim_socket_reset(socket);
			}
}
