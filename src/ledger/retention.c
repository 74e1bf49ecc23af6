/*
 * retention.c
 *		What is no longer needed in the table of sessions.
 *
 * The worker calls this; nothing in it is news, so it writes no event and a
 * mirror hears nothing: a session that goes has been dead for days, its keys in Redis have expired, and
 * the history of it stays. What somebody has locked is left for the next time.
 *
 * The salt of a rotation lets a retry of the parent token get the same successor, and is worthless to us once the
 * grace window has closed. Erasing it there and then would make a second write of every refresh. A session in use
 * gets a new salt with its next refresh anyway; so only a salt that has lain for an hour is erased here, which
 * is at most one more write for each time that a session falls idle. Until then it tells nothing to anybody who has not both the
 * used token and the sealed refresh key, and who has that key needs no salt to do harm.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "ledger/ledger.h"
#include "server/clock.h"
#include "server/settings.h"

#define SALT_AGE	(USECS_PER_HOUR)
#define VISIT_MAX	10000

StaticAssertDecl(SALT_AGE > REFRESH_GRACE_MAX * USECS_PER_SEC, "a salt must outlive every grace window");
StaticAssertDecl(ACCESS_TTL_MAX * USECS_PER_SEC <= USECS_PER_DAY, "a session must outlive its access tokens");

PG_FUNCTION_INFO_V1(sessauth_sweep_sessions);

/*
 * sweep_sessions(after uuid, visit integer) → last uuid, removed bigint, erased bigint. Looks at the next "visit" sessions in the order
 * of ids; "last" is where to go on, null at the end of the table. Throws 42501 to all but superusers and the owner, 22004,
 * 22023 when visit is out of range.
 */
Datum
sessauth_sweep_sessions(PG_FUNCTION_ARGS)
{
	static LedgerQuery bound = {
		"SELECT session_id FROM sessauth.session WHERE session_id > $1 ORDER BY session_id OFFSET $2 - 1 LIMIT 1",
		2, {UUIDOID, INT4OID}
	};
	static LedgerQuery remove = {
		"DELETE FROM sessauth.session WHERE session_id = ANY (ARRAY(SELECT session_id FROM sessauth.session"
		" WHERE session_id > $1 AND session_id <= coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff')"
		" AND access_expires_at < $3 AND (expires_at < $3 OR idle_expires_at < $3 OR ended_at < $3)"
		" FOR UPDATE SKIP LOCKED))", 3, {UUIDOID, UUIDOID, TIMESTAMPTZOID}
	};
	static LedgerQuery erase = {
		"UPDATE sessauth.session SET refresh_salt = NULL WHERE session_id = ANY (ARRAY(SELECT session_id FROM sessauth.session"
		" WHERE session_id > $1 AND session_id <= coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff')"
		" AND refresh_salt IS NOT NULL AND refreshed_at < $3"
		" FOR UPDATE SKIP LOCKED))", 3, {UUIDOID, UUIDOID, TIMESTAMPTZOID}
	};
	LedgerCall	call;
	TupleDesc	desc;
	Datum		values[3];
	Datum		answer[3];
	bool		nulls[3] = {false};
	bool		isnull;

	access_require_owner(fcinfo);
	require_arg(fcinfo, 0, "after");
	require_arg(fcinfo, 1, "visit");
	if (PG_GETARG_INT32(1) < 1 || PG_GETARG_INT32(1) > VISIT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid number of sessions to visit"),
				 errdetail("It must be between 1 and %d.", VISIT_MAX)));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	ledger_begin(&call, fcinfo);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	answer[0] = (Datum) 0;
	nulls[0] = ledger_run(&bound, values, NULL) == 0;
	if (!nulls[0])
	{
		pg_uuid_t  *last = palloc(sizeof(pg_uuid_t));

		*last = *DatumGetUUIDP(ledger_datum(0, 1, &isnull));
		answer[0] = UUIDPGetDatum(last);
	}
	values[1] = answer[0];
	ledger_action.unseen = true;
	values[2] = TimestampTzGetDatum(ledger_now() - setting_session_retention * USECS_PER_DAY);
	answer[1] = Int64GetDatum((int64) ledger_run(&remove, values, (bool[]) {false, nulls[0], false}));
	values[2] = TimestampTzGetDatum(ledger_now() - SALT_AGE);
	answer[2] = Int64GetDatum((int64) ledger_run(&erase, values, (bool[]) {false, nulls[0], false}));
	ledger_end(&call);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), answer, nulls)));
}
