/*
 * verify.c
 *		verify and introspect: the authoritative check of a token.
 *
 * The token says who it was for; the ledger says whether that is still true,
 * on the newest committed state. Nothing is written, nothing is consumed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "ledger/bearer.h"
#include "server/settings.h"

#define VERIFIERS	(ACCESS_SERVICE | ACCESS_NODE)

static Datum verify_answer(FunctionCallInfo fcinfo, const Bearer *bearer);
static Datum introspect_answer(const Bearer *bearer);

PG_FUNCTION_INFO_V1(sessauth_verify);

/*
 * verify(access_token) → outcome, tenant_id, user_id, session_id, epoch, expires_at, claims.
 * Outcomes active, malformed, bad_signature, unknown_key, wrong_issuer, not_yet_valid, expired, revoked; cannot_tell on a standby
 * without sessauth.standby_verify.
 * The other columns are null unless the outcome is active. Throws 42501 without access, 22004 for a null token.
 */
Datum
sessauth_verify(PG_FUNCTION_ARGS)
{
	Bearer		bearer = {.outcome = "cannot_tell"};

	require_arg(fcinfo, 0, "access_token");
	access_require(VERIFIERS, NULL);
	if (bearer_can_tell())
	{
		bearer_read(fcinfo, GetUserId(), VERIFIERS, PG_GETARG_TEXT_PP(0), &bearer);
		if (bearer.is_refresh)
			bearer.outcome = "malformed";
	}
	return verify_answer(fcinfo, &bearer);
}

PG_FUNCTION_INFO_V1(sessauth_introspect);

/*
 * introspect(token) → jsonb as in RFC 7662, for an access or a refresh token; {"active": false} says nothing more.
 * Throws 25006 on a standby without sessauth.standby_verify, 42501 without access, 22004 for a null token.
 */
Datum
sessauth_introspect(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	Bearer		bearer;
	Datum		answer;

	require_arg(fcinfo, 0, "token");
	access_require(ACCESS_SERVICE | ACCESS_NODE, NULL);
	if (!bearer_can_tell())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("a standby cannot tell whether a token is active"),
				 errhint("Ask the primary, or set sessauth.standby_verify if an answer from the past will do.")));
	ledger_begin(&call, fcinfo);
	bearer_read(fcinfo, call.caller, VERIFIERS, PG_GETARG_TEXT_PP(0), &bearer);
	answer = introspect_answer(&bearer);
	ledger_end(&call);
	return answer;
}

static Datum
introspect_answer(const Bearer *bearer)
{
	static LedgerQuery inactive = {"SELECT '{\"active\": false}'::jsonb"};
	static LedgerQuery active = {
		"SELECT coalesce($1, '{}') || jsonb_strip_nulls(jsonb_build_object('active', true, 'token_type', $2, 'iss', $3, 'aud', $4,"
		" 'sub', $5, 'client_id', $6, 'username', $5, 'exp', extract(epoch FROM $7)::bigint, 'iat', $8,"
		" 'tid', $6, 'uid', $5, 'sid', $9, 'epoch', $10, 'tepoch', $11))",
		11, {JSONBOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID, UUIDOID, INT8OID, INT8OID}
	};
	Datum		values[11];
	bool		nulls[11] = {false};
	bool		isnull;

	if (strcmp(bearer->outcome, "active") != 0)
		ledger_run(&inactive, NULL, NULL);
	else
	{
		nulls[0] = bearer->claims == NULL;
		values[0] = JsonbPGetDatum(bearer->claims);
		values[1] = CStringGetTextDatum(bearer->is_refresh ? "refresh_token" : "Bearer");
		values[2] = CStringGetTextDatum(setting_issuer);
		values[3] = CStringGetTextDatum(setting_audience);
		values[4] = CStringGetTextDatum(bearer->session.user_id);
		values[5] = CStringGetTextDatum(bearer->session.tenant_id);
		values[6] = TimestampTzGetDatum(bearer->expires_at);
		nulls[7] = bearer->is_refresh;
		values[7] = Int64GetDatum(bearer->iat);
		values[8] = UUIDPGetDatum(&bearer->session.session_id);
		values[9] = Int64GetDatum(bearer->session.epoch);
		values[10] = Int64GetDatum(bearer->session.tenant_epoch);
		ledger_run(&active, values, nulls);
	}
	return JsonbPGetDatum(DatumGetJsonbPCopy(ledger_datum(0, 1, &isnull)));
}

static Datum
verify_answer(FunctionCallInfo fcinfo, const Bearer *bearer)
{
	static LedgerResult result;
	TupleDesc	desc = ledger_result(&result, fcinfo, 7);
	Datum		values[7] = {0};
	bool		nulls[7];

	memset(nulls, true, sizeof(nulls));
	nulls[0] = false;
	values[0] = CStringGetTextDatum(bearer->outcome);
	if (strcmp(bearer->outcome, "active") == 0)
	{
		memset(nulls, false, sizeof(nulls));
		values[1] = CStringGetTextDatum(bearer->session.tenant_id);
		values[2] = CStringGetTextDatum(bearer->session.user_id);
		values[3] = UUIDPGetDatum(&bearer->session.session_id);
		values[4] = Int64GetDatum(bearer->session.epoch);
		values[5] = TimestampTzGetDatum(bearer->expires_at);
		nulls[6] = bearer->claims == NULL;
		values[6] = JsonbPGetDatum(bearer->claims);
	}
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}
