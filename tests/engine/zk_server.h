/* A ZooKeeper server of this test, on a free port of the loopback. */
#ifndef TESTS_ENGINE_ZK_SERVER_H
#define TESTS_ENGINE_ZK_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct zk_server {
	char dir[64];
	unsigned port;
	pid_t pid; /* 0: it does not run */
};

/* Is there one to be had? */
bool zk_server_is_installed(void);
/* A directory and a port; then start. False: it does not answer within its deadline. */
bool zk_server_init(struct zk_server *server);
bool zk_server_start(struct zk_server *server);
void zk_server_signal(struct zk_server *server, int number); /* SIGKILL waits for its end */
void zk_server_done(struct zk_server *server);

#endif
