/*
 * handover.c
 *		What an abort would erase, handed to the worker. See handover.h.
 *
 * The callbacks run while a transaction aborts: they may neither throw nor
 * wait, so notes are allocated beforehand, and one that finds no room in shared memory stays here and is
 * tried again at the end of every later transaction and when the process exits.
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "server/handover.h"
#include "server/shmem.h"
#include "server/wake.h"

typedef struct Note
{
	dlist_node	node;
	SubTransactionId sub;
	Handover	entry;
} Note;

static dlist_head noted = DLIST_STATIC_INIT(noted); /* of the transaction under way */
static dlist_head leaving = DLIST_STATIC_INIT(leaving); /* aborted, not yet in shared memory */

static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg);
static void at_exit(int code, Datum arg);
static void tell_loss(void);
static void hand_over(void);

void
handover_note(HandoverKind kind, const pg_uuid_t *session_id, const char *tenant, const char *user, TimestampTz until)
{
	static bool registered = false;
	Note	   *note;

	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		before_shmem_exit(at_exit, (Datum) 0);
		registered = true;
	}
	note = MemoryContextAllocZero(TopMemoryContext, sizeof(Note));
	note->sub = GetCurrentSubTransactionId();
	note->entry.kind = kind;
	note->entry.database = MyDatabaseId;
	note->entry.session_id = *session_id;
	strlcpy(note->entry.tenant, tenant, sizeof(note->entry.tenant));
	strlcpy(note->entry.user, user, sizeof(note->entry.user));
	note->entry.until = until;
	dlist_push_tail(&noted, &note->node);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	dlist_mutable_iter iter;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	dlist_foreach_modify(iter, &noted)
	{
		Note	   *note = dlist_container(Note, node, iter.cur);

		dlist_delete(&note->node);
		if (event == XACT_EVENT_ABORT)
			dlist_push_tail(&leaving, &note->node);
		else
			pfree(note);
	}
	hand_over();
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	dlist_mutable_iter iter;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	dlist_foreach_modify(iter, &noted)
	{
		Note	   *note = dlist_container(Note, node, iter.cur);

		if (note->sub != sub)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			note->sub = parent;
		else
		{
			dlist_delete(&note->node);
			dlist_push_tail(&leaving, &note->node);
		}
	}
	hand_over();
}

/* A client that disconnects in the middle of a transaction aborts it before this runs. The worker makes room within its next round. */
static void
at_exit(int code, Datum arg)
{
	for (int i = 0; i < 500 && !dlist_is_empty(&leaving); i++)
	{
		hand_over();
		if (!dlist_is_empty(&leaving))
			pg_usleep(10000);
	}
	if (!dlist_is_empty(&leaving) && shared != NULL)
		tell_loss();
}

/* Rather no lease for anybody, for the lifetime of a token, than one that passes over what was lost. */
static void
tell_loss(void)
{
	HandoverLoss *loss = NULL;
	TimestampTz until = 0;
	dlist_iter	iter;
	int			count = 0;

	dlist_foreach(iter, &leaving)
	{
		until = Max(until, dlist_container(Note, node, iter.cur)->entry.until);
		count++;
	}
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < HANDOVER_LOSSES && loss == NULL; i++)
		if (shared->losses[i].database == MyDatabaseId || shared->losses[i].until == 0)
			loss = &shared->losses[i];
	if (loss != NULL)
		loss->database = MyDatabaseId;
	else
	{
		loss = &shared->losses[0];
		loss->database = InvalidOid;
	}
	loss->until = Max(loss->until, until);
	LWLockRelease(shared->lock);
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("sessauth could not hand %d tokens of aborted transactions to its worker", count),
			 errdetail("No node gets a lease before they have expired: %s.", timestamptz_to_str(until)),
			 errhint("See why the worker of this database does not run, or is too busy.")));
}

TimestampTz
handover_lost_until(void)
{
	TimestampTz until = 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < HANDOVER_LOSSES; i++)
		if (shared->losses[i].database == MyDatabaseId || shared->losses[i].database == InvalidOid)
			until = Max(until, shared->losses[i].until);
	LWLockRelease(shared->lock);
	return until;
}

static void
hand_over(void)
{
	dlist_mutable_iter iter;
	int			place = 0;

	if (dlist_is_empty(&leaving) || shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	dlist_foreach_modify(iter, &leaving)
	{
		Note	   *note = dlist_container(Note, node, iter.cur);

		while (place < HANDOVER_MAX && shared->handover[place].kind != HANDOVER_FREE)
			place++;
		if (place == HANDOVER_MAX)
			break;
		shared->handover[place] = note->entry;
		dlist_delete(&note->node);
		pfree(note);
	}
	LWLockRelease(shared->lock);
	wake_worker_now();
}

int
handover_take(Handover **entries, int **places)
{
	int			count = 0;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < HANDOVER_MAX; i++)
		count += shared->handover[i].kind != HANDOVER_FREE && shared->handover[i].database == MyDatabaseId;
	LWLockRelease(shared->lock);
	if (count == 0)
		return 0;

	*entries = palloc(sizeof(Handover) * HANDOVER_MAX);
	*places = palloc(sizeof(int) * HANDOVER_MAX);
	count = 0;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < HANDOVER_MAX; i++)
		if (shared->handover[i].kind != HANDOVER_FREE && shared->handover[i].database == MyDatabaseId)
		{
			(*entries)[count] = shared->handover[i];
			(*places)[count++] = i;
		}
	LWLockRelease(shared->lock);
	return count;
}

void
handover_done(int place)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->handover[place].kind = HANDOVER_FREE;
	LWLockRelease(shared->lock);
}
