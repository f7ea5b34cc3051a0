/*
 * S0: whatever an engine does with a proposal, it is applied once. Every command that was accepted comes
 * again, as it was, after each other kind of change: nothing may happen, but to the index.
 *
 * Beside the numbers that make repetitions known (start and sequence), every command names what its
 * proposer saw. So the same command under a new number is tried, too: a proposer that gave up waiting
 * proposes anew what may have been done. Those in `may_repeat` wish for something that can be wished for
 * again; all others must find that they are void.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "tests/unit/cluster_dice.h"

#define COMMANDS 60000u
#define TRIES	 4u /* commands that come late after each one */

struct late {
	struct dice dice;
	struct script script;
	struct cluster_command *last[LOG_TYPE_END]; /* that was accepted */
	uint64_t pairs[LOG_TYPE_END][LOG_TYPE_END]; /* the first came again after the second */
	unsigned next[LOG_TYPE_END];		    /* who is late after this one, in turn */
	uint64_t anew[LOG_TYPE_END];
	bool is_busy;
};

static const bool may_repeat[LOG_TYPE_END] = {
	[LOG_SHUTDOWN] = true,	 /* of all that run now */
	[LOG_VOLUME_SET] = true, /* the volume was changed, though to the same */
};

/* All but the index, and which commands were decided. */
static uint32_t content(const struct cluster_map *map)
{
	uint8_t *data, *at;
	void *image;
	size_t size;
	uint32_t crc;

	assert_int_equal(cluster_encode(map, &image, &size), 0);
	data = image;
	struct log_image *head = image;
	at = data + sizeof(*head) +
	     from_le32(head->setting_count) * sizeof(struct log_image_setting) +
	     from_le32(head->policy_count) * sizeof(struct log_image_policy);
	for (uint32_t i = 0; i < from_le32(head->node_count); i++) {
		struct log_image_node *node = (void *)at;
		node->sequence = to_le64(0);
		memset(node->applied, 0, sizeof(node->applied));
		at += sizeof(*node);
	}
	head->index = to_le64(0);
	head->crc = to_le32(0);
	crc = crc32c(data, size);
	free(image);
	return crc;
}

static void must_do_nothing(struct late *late, const struct cluster_command *command,
			    const char *how)
{
	struct script *script = &late->script;
	const struct log_command *header = (const void *)command->data;
	uint32_t before = content(script->map);

	(void)script_apply(script, command->data, command->size);
	if (content(script->map) != before)
		fail_msg("%s %s, and did something",
			 cluster_command_name((enum log_type)from_le16(header->type)), how);
}

/* The same wish, as another proposal of the same start. */
static void propose_anew(struct late *late, unsigned type)
{
	const struct log_command *header = (const void *)late->last[type]->data;
	struct script *script = &late->script;

	for (uint32_t i = 1; i <= script->node_count; i++)
		if (script->nodes[i].proposer.start == from_le64(header->start)) {
			struct cluster_proposer proposer = script->nodes[i].proposer;
			proposer.node = from_le32(header->node);
			cluster_command_sign(late->last[type], &proposer);
			script->nodes[i].proposer.sequence = proposer.sequence;
			must_do_nothing(late, late->last[type], "was proposed anew");
			late->anew[type]++;
			return;
		}
}

static void on_applied(struct script *script, const void *bytes, size_t size)
{
	struct late *late = script->context;
	struct cluster_result result = script->result;
	unsigned type = result.type;

	if (late->is_busy || result.status != PROTO_STATUS_OK)
		return;
	late->is_busy = true;
	memset(&script->result, 0, sizeof(script->result)); /* the caller looks at it */
	free(late->last[type]);
	late->last[type] = malloc(sizeof(*late->last[type]) + size);
	late->last[type]->size = (uint32_t)size;
	memcpy(late->last[type]->data, bytes, size);
	for (unsigned i = 0; i < TRIES; i++) {
		unsigned other = i ? late->next[type]++ % LOG_TYPE_END : type;
		if (!late->last[other])
			continue;
		must_do_nothing(late, late->last[other], "came again");
		late->pairs[other][type]++;
	}
	if (!may_repeat[type])
		propose_anew(late, type);
	cluster_result_done(&script->result);
	script->result = result;
	late->is_busy = false;
}

static void count_pairs(struct late *late)
{
	unsigned types = 0, pairs = 0;

	for (unsigned a = 1; a < LOG_TYPE_END; a++) {
		if (!late->last[a]) {
			/* A node that was removed would not come back as the same one, and there is
			 * but one level: both come twice in tests of their own. */
			assert_true(strcmp(cluster_command_name((enum log_type)a), "unknown") ==
					    0 ||
				    a == LOG_NODE_REMOVE || a == LOG_LEVEL);
			continue;
		}
		types++;
		assert_true(may_repeat[a] || late->anew[a] > 0);
		for (unsigned b = 1; b < LOG_TYPE_END; b++) {
			/* A cluster is formatted once, before anything else can be late. */
			if (!late->last[b] || b == LOG_FORMAT)
				continue;
			if (!late->pairs[a][b])
				fail_msg("%s was never late after %s",
					 cluster_command_name((enum log_type)a),
					 cluster_command_name((enum log_type)b));
			pairs++;
		}
	}
	print_message("%u types, %u pairs\n", types, pairs);
}

static void test_what_was_applied_does_nothing_when_it_comes_again(void **state)
{
	struct late *late = calloc(1, sizeof(*late));

	(void)state;
	script_start(&late->script);
	late->script.image_every = 0;
	late->script.is_quick = true;
	late->script.context = late;
	late->script.applied_one = on_applied;
	dice_start(&late->dice, &late->script, 11);
	for (unsigned i = 0; i < COMMANDS; i++)
		dice_do_something(&late->dice);
	count_pairs(late);
	script_stop(&late->script);
	for (unsigned type = 0; type < LOG_TYPE_END; type++)
		free(late->last[type]);
	free(late);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_applied_does_nothing_when_it_comes_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
