/*
 * handover.c
 *		What an abort would erase, handed to the worker. See handover.h.
 *
 * The callbacks run while a transaction aborts: they may not throw, so notes are allocated beforehand. One that finds no
 * room in shared memory waits a little for the worker to make some. When that was in vain, nobody gets a lease until its token has expired, from
 * then on; it stays here, and is tried again at the end of every later transaction and when the process exits.
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "server/clock.h"
#include "server/handover.h"
#include "server/shmem.h"
#include "server/wake.h"

#define PATIENCE_TRIES	100		/* of 10 ms */

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
static void hand_over(void);
static void fill_places(void);
static bool is_free(const Handover *place);
static void enter_loss(void);

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

/*
 * A client that disconnects in the middle of a transaction, or is terminated: this comes before the abort that the process would do by
 * itself, and after it nobody would look here again.
 */
static void
at_exit(int code, Datum arg)
{
	AbortOutOfAnyTransaction();
	hand_over();
}

/* The worker makes room within its next round. */
static void
hand_over(void)
{
	if (shared == NULL)
		return;
	for (int i = 0; i < PATIENCE_TRIES && !dlist_is_empty(&leaving); i++)
	{
		if (i > 0)
			pg_usleep(10000);
		fill_places();
		wake_worker_now();
	}
	if (!dlist_is_empty(&leaving))
		enter_loss();
}

static void
fill_places(void)
{
	dlist_mutable_iter iter;
	int			place = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	dlist_foreach_modify(iter, &leaving)
	{
		Note	   *note = dlist_container(Note, node, iter.cur);

		while (place < HANDOVER_MAX && !is_free(&shared->handover[place]))
			place++;
		if (place == HANDOVER_MAX)
			break;
		shared->handover[place] = note->entry;
		dlist_delete(&note->node);
		pfree(note);
	}
	LWLockRelease(shared->lock);
}

/* A database that was dropped has no worker any more to make room; but what has expired harms nobody. */
static bool
is_free(const Handover *place)
{
	return place->kind == HANDOVER_FREE || (place->kind == HANDOVER_MINTED && place->until < ledger_now());
}

/* Rather no lease for anybody, for the lifetime of a token, than one that passes over what was lost. Said once for each time that it lengthens. */
static void
enter_loss(void)
{
	static TimestampTz told = 0;
	TimestampTz now = ledger_now();
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
		if (shared->losses[i].database == MyDatabaseId || shared->losses[i].until < now)
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
	if (until <= told)
		return;
	told = until;
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
handover_done(int place, const Handover *entry)
{
	Handover   *there = &shared->handover[place];

	/* It may have expired meanwhile, and another one may be there. */
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (there->kind == entry->kind && memcmp(&there->session_id, &entry->session_id, UUID_LEN) == 0)
		there->kind = HANDOVER_FREE;
	LWLockRelease(shared->lock);
}
