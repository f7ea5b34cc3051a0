/* Handles: a volume opened at one start of a node, until it is closed or that start ends. */
#include "tests/sim/workload_priv.h"

#include <stdlib.h>

static void on_opened(struct gateway_open *open, int result)
{
	struct handle *handle = container_of_type(open, struct handle, open);

	if (result < 0) {
		handle->state = HANDLE_NONE;
		return;
	}
	if (handle->state != HANDLE_OPENING) {
		gateway_close(open->volume);
		return;
	}
	handle->use = open->volume;
	handle->state = HANDLE_OPEN;
}

static void deliver_open(struct loop *loop, struct loop_mail *mail)
{
	struct handle *handle = container_of_type(mail, struct handle, mail);

	if (handle->state == HANDLE_OPENING)
		gateway_open(handle->node->gateway, &handle->open, handle->volume->name, 0);
}

static void deliver_close(struct loop *loop, struct loop_mail *mail)
{
	struct handle *handle = container_of_type(mail, struct handle, mail);

	if (handle->use)
		gateway_close(handle->use);
	handle->use = NULL;
	handle->state = HANDLE_NONE;
}

void workload_open_handle(struct volume *volume, struct herd_node *node)
{
	struct handle *handle = volume->handles[node->number];

	if (!handle) {
		handle = calloc(1, sizeof(*handle));
		assert(handle);
		handle->volume = volume;
		handle->node = node;
		handle->start = node->start;
		handle->client = volume->workload->next_client++;
		volume->handles[node->number] = handle;
	}
	if (handle->state != HANDLE_NONE)
		return;
	handle->state = HANDLE_OPENING;
	handle->open = (struct gateway_open){.done = on_opened};
	handle->mail.deliver = deliver_open;
	loop_post(node->loop, &handle->mail);
}

void workload_close_handle(struct handle *handle)
{
	if (!handle || handle->state != HANDLE_OPEN || handle->flying)
		return;
	handle->state = HANDLE_CLOSING;
	handle->mail.deliver = deliver_close;
	loop_post(handle->node->loop, &handle->mail);
}

/* A start of @node ends: nobody hears from its gateway any more. */
void workload_node_died(struct herd *herd, unsigned node)
{
	struct program *program = herd->context;
	struct workload *workload = program->workload;
	struct operation *operation, *next;

	cds_list_for_each_entry_safe(operation, next, &workload->operations, link) {
		if (operation->handle->node->number != node)
			continue;
		cds_list_del(&operation->link);
		operation->is_dead = true;
		if (operation->client)
			workload_next(operation->client);
	}
	for (unsigned v = 0; v < workload->volume_count; v++) {
		struct handle *handle = workload->volumes[v].handles[node];
		/* In a clean stop workload_close_volumes() gives it back. */
		if (workload_is_present(handle))
			handle->state = HANDLE_CLOSING;
	}
}

void workload_close_volumes(struct herd *herd, unsigned node)
{
	struct program *program = herd->context;

	for (unsigned v = 0; v < program->workload->volume_count; v++) {
		struct handle *handle = program->workload->volumes[v].handles[node];
		if (!workload_is_present(handle) || !handle->use)
			continue;
		gateway_close(handle->use);
		handle->use = NULL;
	}
}
