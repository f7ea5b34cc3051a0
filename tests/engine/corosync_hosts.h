/*
 * Several hosts with a corosync each, on this machine: network namespaces on a bridge. All of it lives in
 * namespaces of this process and is gone with it.
 */
#ifndef TESTS_ENGINE_COROSYNC_HOSTS_H
#define TESTS_ENGINE_COROSYNC_HOSTS_H

#include <stdbool.h>
#include <sys/types.h>

#define HOSTS_MAX 6

struct corosync_hosts {
	char dir[64];
	unsigned count;
	struct {
		pid_t holder;	/* of the namespace */
		pid_t corosync; /* 0: it does not run */
		int net;	/* the namespace */
	} hosts[HOSTS_MAX];
};

/*
 * Make @count hosts, without starting their corosyncs. NULL, or why it cannot be done here: a reason to
 * skip. Moves this process into namespaces of its own, so do it first.
 */
const char *corosync_hosts_init(struct corosync_hosts *hosts, unsigned count);
/* Start the corosync of a host; it serves when this returns. Fails the test if it does not. */
void corosync_hosts_start(struct corosync_hosts *hosts, unsigned host);
/* Of all hosts where none runs. */
void corosync_hosts_start_all(struct corosync_hosts *hosts);
/* To the corosync of a host; SIGKILL and SIGTERM wait for its end. */
void corosync_hosts_signal(struct corosync_hosts *hosts, unsigned host, int number);
/* Cut a host off from the others, or join it again. */
void corosync_hosts_cut(struct corosync_hosts *hosts, unsigned host, bool is_cut);
/* Move this thread to a host: what it connects to is there. */
void corosync_hosts_enter(const struct corosync_hosts *hosts, unsigned host);
void corosync_hosts_done(struct corosync_hosts *hosts);

/*
 * For main(): tests that need @count hosts, whose corosyncs do not run yet. TEST_ONLY in the environment is a filter.
 *
 * @run: returns how many tests failed.
 *
 * Returns what to exit with: 77 where there can be no hosts.
 */
int corosync_hosts_run(struct corosync_hosts *hosts, unsigned count, int (*run)(void));

#endif
