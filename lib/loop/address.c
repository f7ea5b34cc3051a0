/* Addresses as text: "ADDR:PORT", "[ADDR6]:PORT", "unix:PATH". */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "lib/base/text.h"
#include "lib/loop/posix.h"

#define UNIX_PREFIX   "unix:"
#define UNIX_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

bool loop_address_is_unix(const char *address)
{
	return strncmp(address, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
}

static int parse_unix(const char *text, struct address *out, struct error *err)
{
	struct sockaddr_un *un = (void *)&out->storage;
	const char *path = text + strlen(UNIX_PREFIX);
	size_t length = strlen(path);

	if (length == 0)
		return error_set(err, -EINVAL, "address '%s' has no path", text);
	if (length > UNIX_PATH_MAX)
		return error_set(err, -EINVAL,
				 "the path of a unix socket may have at most %zu bytes, "
				 "'%s' has %zu; choose a shorter directory",
				 UNIX_PATH_MAX, path, length);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, length + 1);
	out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
	return 0;
}

static int parse_port(const char *text, const char *digits, in_port_t *out, struct error *err)
{
	uint64_t port;

	if (text_parse_u64(digits, UINT16_MAX, &port) < 0)
		return error_set(err, -EINVAL, "address '%s': '%s' is not a port (0 to 65535)",
				 text, digits);
	*out = htons((uint16_t)port);
	return 0;
}

static int parse_ip(const char *text, struct address *out, struct error *err)
{
	struct sockaddr_in *in4 = (void *)&out->storage;
	struct sockaddr_in6 *in6 = (void *)&out->storage;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 1];
	bool is_v6 = text[0] == '[';
	const char *from = text + is_v6;
	size_t length;

	if (!colon || (is_v6 && (colon == text || colon[-1] != ']')))
		goto bad;
	length = (size_t)(colon - from) - is_v6;
	if (length >= sizeof(host))
		goto bad;
	memcpy(host, from, length);
	host[length] = '\0';
	if (is_v6) {
		if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
			goto bad;
		in6->sin6_family = AF_INET6;
		out->length = sizeof(*in6);
		return parse_port(text, colon + 1, &in6->sin6_port, err);
	}
	if (inet_pton(AF_INET, host, &in4->sin_addr) != 1)
		goto bad;
	in4->sin_family = AF_INET;
	out->length = sizeof(*in4);
	return parse_port(text, colon + 1, &in4->sin_port, err);
bad:
	return error_set(err, -EINVAL,
			 "address '%s' is not ADDR:PORT (numeric, IPv6 in brackets) or unix:PATH",
			 text);
}

int address_parse(const char *text, struct address *out, struct error *err)
{
	memset(out, 0, sizeof(*out));
	return loop_address_is_unix(text) ? parse_unix(text, out, err) : parse_ip(text, out, err);
}

int loop_address_check(const char *address, struct error *err)
{
	struct address parsed;

	return address_parse(address, &parsed, err);
}

bool loop_address_is_loopback(const char *address)
{
	struct address parsed;

	if (loop_address_is_unix(address))
		return true;
	if (address_parse(address, &parsed, NULL) < 0)
		return false;
	if (parsed.storage.ss_family == AF_INET)
		return ntohl(((struct sockaddr_in *)&parsed.storage)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&parsed.storage)->sin6_addr);
}

void address_format(const struct address *address, char *out)
{
	const struct sockaddr_in *in4 = (const void *)&address->storage;
	const struct sockaddr_in6 *in6 = (const void *)&address->storage;
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->storage.ss_family == AF_INET) {
		(void)inet_ntop(AF_INET, &in4->sin_addr, host, sizeof(host));
		(void)snprintf(out, LOOP_ADDRESS_MAX, "%s:%u", host, ntohs(in4->sin_port));
	} else if (address->storage.ss_family == AF_INET6) {
		(void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		(void)snprintf(out, LOOP_ADDRESS_MAX, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		(void)snprintf(out, LOOP_ADDRESS_MAX, "unix:");
	}
}
