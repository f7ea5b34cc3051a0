/* Histories for the agreement that random programs hardly reach. */
#ifndef AGREE_DIRECTED_H
#define AGREE_DIRECTED_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/rule.h"

struct directed {
	const char *name;
	enum rule rule; /* without which it fails */
	/* What is wrong, in @why; true: nothing. */
	bool (*run)(char *why, size_t size);
};

/* agree_elections.c: slow disks, leaders that stop, first logs */
bool test_vote_is_not_told_in_a_later_term(char *why, size_t size);
bool test_slow_disks_find_a_leader(char *why, size_t size);
bool test_leader_that_stops_after_its_state_is_replaced(char *why, size_t size);
bool test_who_was_ready_does_not_drop_its_log(char *why, size_t size);
bool test_first_log_that_can_never_be_used_gives_way(char *why, size_t size);
bool test_first_log_without_one_of_its_voters_gives_way(char *why, size_t size);
/* agree_copies.c: disks that are there twice, went back, or come back */
bool test_copied_disk_is_one_voter(char *why, size_t size);
bool test_older_copied_disk_does_not_condemn_the_original(char *why, size_t size);
bool test_who_is_behind_remembers_what_a_copy_had(char *why, size_t size);
bool test_struck_copy_that_gets_an_image_votes_again(char *why, size_t size);
bool test_forgotten_node_that_came_back_goes_on_after_a_partition(char *why, size_t size);

extern const struct directed directed_table[];
extern const unsigned directed_count;

#endif
