/*
 * The admin ops of a sheep over a made-up network: requests are handed to the handlers as lib/net would, and what they
 * answer is kept. The other sheep say nothing.
 */
#ifndef TESTS_UNIT_ADMIN_BENCH_H
#define TESTS_UNIT_ADMIN_BENCH_H

#include <json-c/json.h>

#include "include/proto/admin.h"
#include "sheep/service/node_priv.h"
#include "tests/unit/service_rig.h"

struct admin_question {
	struct net_request request;
	struct admin_request body;
	int replies;
	int status;
	uint32_t flags;
	char text[ADMIN_REPLY_MAX];
};

struct admin_bench {
	struct rig *rig;
	struct settings settings;
	struct worker worker;
	struct node node;
	struct admin_question question;
};

/* For cmocka: the state of a test is a bench with one sheep that is not formatted. */
int admin_bench_setup(void **state);
int admin_bench_teardown(void **state);

/*
 * @deadline_ms: as the client tells it; 0: none, and the answer is waited for.
 */
void admin_bench_send(struct admin_bench *bench, struct admin_question *question, uint16_t op,
		      const void *payload, size_t size, uint32_t deadline_ms);
/* Ask, and give the answer's document; the caller's. */
struct json_object *admin_bench_ask(struct admin_bench *bench, uint16_t op, const char *arguments);
/* Of a key that must be there. */
const char *admin_bench_text(struct json_object *document, const char *key);
/* It is answered with this status; a refusal has its words. */
void admin_bench_expect(struct admin_bench *bench, uint16_t op, const char *arguments, int status);
void admin_bench_format(struct admin_bench *bench);
/* From now on figures tell of PGs 0 to @count - 1, 16 at first; each layer holds as many blocks as its id says. */
void admin_bench_count_pgs(uint32_t count);
/* Figures asked for since. */
unsigned admin_bench_questions(void);
bool admin_bench_is_served(uint16_t op);

#endif
