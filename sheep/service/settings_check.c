#include "sheep/service/settings_check.h"

#include <string.h>

#include "lib/base/text.h"
#include "lib/loop/loop.h"

int settings_check_path(const char *value, struct error *err)
{
	if (strlen(value) >= 4096)
		return error_set(err, -E_USAGE, "the path has more than 4095 bytes");
	return 0;
}

int settings_check_name(const char *value, struct error *err)
{
	if (strlen(value) > SETTINGS_NAME_MAX)
		return error_set(err, -E_USAGE, "'%s' has more than %u bytes", value,
				 SETTINGS_NAME_MAX);
	if (!text_is_clean(value, strlen(value)))
		return error_set(err, -E_USAGE, "the name is not clean UTF-8");
	return 0;
}

int settings_check_address(const char *value, struct error *err)
{
	return loop_address_check(value, err) < 0 ? error_recode(err, -E_USAGE) : 0;
}

int settings_check_tcp(const char *value, struct error *err)
{
	if (loop_address_is_unix(value))
		return error_set(err, -E_USAGE, "'%s': ADDR:PORT is needed here", value);
	return settings_check_address(value, err);
}

/* Others dial what a sheep registers: a wildcard leads nowhere. */
int settings_check_peer(const char *value, struct error *err)
{
	if (strncmp(value, "0.0.0.0:", 8) == 0 || strncmp(value, "[::]:", 5) == 0)
		return error_set(err, -E_USAGE,
				 "'%s': name the address by which other sheep reach this one",
				 value);
	return settings_check_tcp(value, err);
}

/* HOST:PORT[,HOST:PORT]...[/ROOT] */
static int check_zookeeper(const char *servers, struct error *err)
{
	const char *end = strchrnul(servers, '/');

	for (const char *p = servers; p <= end; p++) {
		char server[256];
		size_t length = strcspn(p, ",/");
		if (length >= sizeof(server))
			return error_set(err, -E_USAGE, "zookeeper: a host name is too long");
		memcpy(server, p, length);
		server[length] = '\0';

		uint64_t port;
		const char *colon = strrchr(server, ':');
		if (!colon || colon == server || text_parse_u64(colon + 1, 65535, &port) < 0 ||
		    port == 0)
			return error_set(err, -E_USAGE, "zookeeper: '%s' is not HOST:PORT", server);
		p += length;
	}
	return 0;
}

int settings_check_cluster(const char *value, struct error *err)
{
	if (strncmp(value, "local:", 6) == 0) {
		if (!value[6])
			return error_set(err, -E_USAGE, "local: the directory is missing");
		return settings_check_path(value + 6, err);
	}
	if (strcmp(value, "corosync") == 0)
		return 0;
	if (strncmp(value, "corosync:", 9) == 0) {
		if (!value[9])
			return error_set(err, -E_USAGE, "corosync: the channel is missing");
		return settings_check_name(value + 9, err);
	}
	if (strncmp(value, "zookeeper:", 10) == 0)
		return check_zookeeper(value + 10, err);
	return error_set(err, -E_USAGE,
			 "'%s': no such engine; there are local:DIR, corosync[:CHANNEL] and "
			 "zookeeper:HOST:PORT[,HOST:PORT]...[/ROOT]",
			 value);
}

int settings_check_metrics(const char *value, struct error *err)
{
	return error_set(err, -E_USAGE, "metrics are not in this version yet");
}

int settings_check_tls(const char *value, struct error *err)
{
	return error_set(err, -E_USAGE, "TLS is not in this version yet");
}
