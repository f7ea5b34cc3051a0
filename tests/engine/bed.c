/* Members under test and what they check (bed.h). */
#include "tests/engine/bed.h"

#include <stdio.h>

#include "lib/base/hash.h"

struct command {
	uint32_t member;
	uint32_t number;
};

struct image {
	uint64_t digest;
	uint64_t pad;
};

/* ---- the user ---- */

static struct member *user(void *context, enum moment moment)
{
	struct member *member = context;

	assert_false(member->bed->in_call); /* never inside a call */
	assert_false(member->has_left);
	assert_true(!member->is_leaving || moment == MOMENT_NEVER);
	if (moment != MOMENT_NEVER && member->leave_at == moment) {
		member->is_leaving = true;
		member->bed->in_call = true;
		engine_leave(member->engine);
		member->bed->in_call = false;
	}
	return member;
}

static void check_truth(struct member *member)
{
	struct bed *bed = member->bed;
	uint64_t slot = bed->slot ? bed->slot(member->index) : member->index;
	uint64_t *truth = &bed->truth[slot];

	assert_true(slot < BED_INDEX_MAX);
	if (!*truth)
		*truth = member->digest;
	assert_int_equal(*truth, member->digest);
}

static void note_commit(struct bed *bed, const struct command *command)
{
	struct member *owner = &bed->members[command->member];

	bed->commits[command->member][command->number] |= 1;
	while (owner->settled < owner->proposed && bed->commits[command->member][owner->settled]) {
		owner->settled++;
		owner->asked_ns = bed->now(bed);
	}
}

static void on_commit(void *context, uint64_t index, const void *data, uint32_t size)
{
	struct member *member = user(context, MOMENT_COMMIT);
	struct command command;

	assert_false(member->has_failed);
	assert_true(index > member->index);
	assert_true(size >= sizeof(command));
	memcpy(&command, data, sizeof(command));
	assert_true(command.member < BED_MEMBERS && command.number < BED_COMMANDS_MAX);
	member->index = index;
	member->digest =
		hash_u64_pair(hash_u64_pair(member->digest, index), hash_bytes(data, size));
	member->commits++;
	note_commit(member->bed, &command);
	check_truth(member);
}

static int on_install(void *context, uint64_t index, const void *data, size_t size,
		      struct error *err)
{
	struct member *member = user(context, MOMENT_INSTALL);
	const uint8_t *pad = (const uint8_t *)data + sizeof(struct image);
	struct image image;

	assert_true(index > member->index);
	assert_true(size >= sizeof(image));
	memcpy(&image, data, sizeof(image));
	assert_int_equal(size, sizeof(image) + image.pad);
	for (uint64_t i = 0; i < image.pad; i++)
		assert_true(pad[i] == (uint8_t)(image.digest + i));
	member->index = index;
	member->digest = image.digest;
	member->installs++;
	check_truth(member);
	return 0;
}

static int on_snapshot(void *context, struct engine_image *out)
{
	struct member *member = user(context, MOMENT_SNAPSHOT);
	struct image image = {member->digest, member->bed->image_pad};
	uint8_t *data = malloc(sizeof(image) + image.pad);

	assert_non_null(data);
	memcpy(data, &image, sizeof(image));
	for (uint64_t i = 0; i < image.pad; i++)
		data[sizeof(image) + i] = (uint8_t)(image.digest + i);
	*out = (struct engine_image){data, sizeof(image) + image.pad};
	member->snapshots++;
	return 0;
}

static void on_ready(void *context)
{
	struct member *member = user(context, MOMENT_READY);

	assert_false(member->is_ready);
	member->is_ready = true;
}

static void on_members(void *context, const struct engine_member *list, uint32_t count)
{
	struct member *member = user(context, MOMENT_MEMBERS);

	assert_true(member->is_ready);
	member->live = 0;
	for (uint32_t i = 0; i < count; i++) {
		if (i)
			assert_true(memcmp(list[i - 1].node.bytes, list[i].node.bytes, 16) < 0);
		for (unsigned n = 0; n < BED_MEMBERS; n++) {
			char info[32];

			if (!uuid_is_equal(&member->bed->members[n].node, &list[i].node))
				continue;
			(void)snprintf(info, sizeof(info), "member %u", n);
			assert_int_equal(list[i].info_size, strlen(info));
			assert_memory_equal(list[i].info, info, strlen(info));
			member->live |= BIT(n);
			member->live_start[n] = list[i].start;
		}
	}
}

static void on_ended(void *context, const struct uuid *node, uint64_t start, enum engine_end how)
{
	struct member *member = user(context, MOMENT_ENDED);

	assert_true(member->is_ready);
	for (unsigned n = 0; n < BED_MEMBERS; n++) { /* a fact: that start is not running */
		const struct member *other = &member->bed->members[n];

		if (uuid_is_equal(node, &other->node))
			assert_false(start == other->start && other->engine && !other->is_leaving);
	}
	assert_true(member->end_count < BED_ENDS_MAX);
	member->ends[member->end_count++] = (struct seen_end){*node, start, how};
}

static void on_quorum(void *context, bool has_quorum)
{
	struct member *member = user(context, MOMENT_QUORUM);

	assert_true(member->is_ready);
	assert_true(member->has_quorum != has_quorum);
	member->has_quorum = has_quorum;
}

static void on_failed(void *context, const struct error *err)
{
	struct member *member = user(context, MOMENT_NEVER);

	assert_false(member->has_failed || member->is_leaving);
	member->has_failed = true;
	member->failure = *err;
}

static void on_left(void *context)
{
	struct member *member = user(context, MOMENT_NEVER);

	if (member->leave_at) {
		engine_free(member->engine);
		member->engine = NULL;
	}
	member->has_left = true;
}

static const struct engine_callbacks callbacks = {
	.commit = on_commit,
	.install = on_install,
	.snapshot = on_snapshot,
	.ready = on_ready,
	.members = on_members,
	.ended = on_ended,
	.quorum = on_quorum,
	.failed = on_failed,
	.left = on_left,
};

/* ---- life ---- */

struct bed *bed_new(void)
{
	struct bed *bed = calloc(1, sizeof(*bed));
	struct random random;

	assert_non_null(bed);
	random_init(&random, 4711);
	bed->truth[0] = 1;
	bed->ask_again_ns = 2 * NS_PER_S;
	for (unsigned n = 0; n < BED_MEMBERS; n++) {
		bed->members[n].bed = bed;
		bed->members[n].number = n;
		bed->members[n].node = uuid_make(&random);
		bed->members[n].start = n * 1000;
	}
	return bed;
}

void bed_free(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		assert_null(bed->members[n].engine);
	free(bed);
}

int bed_try_start(struct bed *bed, unsigned number, struct error *err)
{
	struct member *member = &bed->members[number], before = *member;
	char info[32];
	struct engine_options options = {
		.self = {.node = member->node, .start = member->start + 1, .info = info},
		.compact_bytes = bed->compact_bytes,
		.log = bed->log,
	};
	int rc;

	(void)snprintf(info, sizeof(info), "member %u", number);
	options.self.info_size = (uint32_t)strlen(info);
	*member = (struct member){
		.bed = bed,
		.number = number,
		.node = member->node,
		.start = member->start + 1,
		.digest = 1,
		.loop = member->loop,
		.proposed = member->proposed,
		.settled = member->settled,
	};
	bed->in_call = true;
	rc = bed->open(bed, member, &options, &callbacks, err);
	bed->in_call = false;
	if (rc < 0) {
		before.loop = member->loop;
		*member = before;
	}
	return rc;
}

struct member *bed_start(struct bed *bed, unsigned number)
{
	struct error err = {0};

	assert_null(bed->members[number].engine);
	if (bed_try_start(bed, number, &err) < 0)
		fail_msg("member %u: %s", number, err.text);
	return &bed->members[number];
}

void bed_start_fails(struct bed *bed, unsigned number, int code, struct error *err)
{
	struct member *member = &bed->members[number];
	int rc = bed_try_start(bed, number, err);

	if (rc < 0) {
		assert_int_equal(rc, code);
		return;
	}
	assert_true(bed->is_late);
	BED_UNTIL(bed, member->has_failed);
	assert_int_equal(member->failure.code, code);
	*err = member->failure;
	bed_leave(bed, number);
}

static bool all_see_all(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		for (unsigned m = 0; m < BED_MEMBERS; m++)
			if (bed->members[n].engine && bed->members[m].engine &&
			    !member_sees(&bed->members[n], &bed->members[m]))
				return false;
	return true;
}

void bed_start_all(struct bed *bed, unsigned count)
{
	for (unsigned n = 0; n < count; n++)
		if (!bed->members[n].engine)
			bed_start(bed, n);
	BED_UNTIL(bed, all_see_all(bed));
}

void bed_leave(struct bed *bed, unsigned number)
{
	struct member *member = &bed->members[number];
	struct engine *engine = member->engine;

	if (!member->is_leaving) {
		bed->in_call = true;
		engine_leave(engine);
		bed->in_call = false;
		member->is_leaving = true;
	}
	if (member->leave_at) {
		BED_UNTIL(bed, member->has_left);
		return;
	}
	member->engine = NULL;
	BED_UNTIL(bed, member->has_left);
	engine_free(engine);
}

void bed_crash(struct bed *bed, unsigned number)
{
	bed->crash(bed, &bed->members[number]);
	assert_null(bed->members[number].engine);
}

void bed_set_stopped(struct bed *bed, unsigned number, bool is_stopped)
{
	struct member *member = &bed->members[number];

	if (member->is_stopped != is_stopped && bed->set_stopped)
		bed->set_stopped(bed, member, is_stopped);
	member->is_stopped = is_stopped;
}

void bed_stop_all(struct bed *bed)
{
	for (unsigned n = 0; n < BED_MEMBERS; n++) {
		bed_set_stopped(bed, n, false);
		if (bed->members[n].engine)
			bed_leave(bed, n);
	}
}

/* ---- proposals ---- */

static int propose(struct member *member, uint32_t number)
{
	struct bed *bed = member->bed;
	uint32_t size = bed->command_size;
	struct command command = {member->number, number};
	uint8_t *data;
	int rc;

	if (!size)
		size = sizeof(command) + (uint32_t)(hash_u64(number) % 300);
	data = malloc(size);
	assert_non_null(data);
	for (uint32_t i = 0; i < size; i++)
		data[i] = (uint8_t)(number + i);
	memcpy(data, &command, sizeof(command));
	bed->in_call = true;
	rc = engine_propose(member->engine, data, size);
	bed->in_call = false;
	free(data);
	return rc;
}

void bed_propose(struct bed *bed, unsigned number, uint32_t count)
{
	struct member *member = &bed->members[number];

	if (member->settled == member->proposed)
		member->asked_ns = bed->now(bed);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t command = member->proposed++;

		assert_true(command < BED_COMMANDS_MAX);
		bed->commits[number][command] = 0;
		assert_int_equal(propose(member, command), 0);
	}
}

static void ask_again(struct member *member)
{
	struct bed *bed = member->bed;

	if (!member->engine || member->is_stopped || member->has_failed ||
	    member->settled == member->proposed ||
	    bed->now(bed) < member->asked_ns + bed->ask_again_ns)
		return;
	member->asked_ns = bed->now(bed);
	for (uint32_t i = member->settled; i < member->proposed; i++)
		if (!bed->commits[member->number][i] && propose(member, i) < 0)
			return;
}

void bed_turn(struct bed *bed)
{
	bed->turn(bed);
	for (unsigned n = 0; n < BED_MEMBERS; n++)
		ask_again(&bed->members[n]);
}

bool bed_is_settled(struct bed *bed)
{
	const struct member *first = NULL;

	for (unsigned n = 0; n < BED_MEMBERS; n++) {
		const struct member *member = &bed->members[n];

		if (!member->engine || member->is_stopped)
			continue;
		if (!member->is_ready || member->settled < member->proposed)
			return false;
		if (!first)
			first = member;
		if (member->index != first->index)
			return false;
	}
	return true;
}

bool member_sees(const struct member *member, const struct member *other)
{
	return member->is_ready && (member->live & BIT(other->number)) &&
	       member->live_start[other->number] == other->start;
}

bool member_knows_end(const struct member *member, const struct member *other, uint64_t start,
		      enum engine_end how)
{
	for (unsigned i = 0; i < member->end_count; i++)
		if (uuid_is_equal(&member->ends[i].node, &other->node) &&
		    member->ends[i].start == start && member->ends[i].how == how)
			return true;
	return false;
}

unsigned bed_scaled(unsigned count)
{
	const char *text = getenv("SHEEPFOLD_LONG");

	return text && *text == '1' ? count : count / 10;
}
