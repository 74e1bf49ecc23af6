/*
 * worker_tx.c
 *		A transaction of the worker: short, with the owner's rights, and never
 *		in the way of somebody who changes the extension.
 *
 * pg_cancel_backend, and a lock that is not to be had within lock_timeout,
 * cancel the transaction; between transactions there is nothing to cancel, and interrupts of that kind are held.
 *
 * Nothing about the extension is remembered from one transaction to the next:
 * it may have been dropped and made again. A share lock on the extension itself, taken only if that needs no wait, keeps
 * DROP EXTENSION out for the moment; DROP takes that lock first, before any table, so the two cannot deadlock.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "worker/worker_tx.h"

static Extension extension;		/* as the last transaction found it */
static MemoryContext outer_context;
static Oid	outer_user;
static int	outer_sec_context;

static WorkerTx begin(int isolation);
static WorkerTx enter(void);
static bool lock_extension(Oid oid);
static void rest(void);

const Extension *
worker_tx_extension(void)
{
	return &extension;
}

WorkerTx
worker_tx_begin(void)
{
	return begin(XACT_REPEATABLE_READ);
}

WorkerTx
worker_tx_begin_upkeep(int lock_timeout)
{
	WorkerTx	result = begin(XACT_READ_COMMITTED);

	if (result == WORKER_TX_OPEN)
		(void) set_config_option("lock_timeout", psprintf("%d", lock_timeout), PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	return result;
}

static WorkerTx
begin(int isolation)
{
	WorkerTx	result;

	outer_context = CurrentMemoryContext;
	QueryCancelPending = false;
	RESUME_CANCEL_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, NULL);	/* first: who sees it idle sees no transaction */
	StartTransactionCommand();
	XactIsoLevel = isolation;

	result = enter();
	if (result != WORKER_TX_OPEN)
	{
		CommitTransactionCommand();
		MemoryContextSwitchTo(outer_context);
		rest();
		return result;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	MemoryContextSwitchTo(outer_context);
	return WORKER_TX_OPEN;
}

static WorkerTx
enter(void)
{
	static Oid	first = InvalidOid;
	Extension	before;

	if (!extension_find(&before))
		return WORKER_TX_ABSENT;
	if (!lock_extension(before.oid))
		return WORKER_TX_BUSY;
	if (!extension_find(&extension))
		return WORKER_TX_ABSENT;
	if (extension.oid != before.oid)
		return WORKER_TX_BUSY;

	/* Dropped and created anew between two rounds, or in one transaction: it has another link key, and what this process knows is of the old one. */
	if (OidIsValid(first) && extension.oid != first)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sessauth's worker begins anew: the extension is another one"),
				 errdetail("It was dropped and created again.")));
	first = extension.oid;
	if (!extension_matches(&extension))
		return WORKER_TX_OTHER_VERSION;

	/* An abort undoes this by itself, a commit does not. */
	GetUserIdAndSecContext(&outer_user, &outer_sec_context);
	SetUserIdAndSecContext(extension.owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION |
						   SECURITY_NOFORCE_RLS);
	return WORKER_TX_OPEN;
}

/* Against DROP EXTENSION, and against ALTER EXTENSION UPDATE, which begins with the table (see take_share() in frame.c). */
static bool
lock_extension(Oid oid)
{
	LOCKTAG		tag;
	Oid			relid;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, oid, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	relid = get_relname_relid("ledger_state", get_namespace_oid("sessauth", true));
	if (OidIsValid(relid) && !ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	AcceptInvalidationMessages();
	return true;
}

void
worker_tx_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	SetUserIdAndSecContext(outer_user, outer_sec_context);

	CommitTransactionCommand();
	MemoryContextSwitchTo(outer_context);
	rest();
}

void
worker_tx_abort(void)
{
	AbortCurrentTransaction();
	MemoryContextSwitchTo(outer_context);
	rest();
}

void
worker_tx_failed(const char *what, char told[256])
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "sessauth error", ALLOCSET_SMALL_SIZES);
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	worker_tx_abort();
	if (strncmp(told, error->message, 255) != 0)
	{
		strlcpy(told, error->message, 256);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("sessauth: the worker could not %s, and will try again: %s", what, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
	}
	MemoryContextDelete(context);
}

static void
rest(void)
{
	HOLD_CANCEL_INTERRUPTS();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

uint64
worker_query(WorkerQuery *query, const Datum *values, const bool *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	char		spinulls[WORKER_ARGS_MAX];
	int			result;

	if (query->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(query->sql, query->nargs, query->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare a statement of the worker");
		query->plan = plan;
	}
	for (int i = 0; i < query->nargs; i++)
		spinulls[i] = nulls != NULL && nulls[i] ? 'n' : ' ';
	result = SPI_execute_plan(query->plan, (Datum *) values, spinulls, false, 0);
	if (result < 0)
		elog(ERROR, "a statement of the worker failed: %s", SPI_result_code_string(result));
	MemoryContextSwitchTo(context);
	return SPI_processed;
}

bool
row_isnull(uint64 row, int column)
{
	bool		isnull;

	(void) SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
	return isnull;
}

Datum
row_datum(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

int64
row_int8(uint64 row, int column)
{
	return row_isnull(row, column) ? 0 : DatumGetInt64(row_datum(row, column));
}

int64
row_unix_ms(uint64 row, int column)
{
	return row_isnull(row, column) ? 0 : unix_ms(DatumGetTimestampTz(row_datum(row, column)));
}

void
row_copy_text(uint64 row, int column, char *out, size_t size)
{
	char	   *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	if (text == NULL || strlcpy(out, text, size) >= size)
		out[0] = '\0';
	if (text != NULL)
		pfree(text);
}

char *
row_text(uint64 row, int column)
{
	return row_isnull(row, column) ? pstrdup("") : TextDatumGetCString(row_datum(row, column));
}

/* Before 1970 counts as 1970, infinity as the end of the protocol's numbers. */
int64
unix_ms(TimestampTz t)
{
	int64		epoch_us = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

	if (TIMESTAMP_IS_NOEND(t))
		return PG_INT64_MAX / 1000;
	if (t < -epoch_us)
		return 0;
	return (t + epoch_us) / 1000;
}
