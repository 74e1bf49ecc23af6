/*
 * wake.c
 *		Waking the worker when a transaction that wrote events has committed.
 *
 * The callback runs after the commit became visible, so the worker that wakes
 * sees the events. It takes one shared lock and sets one latch; nothing in it can throw, because an error after the
 * commit record would be a panic. A lost wake costs one heartbeat, never an event.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "server/shmem.h"
#include "server/wake.h"

static bool registered = false;
static bool pending = false;

static void at_transaction_end(XactEvent event, void *arg);

void
wake_worker_at_commit(void)
{
	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		registered = true;
	}
	pending = true;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		pending = false;		/* COMMIT PREPARED is found by the next heartbeat */
	if (event != XACT_EVENT_COMMIT || !pending)
		return;
	pending = false;
	wake_worker_now();
}

void
wake_worker_now(void)
{
	bool		found = false;

	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < SLOTS_MAX; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (slot->database != MyDatabaseId || slot->state == SLOT_FREE)
			continue;
		if (slot->latch)
			SetLatch(slot->latch);
		found = slot->state == SLOT_RUNNING || slot->state == SLOT_STARTING;
	}
	LWLockRelease(shared->lock);

	if (!found)
		shmem_request_probe(MyDatabaseId);
}
