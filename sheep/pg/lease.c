/*
 * Whether nobody else serves a PG that we lead (REPLICATION, L1), and what waits until that is certain.
 *
 * What is answered by our own copy alone, a read or a write that changes nothing, was true at some
 * moment since it came only if no other primary served then. That is so while the last beacon that we
 * sent and that each member acknowledged is younger than `lease`: whoever takes over has waited for
 * longer, and has promised so in its acknowledgement. It is judged when the operation completes, by a clock
 * that is read at that moment: a process that was stopped knows nothing of it but by the clock (L4).
 *
 * Where `lease` is 0 the clock is not asked: each member must have acknowledged a beacon that was sent
 * after the operation came.
 *
 *   judged --no--> waits in the set --news from loop 0, or another map--> judged again
 *     \--yes--> answered               (a lead that ends answers all that wait: NOT_PRIMARY)
 *
 * While something waits, one mail per set is with loop 0, which sends beacons if need be and posts
 * the mail back when one was acknowledged. Without such mails an acknowledgement wakes nobody.
 */
#include "sheep/pg/lease.h"

#include "lib/base/rule.h"
#include "sheep/pg/filler.h"

/* Whose silence makes us silent: everybody who could lead without asking us. */
static bool must_renew(const struct pg_lead *lead, const struct pg_member *member)
{
	if (member->node == lead->pg->set->node)
		return false;
	if (member->kind == PG_MEMBER_ISR)
		return true;
	/* Its expand may be committed by now: then it is one of them. */
	return RULE(L1_JOINING) && member->kind == PG_MEMBER_SEALED &&
	       pg_filler_is_undecided(member->filler);
}

bool pg_lead_has_lease(const struct pg_lead *lead, uint64_t arrived_ns)
{
	const struct pg_set *set = lead->pg->set;
	uint64_t lease = pg_set_time(set, CLUSTER_SETTING_LEASE);
	uint64_t now = loop_clock(set->loop), since = now > lease ? now - lease + 1 : 1;

	if (!lease)
		since = RULE(L4_CONFIRM) ? arrived_ns : 1;
	if (!RULE(L1_LEASE))
		return true;
	for (uint32_t i = 0; i < lead->member_count; i++) {
		const struct pg_member *member = lead->members[i];
		if (must_renew(lead, member) &&
		    (!set->leases || pg_leases_sent(set->leases, member->node, set->index) < since))
			return false;
	}
	return true;
}

/* ---- what waits ---- */

static void came_back(struct loop *loop, struct loop_mail *mail)
{
	struct pg_set *set = container_of_type(mail, struct pg_set, lease_mail.mail);

	set->lease_mail.is_out = false;
	pg_leases_rejudge(set);
	pg_set_release(set);
}

/* Loop 0 is done with it. */
void pg_lease_mail_return(struct pg_set *set)
{
	set->lease_mail.mail.deliver = came_back;
	loop_post(set->loop, &set->lease_mail.mail);
}

static void arrive(struct loop *loop, struct loop_mail *mail)
{
	struct pg_set *set = container_of_type(mail, struct pg_set, lease_mail.mail);

	pg_beacons_want(set->beacons, set, set->lease_mail.needed_ns);
}

/* The newest decides: a beacon that confirms it confirms all. */
static void ask(struct pg_set *set)
{
	uint64_t needed = 0;
	struct pg_work *work;

	if (set->lease_mail.is_out || cds_list_empty(&set->leaseless) || set->is_stopping ||
	    !set->beacons)
		return;
	if (!pg_set_time(set, CLUSTER_SETTING_LEASE))
		cds_list_for_each_entry(work, &set->leaseless, leaseless)
			needed = max_of(needed, work->arrived_ns);
	set->lease_mail.is_out = true;
	set->lease_mail.needed_ns = needed;
	set->lease_mail.mail.deliver = arrive;
	pg_set_hold(set);
	loop_post(set->home, &set->lease_mail.mail);
}

void pg_lease_wait(struct pg_work *work)
{
	struct pg_set *set = work->set;

	if (!work->has_waited)
		set->counters.lease_waits++;
	work->has_waited = true;
	work->is_leaseless = true;
	cds_list_add_tail(&work->leaseless, &set->leaseless);
	ask(set);
}

void pg_leases_rejudge(struct pg_set *set)
{
	CDS_LIST_HEAD(works);

	cds_list_splice(&set->leaseless, &works);
	CDS_INIT_LIST_HEAD(&set->leaseless);
	while (!cds_list_empty(&works)) {
		struct pg_work *work = cds_list_first_entry(&works, struct pg_work, leaseless);
		cds_list_del(&work->leaseless);
		work->is_leaseless = false;
		pg_work_answer(work);
	}
	ask(set);
}

void pg_set_look_at_members(struct pg_set *set)
{
	struct pg_lead *lead, *next;

	HASH_ITER(hh, set->leads, lead, next)
		for (uint32_t i = 0; i < lead->member_count; i++)
			if (pg_leases_is_silent(set->leases, lead->members[i]->node))
				pg_set_active(lead->pg);
}
