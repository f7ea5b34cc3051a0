/* Histories for the agreement that random programs hardly reach. */
#ifndef AGREE_DIRECTED_H
#define AGREE_DIRECTED_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/rule.h"

struct stage;

struct directed {
	const char *name;
	enum rule rule; /* without which it fails */
	/* On a stage of so many nodes and starts, which is judged at the end. */
	unsigned nodes, starts;
	void (*play)(struct stage *stage);
	/* Or on stages of its own: what is wrong, in @why; true: nothing. */
	bool (*run)(char *why, size_t size);
};

/* agree_elections.c: slow disks, leaders that stop, first logs */
void test_vote_is_not_told_in_a_later_term(struct stage *stage);
bool test_slow_disks_find_a_leader(char *why, size_t size);
void test_leader_that_stops_after_its_state_is_replaced(struct stage *stage);
bool test_who_was_ready_does_not_drop_its_log(char *why, size_t size);
bool test_first_log_that_can_never_be_used_gives_way(char *why, size_t size);
bool test_first_log_without_one_of_its_voters_gives_way(char *why, size_t size);
/* agree_copies.c: disks that are there twice, went back, or come back */
void test_copied_disk_is_one_voter(struct stage *stage);
void test_older_copied_disk_does_not_condemn_the_original(struct stage *stage);
void test_who_is_behind_remembers_what_a_copy_had(struct stage *stage);
bool test_struck_copy_that_gets_an_image_votes_again(char *why, size_t size);
void test_forgotten_node_that_came_back_goes_on_after_a_partition(struct stage *stage);

extern const struct directed directed_table[];
extern const unsigned directed_count;

/* What is wrong, in @why; true: nothing. */
bool directed_run(const struct directed *directed, char *why, size_t size);

#endif
