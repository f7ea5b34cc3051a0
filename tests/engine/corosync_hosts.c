/* corosync_hosts.h */
#include "tests/engine/corosync_hosts.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <corosync/quorum.h>

#define COROSYNC "/usr/sbin/corosync"

static int sh(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int sh(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

/* A process that does nothing but be in a network namespace. */
static pid_t hold(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			(void)pause();
	}
	(void)close(ready[1]);
	if (pid > 0 && read(ready[0], &byte, 1) != 1)
		pid = -1;
	(void)close(ready[0]);
	return pid;
}

static bool write_config(const struct corosync_hosts *hosts, unsigned host)
{
	char path[128];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%u", hosts->dir, host);
	if (mkdir(path, 0700) < 0)
		return false;
	(void)snprintf(path, sizeof(path), "%s/%u/corosync.conf", hosts->dir, host);
	file = fopen(path, "w");
	if (!file)
		return false;
	(void)fprintf(file,
		      "totem {\n\tversion: 2\n\tcluster_name: sheepfold\n\ttransport: udpu\n"
		      "\ttoken: 800\n\ttoken_coefficient: 0\n\tconsensus: 960\n}\n"
		      "quorum {\n\tprovider: corosync_votequorum\n}\n"
		      "system {\n\tstate_dir: %s/%u\n}\n"
		      "logging {\n\tto_stderr: yes\n\tto_syslog: no\n\tto_logfile: no\n}\n"
		      "nodelist {\n",
		      hosts->dir, host);
	for (unsigned i = 0; i < hosts->count; i++)
		(void)fprintf(file, "\tnode {\n\t\tring0_addr: 10.77.0.%u\n\t\tnodeid: %u\n\t}\n",
			      i + 1, i + 1);
	(void)fprintf(file, "}\n");
	return fclose(file) == 0;
}

static const char *make_host(struct corosync_hosts *hosts, unsigned host)
{
	char path[64];
	pid_t pid = hold();

	if (pid < 0)
		return "a network namespace cannot be made";
	hosts->hosts[host].holder = pid;
	(void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	hosts->hosts[host].net = open(path, O_RDONLY | O_CLOEXEC);
	if (hosts->hosts[host].net < 0 ||
	    sh("ip link add host%u type veth peer name eth0 netns %d", host, (int)pid) != 0 ||
	    sh("ip link set host%u master bridge up", host) != 0 ||
	    sh("nsenter -t %d -n sh -c 'ip link set lo up && ip addr add 10.77.0.%u/24 dev eth0 && "
	       "ip link set eth0 up'",
	       (int)pid, host + 1) != 0)
		return "virtual networks cannot be made";
	return write_config(hosts, host) ? NULL : "no directory";
}

const char *corosync_hosts_init(struct corosync_hosts *hosts, unsigned count)
{
	const char *why = NULL;

	*hosts = (struct corosync_hosts){.count = count, .dir = "/tmp/sheepfold-cpg.XXXXXX"};
	if (access(COROSYNC, X_OK) < 0)
		return "corosync is not installed";
	if (geteuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		return "namespaces may not be made (not root?)";
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", "/run", "tmpfs", 0, NULL) < 0 ||
	    mount("none", "/dev/shm", "tmpfs", 0, NULL) < 0)
		return "file systems may not be mounted";
	if (!mkdtemp(hosts->dir))
		return "no directory under /tmp";
	if (sh("ip link set lo up && ip link add bridge type bridge && ip link set bridge up") != 0)
		return "virtual networks cannot be made (package iproute2)";
	for (unsigned i = 0; i < count && !why; i++)
		why = make_host(hosts, i);
	return why;
}

void corosync_hosts_enter(const struct corosync_hosts *hosts, unsigned host)
{
	if (setns(hosts->hosts[host].net, CLONE_NEWNET) < 0)
		abort();
}

/* Does it answer? In a child, which may enter its namespace. */
static bool is_serving(const struct corosync_hosts *hosts, unsigned host)
{
	pid_t pid = fork();
	int status = 1;

	if (pid == 0) {
		quorum_callbacks_t callbacks = {0};
		quorum_handle_t handle;
		uint32_t type;

		(void)alarm(2);
		corosync_hosts_enter(hosts, host);
		_exit(quorum_initialize(&handle, &callbacks, &type) != CS_OK);
	}
	(void)waitpid(pid, &status, 0);
	return status == 0;
}

static void become_corosync(const struct corosync_hosts *hosts, unsigned host)
{
	char config[128], log[128];
	int null = open("/dev/null", O_RDWR), out;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)snprintf(config, sizeof(config), "%s/%u/corosync.conf", hosts->dir, host);
	(void)snprintf(log, sizeof(log), "%s/%u/log", hosts->dir, host);
	out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	corosync_hosts_enter(hosts, host);
	/* Its pid file is /run/corosync.pid. */
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/run", "tmpfs", 0, NULL) < 0)
		_exit(126);
	(void)dup2(null, 0);
	(void)dup2(out, 1);
	(void)dup2(out, 2);
	(void)execl(COROSYNC, "corosync", "-f", "-c", config, (char *)NULL);
	_exit(127);
}

void corosync_hosts_start(struct corosync_hosts *hosts, unsigned host)
{
	pid_t pid = fork();

	if (pid == 0)
		become_corosync(hosts, host);
	hosts->hosts[host].corosync = pid;
	for (unsigned tries = 0; tries < 300; tries++) {
		if (is_serving(hosts, host))
			return;
		(void)usleep(50000);
	}
	(void)fprintf(stderr, "corosync of host %u does not start; its log:\n", host);
	(void)sh("tail -20 %s/%u/log >&2", hosts->dir, host);
	abort();
}

void corosync_hosts_start_all(struct corosync_hosts *hosts)
{
	for (unsigned n = 0; n < hosts->count; n++)
		if (!hosts->hosts[n].corosync)
			corosync_hosts_start(hosts, n);
}

void corosync_hosts_signal(struct corosync_hosts *hosts, unsigned host, int number)
{
	pid_t pid = hosts->hosts[host].corosync;

	if (!pid)
		return;
	(void)kill(pid, number);
	if (number != SIGKILL && number != SIGTERM)
		return;
	(void)waitpid(pid, NULL, 0);
	hosts->hosts[host].corosync = 0;
}

void corosync_hosts_cut(struct corosync_hosts *hosts, unsigned host, bool is_cut)
{
	(void)sh("ip link set host%u %s", host, is_cut ? "down" : "up");
}

/* Threads that call corosync's libraries, for connections that were given up. */
static bool has_callers(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	bool found = false;

	while (dir && (entry = readdir(dir))) {
		char path[300], name[16] = "";
		FILE *file;

		(void)snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file))
			found |= strncmp(name, "cpg-", 4) == 0 || strncmp(name, "host-", 5) == 0;
		(void)fclose(file);
	}
	if (dir)
		(void)closedir(dir);
	return found;
}

static void wait_for_callers(void)
{
	for (unsigned tries = 0; tries < 100 && has_callers(); tries++)
		(void)usleep(50000);
}

void corosync_hosts_done(struct corosync_hosts *hosts)
{
	wait_for_callers();
	for (unsigned i = 0; i < hosts->count; i++) {
		corosync_hosts_signal(hosts, i, SIGKILL);
		if (hosts->hosts[i].holder > 0) {
			(void)kill(hosts->hosts[i].holder, SIGKILL);
			(void)waitpid(hosts->hosts[i].holder, NULL, 0);
			(void)close(hosts->hosts[i].net);
		}
	}
	wait_for_callers(); /* of those that hung, until now */
	if (strncmp(hosts->dir, "/tmp/sheepfold-cpg.", 19) == 0 && !strchr(hosts->dir, 'X'))
		(void)sh("rm -rf '%s'", hosts->dir);
}

int corosync_hosts_run(struct corosync_hosts *hosts, unsigned count, int (*run)(void))
{
	const char *why = corosync_hosts_init(hosts, count);
	int failed;

	if (why) {
		corosync_hosts_done(hosts);
		(void)fprintf(stderr, "skipped: %s\n", why);
		return 77;
	}
	if (getenv("TEST_ONLY"))
		cmocka_set_test_filter(getenv("TEST_ONLY"));
	failed = run();
	corosync_hosts_done(hosts);
	return failed != 0;
}
