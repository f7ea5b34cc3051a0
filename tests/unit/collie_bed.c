#include <json-c/json.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/unit/collie_bed.h"

int collie_bed_setup(void **state)
{
	struct collie_bed *bed = calloc(1, sizeof(*bed));

	snprintf(bed->path, sizeof(bed->path), "/tmp/test_collie.%d", (int)getpid());
	snprintf(bed->address, sizeof(bed->address), "unix:%s", bed->path);
	bed->sheep = fake_sheep_start(bed->address, ADMIN_VERSION_MAX);
	*state = bed;
	return 0;
}

int collie_bed_teardown(void **state)
{
	fake_sheep_stop(BED->sheep);
	free(*state);
	return 0;
}

void collie_bed_expect_json(struct collie_bed *bed, struct collie_run run, const char *document)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *want = json_tokener_parse(document);
	size_t size = strlen(run.out);

	assert_int_equal(run.exit, 0);
	assert_string_equal(run.err, "");
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	struct json_object *got = json_tokener_parse_ex(tokener, run.out, (int)size - 1);
	assert_int_equal(json_tokener_get_error(tokener), json_tokener_success);
	assert_int_equal(run.out[size - 1], '\n');
	if (!json_object_equal(want, got))
		fail_msg("printed: %s\nnot: %s", run.out, document);
	json_object_put(want);
	json_object_put(got);
	json_tokener_free(tokener);
	collie_run_done(&run);
	fake_sheep_check(bed->sheep);
}
