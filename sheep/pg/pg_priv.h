/*
 * What the files of sheep/pg share. The story is in docs/internals/pg.md.
 *
 *   set       all seats of one loop: maps, ticks, what waits for a later map
 *   pg        one seat (a PG on a store of ours): its state, and what it is: member or primary
 *   lead      what a seat has while its store is the primary
 *   entry     one numbered change: made, numbered, committed
 *   send      the same on its way to the members
 *   io, write client operations of a lead
 *   takeover  tails
 *   fence     the old primary
 *   requests  the table of executed requests, to a member
 *   settle    what the tails left in doubt
 *   filler    a joining, marked or holey member, as its primary fills it
 *   push      one object on its way to such a member
 *   heal      an object of ours that is missing, fetched from a member
 *   member    the other side of all that
 *   elect     nobody leads, and all who could may have lost something
 */
#ifndef PG_PG_PRIV_H
#define PG_PG_PRIV_H

#include "sheep/pg/ask.h"
#include "sheep/pg/elect.h"
#include "sheep/pg/entry.h"
#include "sheep/pg/filler.h"
#include "sheep/pg/lead.h"
#include "sheep/pg/member.h"
#include "sheep/pg/recovery.h"
#include "sheep/pg/set.h"
#include "sheep/pg/takeover.h"
#include "sheep/pg/work.h"

#endif
