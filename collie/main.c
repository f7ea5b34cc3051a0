/* The program: collie_run() with the real world. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "collie/collie.h"

int main(int argc, char **argv)
{
	struct collie_io io = {
		.out = stdout,
		.err = stderr,
		.is_terminal = isatty(STDERR_FILENO),
		.sheep = getenv("COLLIE_SHEEP"),
	};

	/* A closed pipe is an error of write(2), not our end. */
	signal(SIGPIPE, SIG_IGN);
	return collie_run(argc, argv, &io);
}
