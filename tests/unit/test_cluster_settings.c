/* Settings, policies, levels, format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/base/size.h"
#include "tests/unit/cluster_script.h"

#define OK PROTO_STATUS_OK

static enum proto_status set(struct script *script, const char *name, uint64_t value)
{
	return script_run_twice(script, 1, cluster_command_setting(name, value));
}

static void test_defaults_fit_each_other(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	assert_int_equal(cluster_setting(script.map, CLUSTER_SETTING_LEASE), 1000);
	assert_true(cluster_setting_ns(script.map, CLUSTER_SETTING_DOWN_OUT_INTERVAL) ==
		    600 * NS_PER_S);
	/* Setting each to its default is accepted: so the defaults fit. */
	for (unsigned i = 0; i < CLUSTER_SETTING_COUNT; i++) {
		assert_int_equal(set(&script, cluster_settings[i].name, cluster_settings[i].preset),
				 OK);
		assert_int_equal(script.result.changed, 0);
		assert_int_equal(cluster_setting_find(cluster_settings[i].name), (int)i);
		assert_true(cluster_settings[i].meaning[0]);
	}
	script_stop(&script);
}

static void test_settings_are_bounded_and_fit_each_other(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	assert_int_equal(set(&script, "no_such", 1), PROTO_STATUS_NOT_FOUND);
	assert_int_equal(script_run(&script, 1, cluster_command_setting("beacon", 0)),
			 PROTO_STATUS_INVALID);
	assert_string_equal(script.result.text, "beacon must be from 10ms to 10s");
	assert_int_equal(script_run(&script, 1, cluster_command_setting("lease", 1300)),
			 PROTO_STATUS_INVALID);
	assert_string_equal(script.result.text, "grace must be at least 5/4 of lease");
	assert_int_equal(script_run(&script, 1, cluster_command_setting("lease", 500)),
			 PROTO_STATUS_INVALID);
	assert_string_equal(script.result.text, "beacon must be at most 1/3 of lease");
	assert_int_equal(cluster_setting(script.map, CLUSTER_SETTING_LEASE), 1000);
	assert_int_equal(script_run(&script, 1, cluster_command_setting("grace", 3000)), OK);
	assert_int_equal(script.result.changed, CLUSTER_CHANGED_SETTINGS);
	assert_int_equal(set(&script, "lease", 2000), OK);
	assert_int_equal(cluster_setting(script.map, CLUSTER_SETTING_LEASE), 2000);
	/* Without a lease every batch of reads is confirmed (L4). */
	assert_int_equal(set(&script, "lease", 0), OK);
	script_stop(&script);
}

static void test_settings_as_text(void **state)
{
	static const struct {
		enum cluster_setting_id id;
		const char *text;
		int rc;
		uint64_t value;
		const char *back;
	} cases[] = {
		{CLUSTER_SETTING_LEASE, "2s", 0, 2000, "2s"},
		{CLUSTER_SETTING_LEASE, "2", 0, 2000, "2s"},
		{CLUSTER_SETTING_LEASE, "250ms", 0, 250, "250ms"},
		{CLUSTER_SETTING_DOWN_OUT_INTERVAL, "10m", 0, 600000, "600s"},
		{CLUSTER_SETTING_DOWN_OUT_INTERVAL, "1h", 0, 3600000, "3600s"},
		{CLUSTER_SETTING_DOWN_OUT_INTERVAL, "7d", 0, 604800000, "604800s"},
		{CLUSTER_SETTING_DOWN_OUT_INTERVAL, "8d", -ERANGE, 0, NULL},
		{CLUSTER_SETTING_LEASE, "", -EINVAL, 0, NULL},
		{CLUSTER_SETTING_LEASE, "s", -EINVAL, 0, NULL},
		{CLUSTER_SETTING_LEASE, "1x", -EINVAL, 0, NULL},
		{CLUSTER_SETTING_LEASE, "-1", -EINVAL, 0, NULL},
		{CLUSTER_SETTING_LEASE, "18446744073709551615s", -ERANGE, 0, NULL},
		{CLUSTER_SETTING_LEASE, "99999999999999999999999999", -ERANGE, 0, NULL},
		{CLUSTER_SETTING_RECOVERY_RATE, "100M", 0, 100 * MIB, "104857600"},
		{CLUSTER_SETTING_RECOVERY_PAUSED, "yes", 0, 1, "yes"},
		{CLUSTER_SETTING_RECOVERY_PAUSED, "no", 0, 0, "no"},
		{CLUSTER_SETTING_RECOVERY_PAUSED, "maybe", -EINVAL, 0, NULL},
		{CLUSTER_SETTING_RECOVERY_PARALLEL, "16", 0, 16, "16"},
		{CLUSTER_SETTING_RECOVERY_PARALLEL, "0", -ERANGE, 0, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		char text[CLUSTER_SETTING_TEXT_MAX];
		struct error err = {0};
		uint64_t value = 77;
		int rc = cluster_setting_parse(cases[i].id, cases[i].text, &value, &err);

		assert_int_equal(rc, cases[i].rc);
		if (rc < 0) {
			assert_true(err.text[0]);
			assert_int_equal(value, 77);
			continue;
		}
		assert_true(value == cases[i].value);
		assert_string_equal(cluster_setting_format(cases[i].id, value, text),
				    cases[i].back);
	}
}

static void test_format_checks_everything_first(void **state)
{
	struct script script;
	struct uuid uuid = {{9}}, none = {{0}};

	(void)state;
	script_start(&script);
	for (unsigned i = 0; i < 3; i++)
		(void)script_add_node(&script, "z", 1);
	assert_int_equal(
		script_run(&script, 1, cluster_command_volume_create("a", 512, 0, NULL, 0)),
		PROTO_STATUS_NOT_FORMATTED);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 0, 0, 8, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 9, 0, 8, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 4, 8, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 0, 12, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 0, 131072, 0)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 4, 0, 8, 0)),
			 PROTO_STATUS_INVALID);
	assert_string_equal(script.result.text, "4 copies need as many stores, 3 are registered");
	assert_int_equal(script_run(&script, 1, cluster_command_format(&none, 3, 0, 8, 0)),
			 PROTO_STATUS_INVALID);
	assert_false(cluster_is_formatted(script.map));
	assert_int_equal(script_run_twice(&script, 1, cluster_command_format(&uuid, 3, 0, 0, 0)),
			 OK);
	assert_int_equal(cluster_pg_total(script.map), 256);
	assert_int_equal(cluster_policy(script.map, 0)->min_insync, 2);
	assert_int_equal(script_run(&script, 1, cluster_command_format(&uuid, 3, 0, 8, 0)),
			 PROTO_STATUS_EXISTS);
	script_stop(&script);
}

static void test_min_insync_default_is_one_less_than_copies(void **state)
{
	struct uuid uuid = {{9}};

	(void)state;
	for (uint32_t copies = 1; copies <= 4; copies++) {
		struct script script;

		script_start(&script);
		for (unsigned i = 0; i < 4; i++)
			(void)script_add_node(&script, "z", 1);
		assert_int_equal(
			script_run(&script, 1, cluster_command_format(&uuid, copies, 0, 2, 0)), OK);
		assert_int_equal(cluster_policy(script.map, 0)->min_insync,
				 copies > 1 ? copies - 1 : 1);
		script_stop(&script);
	}
}

static void test_summary_of_a_cluster(void **state)
{
	struct script script;
	struct cluster_summary summary;

	(void)state;
	script_start(&script);
	cluster_summary(script.map, &summary);
	assert_int_equal(summary.pgs_total, 0);
	script_format(&script, 3, 3, 8);
	cluster_summary(script.map, &summary);
	assert_int_equal(summary.health, CLUSTER_HEALTHY);
	assert_int_equal(summary.pgs_active, 8);
	assert_int_equal(summary.nodes_up, 3);
	assert_int_equal(script_dead(&script, 1, 3), OK);
	cluster_summary(script.map, &summary);
	assert_string_equal(cluster_health_name(summary.health), "degraded");
	assert_int_equal(summary.pgs_degraded, 8);
	assert_int_equal(summary.pgs_active, 8);
	assert_int_equal(summary.nodes_up, 2);
	assert_int_equal(summary.stores_up, 2);
	assert_int_equal(script_dead(&script, 1, 2), OK);
	cluster_summary(script.map, &summary);
	assert_string_equal(cluster_health_name(summary.health), "down");
	assert_int_equal(summary.pgs_active, 0);
	script_stop(&script);
}

static void test_level_rises_only_when_all_can(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	assert_int_equal(cluster_level(script.map), CLUSTER_LEVEL);
	assert_int_equal(script_run(&script, 1, cluster_command_level(CLUSTER_LEVEL)),
			 PROTO_STATUS_EXISTS);
	assert_int_equal(script_run(&script, 1, cluster_command_level(CLUSTER_LEVEL + 1)),
			 PROTO_STATUS_WRONG_VERSION);
	assert_non_null(strstr(script.result.text, "node 1 speaks versions 1 to 1"));
	script_stop(&script);
}

static void test_policy_changes_are_checked(void **state)
{
	struct script script;

	(void)state;
	script_start(&script);
	script_format(&script, 3, 3, 8);
	assert_int_equal(script_run(&script, 1, cluster_command_policy(1, 3, 2)),
			 PROTO_STATUS_NOT_FOUND);
	assert_int_equal(script_run(&script, 1, cluster_command_policy(0, 3, 4)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_policy(0, 9, 1)),
			 PROTO_STATUS_INVALID);
	assert_int_equal(script_run(&script, 1, cluster_command_policy(0, 3, 2)), OK);
	assert_int_equal(script.result.changed, 0);
	assert_int_equal(script_run(&script, 1, cluster_command_policy(0, 3, 3)), OK);
	assert_int_equal(script.result.changed, CLUSTER_CHANGED_SETTINGS);
	/* With min_insync 3 a death is waited for. */
	assert_int_equal(script_dead(&script, 1, 3), OK);
	assert_int_equal(script_pg(&script, 0)->isr_count, 3);
	assert_int_equal(cluster_pg_health(script.map, script_pg(&script, 0)), CLUSTER_DOWN);
	script_stop(&script);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_fit_each_other),
		cmocka_unit_test(test_settings_are_bounded_and_fit_each_other),
		cmocka_unit_test(test_settings_as_text),
		cmocka_unit_test(test_format_checks_everything_first),
		cmocka_unit_test(test_min_insync_default_is_one_less_than_copies),
		cmocka_unit_test(test_summary_of_a_cluster),
		cmocka_unit_test(test_level_rises_only_when_all_can),
		cmocka_unit_test(test_policy_changes_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
