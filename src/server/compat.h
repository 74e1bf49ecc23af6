/*
 * compat.h
 *		Differences between PostgreSQL 14 and 18, in one place.
 */
#ifndef SESSAUTH_SERVER_COMPAT_H
#define SESSAUTH_SERVER_COMPAT_H

#include "access/genam.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#if PG_VERSION_NUM >= 170000
#define compat_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#else
#define compat_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

/* PostgreSQL 18 renames its own macro and moves it to the front of a declaration. */
#define compat_noreturn __attribute__((noreturn))

/* Shared memory is requested in a hook from 15 on, and directly before. */
static inline void
compat_request_shmem(void (*request) (void))
{
#if PG_VERSION_NUM >= 150000
	shmem_request_hook = request;
#else
	request();
#endif
}

/* What an earlier library wants is asked for first. */
#if PG_VERSION_NUM >= 150000
typedef shmem_request_hook_type CompatRequestHook;
#define compat_previous_request() shmem_request_hook
#else
typedef void (*CompatRequestHook) (void);
#define compat_previous_request() NULL
#endif

/* No other setting of this prefix may come into being. */
static inline void
compat_reserve_prefix(const char *prefix)
{
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved(prefix);
#else
	EmitWarningsOnPlaceholders(prefix);
#endif
}

/* The number under which other processes find our latch. */
#if PG_VERSION_NUM >= 170000
#define compat_my_process() ((uint32) MyProcNumber)
#else
#define compat_my_process() ((uint32) MyProc->pgprocno)
#endif
#define compat_latch_of(process) (&ProcGlobal->allProcs[process].procLatch)

/* No ordering operators, no instrumentation. */
static inline IndexScanDesc
compat_index_beginscan(Relation table, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(table, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(table, index, snapshot, nkeys, 0);
#endif
}

static inline bool
compat_owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

/* The timeline that this primary writes. */
static inline int
compat_timeline(void)
{
#if PG_VERSION_NUM >= 150000
	return (int) GetWALInsertionTimeLine();
#else
	return (int) ThisTimeLineID;
#endif
}

/* What pg_stat_activity shows while somebody waits: names of extensions exist since 17. */
static inline uint32
compat_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	return PG_WAIT_EXTENSION;
#endif
}

#endif							/* SESSAUTH_SERVER_COMPAT_H */
