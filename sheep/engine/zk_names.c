/*
 * The names of servers, as addresses.
 *
 * getaddrinfo() may wait for long. So it is called where waiting is allowed, at the start, and later on
 * a thread of its own that answers by mail:
 *
 *   RUNNING --the thread is through--> POSTED --mail--> gone, with `done`
 *      |                                 |
 *      +--give up--> LEFT                +--give up--> LEFT --mail--> gone
 *                     |
 *                     +--the thread is through--> gone
 */
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/size.h"
#include "sheep/engine/zk_priv.h"

#define HOST_MAX 256

enum lookup_state { LOOKUP_RUNNING, LOOKUP_POSTED, LOOKUP_LEFT };

struct zk_lookup {
	struct loop_mail mail;
	struct loop *loop;
	pthread_mutex_t mutex; /* for `state` */
	enum lookup_state state;
	char hosts[ZK_HOSTS_MAX];
	struct zk_addresses addresses;
	zk_lookup_done *done;
	struct zk *zk;
};

/* ---- one name ---- */

static void add(struct zk_addresses *out, const struct addrinfo *info)
{
	char host[NI_MAXHOST], port[NI_MAXSERV], text[LOOP_ADDRESS_MAX];
	bool is_v6 = info->ai_family == AF_INET6;

	if (getnameinfo(info->ai_addr, info->ai_addrlen, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0 ||
	    snprintf(text, sizeof(text), is_v6 ? "[%s]:%s" : "%s:%s", host, port) >=
		    (int)sizeof(text) ||
	    loop_address_check(text, NULL) < 0)
		return;
	for (uint32_t i = 0; i < out->count; i++)
		if (strcmp(out->text[i], text) == 0)
			return;
	if (out->count < ZK_ADDRESSES_MAX)
		memcpy(out->text[out->count++], text, sizeof(text));
}

/* HOST:PORT, with or without the brackets of IPv6. */
static bool resolve_one(const char *text, size_t length, int flags, struct zk_addresses *out)
{
	const struct addrinfo hints = {
		.ai_flags = flags, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char copy[HOST_MAX], *host = copy, *port;

	if (length >= sizeof(copy))
		return false;
	memcpy(copy, text, length);
	copy[length] = '\0';
	port = strrchr(copy, ':');
	if (!port)
		return false;
	*port++ = '\0';
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		host++;
	}
	if (getaddrinfo(host, port, &hints, &list) != 0)
		return false;
	for (const struct addrinfo *at = list; at && out; at = at->ai_next)
		add(out, at);
	freeaddrinfo(list);
	return true;
}

bool zk_names_are_numeric(const char *hosts)
{
	for (const char *at = hosts; *at; at += strspn(at, ",")) {
		size_t length = strcspn(at, ",");
		if (!resolve_one(at, length, AI_NUMERICHOST, NULL))
			return false;
		at += length;
	}
	return true;
}

void zk_names_resolve(const char *hosts, struct zk_addresses *out)
{
	*out = (struct zk_addresses){0};
	for (const char *at = hosts; *at; at += strspn(at, ",")) {
		size_t length = strcspn(at, ",");
		(void)resolve_one(at, length, AI_ADDRCONFIG, out);
		at += length;
	}
	if (!out->count) /* a host without a network has its loopback all the same */
		for (const char *at = hosts; *at; at += strspn(at, ",")) {
			size_t length = strcspn(at, ",");
			(void)resolve_one(at, length, 0, out);
			at += length;
		}
}

/* ---- on a thread ---- */

static void lookup_free(struct zk_lookup *lookup)
{
	(void)pthread_mutex_destroy(&lookup->mutex);
	free(lookup);
}

static void deliver(struct loop *loop, struct loop_mail *mail)
{
	struct zk_lookup *lookup = container_of_type(mail, struct zk_lookup, mail);
	bool is_left;

	(void)pthread_mutex_lock(&lookup->mutex); /* until the thread has let go of it */
	is_left = lookup->state == LOOKUP_LEFT;
	(void)pthread_mutex_unlock(&lookup->mutex);
	lookup->done(lookup->zk, is_left ? NULL : &lookup->addresses);
	lookup_free(lookup);
}

static void *run(void *context)
{
	struct zk_lookup *lookup = context;
	bool is_left;

	zk_names_resolve(lookup->hosts, &lookup->addresses);
	(void)pthread_mutex_lock(&lookup->mutex);
	is_left = lookup->state == LOOKUP_LEFT;
	if (!is_left) { /* under the mutex: who gives it up knows that the mail comes */
		lookup->state = LOOKUP_POSTED;
		lookup->mail.deliver = deliver;
		loop_post(lookup->loop, &lookup->mail);
	}
	(void)pthread_mutex_unlock(&lookup->mutex);
	if (is_left)
		lookup_free(lookup);
	return NULL;
}

/* Detached, and deaf to signals: they are the sheep's. */
static bool start_thread(struct zk_lookup *lookup)
{
	pthread_attr_t attributes;
	sigset_t all, old;
	pthread_t thread;
	int rc;

	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&thread, &attributes, run, lookup);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attributes);
	return rc == 0;
}

struct zk_lookup *zk_lookup_start(struct zk *zk, zk_lookup_done *done)
{
	struct zk_lookup *lookup = calloc(1, sizeof(*lookup));

	if (!lookup)
		return NULL;
	lookup->zk = zk;
	lookup->loop = zk->engine.loop;
	lookup->done = done;
	(void)snprintf(lookup->hosts, sizeof(lookup->hosts), "%s", zk->hosts);
	(void)pthread_mutex_init(&lookup->mutex, NULL);
	if (start_thread(lookup))
		return lookup;
	lookup_free(lookup);
	return NULL;
}

bool zk_lookup_give_up(struct zk_lookup *lookup)
{
	bool is_posted;

	(void)pthread_mutex_lock(&lookup->mutex);
	is_posted = lookup->state == LOOKUP_POSTED;
	lookup->state = LOOKUP_LEFT;
	(void)pthread_mutex_unlock(&lookup->mutex); /* from here on the thread may free it */
	return !is_posted;
}
