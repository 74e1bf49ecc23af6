/*
 * adopt.c
 *		Takes back what a mirror remembers and this ledger does not.
 *
 * A ledger that was restored from an older backup, or promoted without its last transactions, has
 * forgotten revocations that a mirror still carries under the ledger's own MAC. The worker proves that, and hands
 * them over here one by one. Epochs are raised above what the mirror has, by the one sequence, so that
 * no later revocation can get a number that was used before.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "ledger/ledger.h"
#include "server/wake.h"

#define KIND	"revocation_adopted"
#define REASON	"a mirror remembered it"

/* The arguments of adopt(), as every statement here takes them. */
enum
{
	A_KIND, A_TENANT, A_USER, A_SESSION, A_KID, A_EPOCH, A_UNTIL, A_COUNT
};
#define A_TYPES {TEXTOID, TEXTOID, TEXTOID, UUIDOID, TEXTOID, INT8OID, TIMESTAMPTZOID}

/* How each kind of revocation is looked up, carried out, and recognised in the history when its row is gone. */
typedef struct Adoption
{
	const char *kind;
	LedgerQuery look;			/* one row: is it known? none: there is no such row */
	LedgerQuery change;			/* unless somebody has locked the row */
	LedgerQuery recall;
} Adoption;

static Adoption adoptions[] = {
	{"user",
		{"SELECT epoch >= $6 FROM sessauth.tenant_user WHERE tenant_id = $2 AND user_id = $3", A_COUNT, A_TYPES},
		{"UPDATE sessauth.tenant_user SET epoch = $6 WHERE (tenant_id, user_id) = (SELECT tenant_id, user_id"
			" FROM sessauth.tenant_user WHERE tenant_id = $2 AND user_id = $3 AND epoch < $6 FOR UPDATE SKIP LOCKED)", A_COUNT, A_TYPES},
	{"SELECT 1 FROM sessauth.event WHERE tenant_id = $2 AND user_id = $3 AND epoch >= $6 LIMIT 1", A_COUNT, A_TYPES}},
	{"tenant",
		{"SELECT epoch >= $6 FROM sessauth.tenant WHERE tenant_id = $2", A_COUNT, A_TYPES},
		{"UPDATE sessauth.tenant SET epoch = $6 WHERE tenant_id = (SELECT tenant_id"
			" FROM sessauth.tenant WHERE tenant_id = $2 AND epoch < $6 FOR UPDATE SKIP LOCKED)", A_COUNT, A_TYPES},
	{"SELECT 1 FROM sessauth.event WHERE tenant_id = $2 AND user_id IS NULL AND epoch >= $6 LIMIT 1", A_COUNT, A_TYPES}},
	{"session",
		{"SELECT ended_at IS NOT NULL FROM sessauth.session WHERE session_id = $4", A_COUNT, A_TYPES},
		{"UPDATE sessauth.session SET ended_at = sessauth.ledger_time(), end_reason = '" REASON "' WHERE session_id ="
			" (SELECT session_id FROM sessauth.session WHERE session_id = $4 AND ended_at IS NULL FOR UPDATE SKIP LOCKED)", A_COUNT, A_TYPES},
	{"SELECT 1 FROM sessauth.event WHERE tenant_id = $2 AND user_id = $3 AND session_id = $4"
	" AND (revokes = 'session' OR NOT live) LIMIT 1", A_COUNT, A_TYPES}},
	{"key",
		{"SELECT revoked_at IS NOT NULL FROM sessauth.signing_key WHERE kid = $5", A_COUNT, A_TYPES},
		{"UPDATE sessauth.signing_key SET revoked_at = sessauth.ledger_time(), sealed = NULL WHERE kid ="
			" (SELECT kid FROM sessauth.signing_key WHERE kid = $5 AND revoked_at IS NULL FOR UPDATE SKIP LOCKED)", A_COUNT, A_TYPES},
	{"SELECT 1 FROM sessauth.event WHERE kid = $5 AND (revokes = 'key' OR kind = 'key_deleted') LIMIT 1", A_COUNT, A_TYPES}},
};

static void pass_epoch(int64 epoch);

PG_FUNCTION_INFO_V1(sessauth_adopt);

/*
 * adopt(kind, tenant_id, user_id, session_id, kid, epoch, until) → boolean: true when the ledger did not know this
 * revocation, and does now; false when it did; null when somebody has locked its row: try again later. A null until
 * says that no token can need it any more: then it changes rows that are there, and is not recorded for others. Throws
 * 22023 for an unknown kind, 42501 for anybody but
 * superusers and the owner, and in a transaction of another tenant.
 */
Datum
sessauth_adopt(PG_FUNCTION_ARGS)
{
	static LedgerQuery record = {
		"INSERT INTO sessauth.event (kind, revokes, tenant_id, user_id, session_id, kid, epoch, until, at, reason)"
		" VALUES ('" KIND "', $1, coalesce($2, ''), $3, $4, $5, $6, $7, sessauth.ledger_time(), '" REASON "')", A_COUNT, A_TYPES
	};
	LedgerCall	call;
	Adoption   *adoption = NULL;
	Datum		values[A_COUNT];
	bool		nulls[A_COUNT];
	char	   *kind;
	bool		adopted = false;
	bool		locked = false;

	access_require_owner(fcinfo);
	access_require_own_tenant(PG_ARGISNULL(A_TENANT) ? NULL : TextDatumGetCString(PG_GETARG_DATUM(A_TENANT)));
	require_arg(fcinfo, A_KIND, "kind");
	kind = text_to_cstring(PG_GETARG_TEXT_PP(A_KIND));
	for (int i = 0; i < lengthof(adoptions); i++)
		if (strcmp(adoptions[i].kind, kind) == 0)
			adoption = &adoptions[i];
	if (adoption == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown kind of revocation \"%s\"", kind),
				 errhint("Use user, tenant, session or key.")));
	for (int i = 0; i < A_COUNT; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i);
	}

	ledger_begin(&call, fcinfo);
	ledger_activate();
	ledger_action.kind = KIND;
	ledger_action.reason = REASON;
	if (!nulls[A_EPOCH])
		pass_epoch(DatumGetInt64(values[A_EPOCH]));
	if (ledger_run(&adoption->look, values, nulls) > 0)
	{
		bool		isnull;

		if (!DatumGetBool(ledger_datum(0, 1, &isnull)))
		{
			adopted = ledger_run(&adoption->change, values, nulls) > 0;
			locked = !adopted;
		}
	}
	else if (!nulls[A_UNTIL] && ledger_run(&adoption->recall, values, nulls) == 0)
	{
		ledger_run(&record, values, nulls);
		wake_worker_at_commit();
		adopted = true;
	}
	ledger_end(&call);
	if (locked)
		PG_RETURN_NULL();
	PG_RETURN_BOOL(adopted);
}

/* No epoch that is drawn from now on is below one that was used. */
static void
pass_epoch(int64 epoch)
{
	static LedgerQuery pass = {
		"SELECT setval('sessauth.epoch_seq', $1) FROM sessauth.epoch_seq WHERE last_value < $1", 1, {INT8OID}
	};
	Datum		value = Int64GetDatum(epoch);

	ledger_run(&pass, &value, NULL);
}
