/*
 * follow.c
 *		The log of revocations for those who LISTEN.
 *
 * A notification says only that there is something; whoever gets one asks
 * here, and sees what the own access allows: a node all of it, others the revocations of their tenants. Keys
 * belong to no tenant and concern everybody.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "ledger/identity.h"
#include "ledger/ledger.h"
#include "server/rowset.h"

#define ACCESS_TO_LOG	(ACCESS_NODE | ACCESS_SERVICE | ACCESS_TENANT_ADMIN | ACCESS_AUDITOR)
#define ROWS_MAX		10000
#define ROWS_PER_LOOK	1000
#define LOG_COLUMNS		11

static bool may_see(Oid caller, const char *tenant_id);

PG_FUNCTION_INFO_V1(sessauth_revocations_since);

/*
 * revocations_since(generation uuid, n bigint) → rows in the order of numbers, at most 10000: what comes after n, or all that is there
 * when the generation is null or not the current one. Throws 42501 without access, 22004 for a null n.
 */
Datum
sessauth_revocations_since(PG_FUNCTION_ARGS)
{
	static LedgerQuery query = {
		"SELECT l.generation, l.n, l.kind, nullif(l.tenant_id, ''), nullif(l.user_id, ''), l.session_id, nullif(l.kid, ''),"
		" nullif(l.epoch, 0), l.event_id, l.at, l.until"
		" FROM sessauth.revocation_log l WHERE l.generation = (SELECT s.generation FROM sessauth.ledger_state s)"
		" AND l.n > greatest((SELECT CASE WHEN s.generation = $1 THEN $2 ELSE 0 END FROM sessauth.ledger_state s), $3) ORDER BY l.n LIMIT $4",
		4, {UUIDOID, INT8OID, INT8OID, INT4OID}
	};
	LedgerCall	call;
	TupleDesc	desc;
	Tuplestorestate *rows;
	Datum		args[4];
	bool		nulls[4] = {PG_ARGISNULL(0), false, false, false};
	int			given = 0;
	uint64		count;
	int64		last = 0;

	require_arg(fcinfo, 1, "n");
	access_require(ACCESS_TO_LOG, NULL);
	rows = rowset_begin(fcinfo, LOG_COLUMNS, &desc);
	args[0] = PG_GETARG_DATUM(0);
	args[1] = PG_GETARG_DATUM(1);
	args[3] = Int32GetDatum(ROWS_PER_LOOK);
	ledger_begin(&call, fcinfo);
	ledger_go_by_index();
	do
	{
		args[2] = Int64GetDatum(last);
		count = ledger_run(&query, args, nulls);
		for (uint64 i = 0; i < count && given < ROWS_MAX; i++)
		{
			Datum		values[LOG_COLUMNS];
			bool		isnull[LOG_COLUMNS];

			last = ledger_int8(i, 2);
			if (!may_see(call.caller, ledger_text(i, 4)))
				continue;
			for (int c = 0; c < LOG_COLUMNS; c++)
				values[c] = ledger_datum(i, c + 1, &isnull[c]);
			tuplestore_putvalues(rows, desc, values, isnull);
			given++;
		}
	} while (count == ROWS_PER_LOOK && given < ROWS_MAX);
	ledger_end(&call);
	return (Datum) 0;
}

static bool
may_see(Oid caller, const char *tenant_id)
{
	if (tenant_id == NULL)
		return true;
	if (identity_tenant() != NULL && strcmp(tenant_id, identity_tenant()) != 0)
		return false;
	return access_is_unlimited(caller, ACCESS_TO_LOG) || access_allows(caller, ACCESS_TO_LOG, tenant_id);
}
