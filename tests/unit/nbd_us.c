#include "tests/unit/nbd_us.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void on_wake(struct nbd_host *host)
{
}

static void on_listed(void *context, const char *name, const char *description)
{
	struct us *us = context;
	size_t used = strlen(us->listed);

	(void)snprintf(us->listed + used, sizeof(us->listed) - used, "%s=%s;", name, description);
}

void us_init(struct us *us, enum nbd_goal goal, const char *name)
{
	struct nbd_connector_options options = {.goal = goal, .name = name, .listed = on_listed};

	*us = (struct us){.host = {.wake = on_wake, .context = us}};
	us->connector = nbd_connector_new(&options, &us->host);
	assert_non_null(us->connector);
}

void us_done(struct us *us)
{
	nbd_connector_free(us->connector);
	if (us->client)
		nbd_client_close(us->client);
	nbd_client_free(us->client);
	blob_free(&us->out);
}

void us_send(struct us *us, size_t step)
{
	struct iovec iov[5];
	unsigned count;

	while (nbd_connector_output(us->connector, iov, 1) > 0) {
		size_t n = min_of(iov[0].iov_len, step);
		blob_append(&us->out, iov[0].iov_base, n);
		nbd_connector_sent(us->connector, n);
	}
	while (us->client && (count = nbd_client_output(us->client, iov, 5)) > 0) {
		size_t sent = 0;
		for (unsigned i = 0; i < count && sent < step; i++) {
			size_t n = min_of(iov[i].iov_len, step - sent);
			blob_append(&us->out, iov[i].iov_base, n);
			sent += n;
		}
		nbd_client_sent(us->client, sent);
	}
}

size_t us_feed(struct us *us, const uint8_t *data, size_t size)
{
	size_t n = 0;

	if (nbd_connector_state(us->connector) != NBD_CONNECTOR_DONE)
		n = nbd_connector_feed(us->connector, data, size);
	if (us->client) {
		nbd_client_feed(us->client, data + n, size - n);
		n = size;
	}
	return n;
}

enum nbd_connector_state us_state(const struct us *us)
{
	return nbd_connector_state(us->connector);
}
