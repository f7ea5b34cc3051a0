/*
 * What all connections share: callbacks with their defaults, limits, and the two tables.
 *
 * A row is found without a search: numbers of the standard by index, vendor commands by the low
 * byte, vendor options in a hash of fixed size. A number has one row for ever; the standard's come
 * first, so an embedder cannot replace what every client relies on.
 */
#include "lib/nbd/nbd_priv.h"

#include <stdlib.h>

#include "lib/base/assert.h"
#include "lib/base/size.h"

static const struct nbd_limits default_limits = {
	.payload_max = 32 * MIB,
	.in_flight_max = 256,
	.in_flight_bytes_max = 64 * MIB,
	.options_max = 1024,
	.option_bytes_max = 4 * MIB,
	.list_max = 100000,
};

static bool is_vendor_option(uint32_t number)
{
	return number >= NBD_OPT_VENDOR_FIRST && number <= NBD_OPT_VENDOR_LAST;
}

static bool is_vendor_command(uint16_t number)
{
	return number >= NBD_CMD_VENDOR_FIRST && number <= NBD_CMD_VENDOR_LAST;
}

/* The slot of a vendor option: its own, or the free one where it belongs. */
static uint32_t option_slot(const struct nbd_server *server, uint32_t number)
{
	uint32_t slot = number * 2654435761u >> 16;

	for (;; slot++) {
		slot &= NBD_OPTIONS_VENDOR - 1;
		const struct nbd_option *row = server->vendor_options[slot];
		if (!row || row->number == number)
			return slot;
	}
}

const struct nbd_option *nbd_server_option(const struct nbd_server *server, uint32_t number)
{
	if (number < NBD_OPTIONS_LOW)
		return server->options[number];
	if (is_vendor_option(number))
		return server->vendor_options[option_slot(server, number)];
	return NULL;
}

const struct nbd_command *nbd_server_command(const struct nbd_server *server, uint16_t number)
{
	if (number < NBD_COMMANDS_LOW)
		return server->commands[number];
	if (is_vendor_command(number))
		return server->vendor_commands[number - NBD_CMD_VENDOR_FIRST];
	return NULL;
}

static bool option_is_sound(const struct nbd_option *option)
{
	bool has_answer = option->handle || option->reply_type;
	bool fits = option->length_min <= option->length_max &&
		    option->length_max <= NBD_OPTION_DATA_MAX;

	return option->name && has_answer && fits && option->phases;
}

int nbd_server_add_option(struct nbd_server *server, const struct nbd_option *option)
{
	bool is_vendor = is_vendor_option(option->number);

	if ((option->number >= NBD_OPTIONS_LOW && !is_vendor) || !option_is_sound(option))
		return -EINVAL;
	if (nbd_server_option(server, option->number))
		return -EEXIST;
	if (!is_vendor) {
		server->options[option->number] = option;
		return 0;
	}
	/* Half of the slots stay free, so that every search ends soon. */
	if (server->vendor_option_count == NBD_OPTIONS_VENDOR / 2)
		return -ENOSPC;
	server->vendor_options[option_slot(server, option->number)] = option;
	server->vendor_option_count++;
	return 0;
}

static bool command_is_sound(const struct nbd_command *command)
{
	uint16_t with_length = NBD_COMMAND_PAYLOAD | NBD_COMMAND_DATA;

	if (!command->name)
		return false;
	/* What has length bytes on the wire must bound them, or a client names any number. */
	return !(command->traits & with_length) || (command->traits & NBD_COMMAND_BOUNDED);
}

int nbd_server_add_command(struct nbd_server *server, const struct nbd_command *command)
{
	bool is_vendor = is_vendor_command(command->number);

	if ((command->number >= NBD_COMMANDS_LOW && !is_vendor) || !command_is_sound(command))
		return -EINVAL;
	if (nbd_server_command(server, command->number))
		return -EEXIST;
	if (is_vendor)
		server->vendor_commands[command->number - NBD_CMD_VENDOR_FIRST] = command;
	else
		server->commands[command->number] = command;
	return 0;
}

/* ---- defaults of callbacks: one export ---- */

static void open_only_export(struct nbd_listener *listener, const char *name,
			     enum nbd_open_purpose purpose)
{
	const struct nbd_export *export = nbd_listener_server(listener)->callbacks.export;
	bool is_it = export && (!*name || (export->name && strcmp(name, export->name) == 0));

	nbd_listener_open_done(listener, is_it ? 0 : -ENOENT, is_it ? export : NULL, NULL);
}

static void list_only_export(struct nbd_listener *listener, uint64_t *cursor)
{
	const struct nbd_export *export = nbd_listener_server(listener)->callbacks.export;
	int rc = -EPERM;

	if (export)
		rc = nbd_listener_list_add(listener, export->name ? export->name : "",
					   export->description);
	if (rc == -EAGAIN)
		return;
	nbd_listener_list_done(listener, rc, NULL);
}

static void close_nothing(void *context, void *handle)
{
}

static void set_limits(struct nbd_limits *limits, const struct nbd_limits *wanted)
{
	const struct nbd_limits *d = &default_limits;
	struct nbd_limits w = wanted ? *wanted : (struct nbd_limits){0};

	*limits = (struct nbd_limits){
		.payload_max = w.payload_max ? w.payload_max : d->payload_max,
		.in_flight_max = w.in_flight_max ? w.in_flight_max : d->in_flight_max,
		.in_flight_bytes_max =
			w.in_flight_bytes_max ? w.in_flight_bytes_max : d->in_flight_bytes_max,
		.options_max = w.options_max ? w.options_max : d->options_max,
		.option_bytes_max = w.option_bytes_max ? w.option_bytes_max : d->option_bytes_max,
		.list_max = w.list_max ? w.list_max : d->list_max,
		.private_size = w.private_size,
	};
}

struct nbd_server *nbd_server_new(const struct nbd_callbacks *callbacks,
				  const struct nbd_limits *limits)
{
	struct nbd_server *server = calloc(1, sizeof(*server));
	struct nbd_callbacks *c;

	if (!server)
		return NULL;
	c = &server->callbacks;
	*c = *callbacks;
	assert(c->handle_request);
	assert(!c->alloc_request == !c->free_request);
	assert(!c->open || !c->export);
	if (!c->open)
		c->open = open_only_export;
	if (!c->list)
		c->list = list_only_export;
	if (!c->close)
		c->close = close_nothing;
	set_limits(&server->limits, limits);
	server->request_size = (uint32_t)round_up(
		round_up(sizeof(struct nbd_request), 16) + server->limits.private_size, 64);
	for (const struct nbd_option *row = nbd_standard_options; row->name; row++) {
		int rc = nbd_server_add_option(server, row);
		assert(rc == 0);
	}
	for (const struct nbd_command *row = nbd_standard_commands; row->name; row++) {
		int rc = nbd_server_add_command(server, row);
		assert(rc == 0);
	}
	return server;
}

void nbd_server_free(struct nbd_server *server)
{
	free(server);
}
