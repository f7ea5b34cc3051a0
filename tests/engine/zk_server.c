/* zk_server.h */
#include "tests/engine/zk_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define JAR "/usr/share/java/zookeeper.jar"

bool zk_server_is_installed(void)
{
	return access(JAR, R_OK) == 0 && access("/usr/bin/java", X_OK) == 0;
}

static int dial(unsigned port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

static bool is_ok(const struct zk_server *server)
{
	struct timeval patience = {.tv_sec = 1};
	char answer[8] = "";
	int fd = dial(server->port);
	bool ok = false;

	if (fd < 0)
		return false;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (write(fd, "ruok", 4) == 4)
		ok = read(fd, answer, 4) == 4 && memcmp(answer, "imok", 4) == 0;
	(void)close(fd);
	return ok;
}

static unsigned free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned port = 0;

	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	    getsockname(fd, (struct sockaddr *)&address, &length) == 0)
		port = ntohs(address.sin_port);
	(void)close(fd);
	return port;
}

bool zk_server_init(struct zk_server *server)
{
	char path[128];
	FILE *file;

	*server = (struct zk_server){.dir = "/tmp/sheepfold-zk.------"};
	memset(strchr(server->dir, '.') + 1, 'X', 6);
	if (!mkdtemp(server->dir))
		return false;
	server->port = free_port();
	(void)snprintf(path, sizeof(path), "%s/zoo.cfg", server->dir);
	file = fopen(path, "w");
	if (!file)
		return false;
	(void)fprintf(file,
		      "tickTime=250\ndataDir=%s/data\nclientPortAddress=127.0.0.1\n"
		      "clientPort=%u\nadmin.enableServer=false\nmaxClientCnxns=0\n"
		      "4lw.commands.whitelist=ruok\n",
		      server->dir, server->port);
	return fclose(file) == 0 && zk_server_start(server);
}

static void become_server(const struct zk_server *server)
{
	char config[128];
	int null = open("/dev/null", O_RDWR);

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)dup2(null, 0);
	(void)dup2(null, 1);
	(void)dup2(null, 2);
	(void)snprintf(config, sizeof(config), "%s/zoo.cfg", server->dir);
	(void)execl("/usr/bin/java", "java", "-Xmx192m", "-XX:+UseSerialGC",
		    "-XX:TieredStopAtLevel=1", "-cp", JAR,
		    "org.apache.zookeeper.server.quorum.QuorumPeerMain", config, (char *)NULL);
	_exit(127);
}

bool zk_server_start(struct zk_server *server)
{
	server->pid = fork();
	if (server->pid == 0)
		become_server(server);
	for (unsigned tries = 0; tries < 600; tries++) {
		if (is_ok(server))
			return true;
		usleep(100000);
	}
	return false;
}

void zk_server_signal(struct zk_server *server, int number)
{
	if (!server->pid)
		return;
	(void)kill(server->pid, number);
	if (number != SIGKILL)
		return;
	(void)waitpid(server->pid, NULL, 0);
	server->pid = 0;
}

void zk_server_done(struct zk_server *server)
{
	char command[128];

	zk_server_signal(server, SIGKILL);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", server->dir);
	if (strncmp(server->dir, "/tmp/sheepfold-zk.", 18) == 0)
		(void)!system(command);
}
