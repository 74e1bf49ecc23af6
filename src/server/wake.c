/*
 * wake.c
 *		Waking the worker when a transaction that wrote events has committed.
 *
 * The callback runs after the commit became visible, so the worker that wakes
 * sees the events. It reads a few atomics and sets one latch: no commit waits for another, nor for a worker that
 * reports. Nothing in it can throw, because an error after the commit record would be a panic. A lost wake costs a
 * second, never an event.
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
		pending = false;		/* COMMIT PREPARED wakes the worker by itself (utility.c) */
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
	for (int i = 0; i < SLOTS_MAX && !found; i++)
	{
		WorkerSlot *slot = &shared->slots[i];

		if (pg_atomic_read_u32(&slot->wake_database) != MyDatabaseId)
			continue;
		shmem_wake_worker(slot);
		found = true;
	}
	if (!found)
		shmem_request_probe(MyDatabaseId);
}
