/*
 * The commands of nbd_faulty: a table. Each fills server->answer, or gives an error.
 */
#include <string.h>

#include "lib/base/size.h"
#include "lib/base/text.h"
#include "tests/functional/faulty_server.h"

#define WORDS_MAX 8

static const char *const op_names[OP_COUNT] = {"read", "write", "flush"};

struct command {
	const char *name;
	const char *usage;
	int words_min;
	int words_max;
	int (*run)(struct server *server, char **words, int count, struct error *err);
};

/* The ops that a word names: 0 if it names none. */
static unsigned ops_of(const char *word)
{
	if (strcmp(word, "all") == 0)
		return BIT(OP_COUNT) - 1;
	for (unsigned i = 0; i < OP_COUNT; i++)
		if (strcmp(word, op_names[i]) == 0)
			return BIT(i);
	return 0;
}

static int parse_range(struct server *server, char **words, uint64_t *offset, uint64_t *length,
		       struct error *err)
{
	if (text_parse_size(words[0], offset) < 0 || text_parse_size(words[1], length) < 0 ||
	    *length == 0 || !range_is_within(*offset, *length, server->export.size))
		return error_set(err, -E_USAGE, "not a range of the disk: %s %s", words[0],
				 words[1]);
	return 0;
}

static int run_stats(struct server *server, char **words, int count, struct error *err)
{
	const struct faulty_disk_stats *stats = faulty_disk_stats(server->disk);
	struct text text = text_of(server->answer, sizeof(server->answer));

	text_append(&text, "ok writes=%llu flushes=%llu cached=%llu waiting=%llu failed=%llu\n",
		    (unsigned long long)stats->writes, (unsigned long long)stats->flushes,
		    (unsigned long long)stats->cached_bytes,
		    (unsigned long long)server->waiting_count,
		    (unsigned long long)server->failed_count);
	return 0;
}

static int run_hang(struct server *server, char **words, int count, struct error *err)
{
	unsigned ops = ops_of(count > 0 ? words[0] : "all");

	if (!ops)
		return error_set(err, -E_USAGE, "no such kind of request: %s", words[0]);
	for (unsigned i = 0; i < OP_COUNT; i++)
		server->is_hanging[i] |= (ops & BIT(i)) != 0;
	return 0;
}

static int run_release(struct server *server, char **words, int count, struct error *err)
{
	if (count > 0 && strcmp(words[0], "error") != 0)
		return error_set(err, -E_USAGE, "release [error]");
	server->is_dead = count > 0;
	faulty_release(server);
	return 0;
}

static int run_delay(struct server *server, char **words, int count, struct error *err)
{
	uint64_t us;

	if (text_parse_u64(words[0], 60 * 1000000ull, &us) < 0)
		return error_set(err, -E_USAGE, "not a time: %s", words[0]);
	server->delay_ns = us * NS_PER_US;
	return 0;
}

static int run_fail(struct server *server, char **words, int count, struct error *err)
{
	struct failure failure = {.length = server->export.size};
	unsigned ops = ops_of(words[0]);

	failure.error = strcmp(words[1], "EIO") == 0	  ? -EIO
			: strcmp(words[1], "ENOSPC") == 0 ? -ENOSPC
							  : 0;
	if (!ops || !failure.error || count == 3)
		return error_set(err, -E_USAGE, "fail KIND EIO|ENOSPC [OFFSET LENGTH]");
	if (count == 4 && parse_range(server, words + 2, &failure.offset, &failure.length, err) < 0)
		return err->code;
	for (unsigned i = 0; i < OP_COUNT; i++)
		if (ops & BIT(i))
			server->failures[i] = failure;
	return 0;
}

static int run_heal(struct server *server, char **words, int count, struct error *err)
{
	memset(server->failures, 0, sizeof(server->failures));
	server->delay_ns = 0;
	server->is_lying = false;
	return 0;
}

static int run_lie(struct server *server, char **words, int count, struct error *err)
{
	server->is_lying = true;
	return 0;
}

static int run_rot(struct server *server, char **words, int count, struct error *err)
{
	uint64_t offset, length;
	int rc = parse_range(server, words, &offset, &length, err);

	if (rc == 0)
		faulty_disk_rot(server->disk, offset, length);
	return rc;
}

static int run_cut(struct server *server, char **words, int count, struct error *err)
{
	static const char *const names[] = {
#define CUT_NAME(name, text, meaning) [FAULTY_CUT_##name] = (text),
		FAULTY_CUTS(CUT_NAME)
#undef CUT_NAME
	};
	struct text text = text_of(server->answer, sizeof(server->answer));
	struct faulty_report report;
	uint64_t seed;
	unsigned how = 0;
	int rc;

	while (how < FAULTY_CUT_COUNT && strcmp(words[0], names[how]) != 0)
		how++;
	if (how == FAULTY_CUT_COUNT || text_parse_u64(words[1], UINT64_MAX, &seed) < 0)
		return error_set(err, -E_USAGE, "cut none|all|random SEED FILE");
	faulty_freeze(server);
	rc = faulty_disk_cut(server->disk, (enum faulty_cut)how, seed, words[2], &report, err);
	if (rc == 0)
		text_append(&text, "ok unflushed=%llu lost=%llu\n",
			    (unsigned long long)report.unflushed, (unsigned long long)report.lost);
	return rc;
}

static const struct command commands[] = {
	{"stats", "stats", 0, 0, run_stats},
	{"hang", "hang [read|write|flush|all]", 0, 1, run_hang},
	{"release", "release [error]", 0, 1, run_release},
	{"delay", "delay MICROSECONDS", 1, 1, run_delay},
	{"fail", "fail read|write|flush|all EIO|ENOSPC [OFFSET LENGTH]", 2, 4, run_fail},
	{"heal", "heal", 0, 0, run_heal},
	{"lie", "lie", 0, 0, run_lie},
	{"rot", "rot OFFSET LENGTH", 2, 2, run_rot},
	{"cut", "cut none|all|random SEED FILE", 3, 3, run_cut},
};

void faulty_command(struct server *server)
{
	struct text text = text_of(server->answer, sizeof(server->answer));
	char *words[WORDS_MAX], *rest = server->command, *word;
	struct error err = {0};
	int count = 0, rc = -E_USAGE;

	while (count < WORDS_MAX && (word = strtok_r(rest, " \n", &rest)))
		words[count++] = word;
	server->answer[0] = 0;
	(void)error_set(&err, rc, "no such command");
	for (size_t i = 0; count && i < ARRAY_COUNT(commands); i++) {
		const struct command *command = &commands[i];

		if (strcmp(command->name, words[0]) != 0)
			continue;
		if (count - 1 < command->words_min || count - 1 > command->words_max)
			(void)error_set(&err, rc, "usage: %s", command->usage);
		else
			rc = command->run(server, words + 1, count - 1, &err);
		break;
	}
	if (rc < 0)
		text_append(&text, "error %s\n", err.text);
	else if (!server->answer[0])
		text_append(&text, "ok\n");
}
