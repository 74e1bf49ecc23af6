/*
 * receipt.c
 *		Does every node know of a revocation by now?
 *
 * The worker decides that (worker/receipts.c); this reads what it has stored, always as it is committed, whatever
 * the isolation level of the caller. An event that the caller may not see is answered like one that does not exist.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "ledger/identity.h"
#include "ledger/ledger.h"
#include "server/clock.h"
#include "server/rowset.h"
#include "server/shmem.h"

#define ACCESS_TO_RECEIPTS	(ACCESS_SERVICE | ACCESS_TENANT_ADMIN | ACCESS_AUDITOR)
#define LOOK_AGAIN_MS		200		/* should the worker's word be lost */
#define RECEIPT_COLUMNS		6

static bool find_revocation(Oid caller, Datum event_id, bool *own);
static bool is_everywhere(Datum event_id);
static bool worker_is_unsettled(void);

PG_FUNCTION_INFO_V1(sessauth_receipt);

/*
 * receipt(event_id bigint) → rows: who knows of a revocation, for each mirror, and (null mirror) for the nodes over SQL. Throws 42501
 * without access, 22004.
 */
Datum
sessauth_receipt(PG_FUNCTION_ARGS)
{
	static LedgerQuery query = {
		"WITH e AS (SELECT l.n, s.generation, a.committed_after, a.confirmed_at, a.ways, a.event_id IS NOT NULL AS everywhere,"
		"   v.event_id > s.floor AND NOT pg_visible_in_snapshot(v.xid, s.seen) AS too_new"
		"  FROM sessauth.event v CROSS JOIN sessauth.ledger_state s"
		"  LEFT JOIN sessauth.revocation_log l ON l.event_id = v.event_id AND l.generation = s.generation"
		"  LEFT JOIN sessauth.arrival a ON a.event_id = v.event_id"
		"  WHERE v.event_id = $1),"
		" m AS (SELECT e.*, x.name, e.everywhere OR coalesce(r.n >= e.n, false) AS confirmed"
		"  FROM e CROSS JOIN (SELECT name FROM sessauth.mirror_state UNION ALL SELECT NULL) x"
		"  LEFT JOIN sessauth.receipt_state r ON r.mirror = coalesce(x.name, '" RECEIPTS_OVER_SQL "') AND r.generation = e.generation)"
		" SELECT m.name, count(k.name), count(*) FILTER (WHERE k.knows), count(*) FILTER (WHERE NOT k.knows AND (m.confirmed OR k.is_over)),"
		"  CASE WHEN m.confirmed THEN 'confirmed' WHEN $2 OR m.n IS NULL AND NOT m.too_new THEN 'unknown' ELSE 'pending' END,"
		"  coalesce((m.ways ->> coalesce(m.name, '" RECEIPTS_OVER_SQL "'))::timestamptz, m.confirmed_at) - m.committed_after"
		" FROM m LEFT JOIN LATERAL (SELECT w.name, m.everywhere AND m.n IS NULL OR coalesce(w.generation = m.generation AND w.n >= m.n, false),"
		"   w.last_seen_at + w.max_staleness < clock_timestamp() FROM sessauth.node_status() w"
		"   WHERE NOT w.refused AND w.mirror IS NOT DISTINCT FROM m.name) k(name, knows, is_over) ON true"
		" GROUP BY m.name, m.n, m.too_new, m.confirmed, m.ways, m.confirmed_at, m.committed_after ORDER BY m.name NULLS LAST", 2, {INT8OID, BOOLOID}
	};
	LedgerCall	call;
	Datum		args[2] = {PG_GETARG_DATUM(0), BoolGetDatum(worker_is_unsettled())};
	TupleDesc	desc;
	Tuplestorestate *rows;
	bool		own;

	require_arg(fcinfo, 0, "event_id");
	access_require(ACCESS_TO_RECEIPTS, NULL);
	rows = rowset_begin(fcinfo, RECEIPT_COLUMNS, &desc);
	ledger_begin(&call, fcinfo);
	if (find_revocation(call.caller, args[0], &own))
	{
		uint64		count = ledger_run(&query, args, NULL);

		for (uint64 i = 0; i < count; i++)
		{
			Datum		values[RECEIPT_COLUMNS];
			bool		nulls[RECEIPT_COLUMNS];

			for (int c = 0; c < RECEIPT_COLUMNS; c++)
				values[c] = ledger_datum(i, c + 1, &nulls[c]);
			tuplestore_putvalues(rows, desc, values, nulls);
		}
	}
	ledger_end(&call);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(sessauth_await_receipt);

/*
 * await_receipt(event_id bigint, timeout interval) → boolean: every node knows of it, or can accept nothing any more. False after the
 * timeout, and at once when there is no such revocation. Throws 55000 when it is of the own transaction, which nobody can know of
 * before it commits; 42501, 22004, 22023 for a negative timeout.
 */
Datum
sessauth_await_receipt(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	int64		end;
	int64		timeout;
	bool		own;
	bool		found;
	bool		done = false;

	require_arg(fcinfo, 0, "event_id");
	require_arg(fcinfo, 1, "timeout");
	access_require(ACCESS_TO_RECEIPTS, NULL);
	timeout = interval_us(PG_GETARG_INTERVAL_P(1));
	if (timeout < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the timeout must not be negative"),
				 errhint("A timeout of 0 asks without waiting.")));
	end = clock_boot() + timeout;

	ledger_begin(&call, fcinfo);
	found = find_revocation(call.caller, PG_GETARG_DATUM(0), &own);
	if (found && own)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("event " INT64_FORMAT " has not been committed", PG_GETARG_INT64(0)),
				 errdetail("It was written by this transaction; nobody can know of it before the commit."),
				 errhint("Commit first, then wait.")));
	if (found)
	{
		ConditionVariablePrepareToSleep(&shared->receipts);
		while (!(done = is_everywhere(PG_GETARG_DATUM(0))) && clock_boot() < end)
		{
			CHECK_FOR_INTERRUPTS();
			(void) ConditionVariableTimedSleep(&shared->receipts, Max(1, Min(LOOK_AGAIN_MS, (end - clock_boot()) / 1000)), compat_wait_event("SessauthReceipt"));
		}
		ConditionVariableCancelSleep();
	}
	ledger_end(&call);
	PG_RETURN_BOOL(done);
}

static bool
find_revocation(Oid caller, Datum event_id, bool *own)
{
	static LedgerQuery query = {
		"SELECT e.tenant_id, coalesce(e.xid = pg_current_xact_id_if_assigned() AND e.event_id > s.floor, false)"
		" FROM sessauth.event e CROSS JOIN sessauth.ledger_state s WHERE e.event_id = $1 AND e.revokes IS NOT NULL", 1, {INT8OID}
	};
	char	   *tenant_id;
	bool		isnull;

	if (ledger_run(&query, &event_id, NULL) == 0)
		return false;
	tenant_id = ledger_text(0, 1);
	*own = DatumGetBool(ledger_datum(0, 2, &isnull));
	if (identity_tenant() != NULL && (tenant_id == NULL || strcmp(tenant_id, identity_tenant()) != 0))
		return false;
	return access_is_unlimited(caller, ACCESS_TO_RECEIPTS) ||
		(tenant_id != NULL && access_allows(caller, ACCESS_TO_RECEIPTS, tenant_id));
}

static bool
is_everywhere(Datum event_id)
{
	static LedgerQuery query = {
		"SELECT 1 FROM sessauth.arrival WHERE event_id = $1"
		" UNION ALL SELECT 1 FROM sessauth.ledger_state s JOIN sessauth.receipt_state r ON r.mirror = '' AND r.generation = s.generation"
		" JOIN sessauth.revocation_log l ON l.generation = s.generation AND l.n <= r.n WHERE l.event_id = $1", 1, {INT8OID}
	};

	return ledger_run(&query, &event_id, NULL) > 0;
}

/* It may not know yet who holds a lease, or there is none. */
static bool
worker_is_unsettled(void)
{
	bool		unsettled = true;

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < SLOTS_MAX; i++)
		if (shared->slots[i].database == MyDatabaseId && shared->slots[i].state == SLOT_RUNNING)
			unsettled = shared->slots[i].unsettled;
	LWLockRelease(shared->lock);
	return unsettled;
}
