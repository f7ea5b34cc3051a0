/*
 * A bed (bed.h) of members of one local log, all in this process, each on a loop of its own. It gives
 * bed_setup() and bed_teardown().
 */
#ifndef TESTS_ENGINE_LOCAL_BED_H
#define TESTS_ENGINE_LOCAL_BED_H

#include "sheep/engine/local_priv.h"
#include "tests/engine/bed.h"

struct local_world {
	char dir[64];
};

struct local *local_of(struct bed *bed, unsigned number);
/* As near to a crash as a member in our own process can come: the lock goes without a word. */
void local_bed_crash(struct bed *bed, struct member *member);
/* At one moment: nobody goes on while another ends. */
void local_bed_crash_all(struct bed *bed);

#endif
