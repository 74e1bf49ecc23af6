/*
 * verify.c
 *		verify: the authoritative check of an access token.
 *
 * The token says who it was for; the ledger says whether that is still true,
 * on the newest committed state. Nothing is written.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "core/encoding.h"
#include "core/token.h"
#include "ledger/ledger.h"
#include "ledger/session.h"
#include "ledger/signing.h"
#include "server/clock.h"
#include "server/settings.h"

static const char *decide(Oid caller, const char *text, size_t len, SaToken *token);
static Datum verify_answer(FunctionCallInfo fcinfo, const char *outcome, const SaToken *token, const char *claims);

PG_FUNCTION_INFO_V1(sessauth_verify);

/*
 * verify(access_token) → outcome, tenant_id, user_id, session_id, epoch, expires_at, claims.
 * Outcomes active, malformed, bad_signature, unknown_key, wrong_issuer, not_yet_valid, expired, revoked; cannot_tell on a standby.
 * The other columns are null unless the outcome is active. Throws 42501 without access, 22004 for a null token.
 */
Datum
sessauth_verify(PG_FUNCTION_ARGS)
{
	LedgerCall	call;
	SaToken		token = {0};
	const char *outcome;
	text	   *presented;
	char	   *claims = NULL;

	require_arg(fcinfo, 0, "access_token");
	access_require(ACCESS_SERVICE | ACCESS_NODE, NULL);
	presented = PG_GETARG_TEXT_PP(0);
	if (RecoveryInProgress())
		return verify_answer(fcinfo, "cannot_tell", &token, NULL);

	ledger_begin(&call, fcinfo);
	signing_refresh();			/* everything that may throw comes before the reader allocates */
	outcome = decide(call.caller, VARDATA_ANY(presented), VARSIZE_ANY_EXHDR(presented), &token);
	if (token.claims)
	{
		claims = MemoryContextAllocExtended(CurrentMemoryContext, strlen(token.claims) + 1, MCXT_ALLOC_NO_OOM);
		if (claims)
			strcpy(claims, token.claims);
	}
	sa_token_free(&token);
	ledger_end(&call);
	return verify_answer(fcinfo, outcome, &token, claims);
}

static const char *
decide(Oid caller, const char *text, size_t len, SaToken *token)
{
	SaTokenRules rules = {0};
	SaTokenResult result;
	SessionRow	session;
	pg_uuid_t	session_id;
	const char *outcome;

	rules.issuer = setting_issuer;
	rules.audience = setting_audience;
	rules.now = unix_seconds(ledger_now());
	rules.want_claims = true;
	result = sa_token_read(text, len, signing_lookup, NULL, &rules, token);
	if (result == SA_TOKEN_ERROR)
	{
		sa_token_free(token);
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not check a token")));
	}
	if (result != SA_TOKEN_OK)
		return sa_token_result_name(result);
	if (signing_is_revoked(token->kid))
		return "revoked";

	/* The reader's memory is not palloc'ed, so an error of the statement must not jump over it. */
	PG_TRY();
	{
		bool		found;

		/* To somebody of one tenant, a token of another is not from an issuer that concerns him. */
		if (!access_allows(caller, ACCESS_SERVICE | ACCESS_NODE, token->tid))
			outcome = "wrong_issuer";
		else
		{
			found = sa_uuid_decode(token->sid, strlen(token->sid), session_id.data) &&
				session_read(&session_id, ledger_now(), false, &session);
			if (!found || session.state != SESSION_LIVE ||
				strcmp(session.tenant_id, token->tid) != 0 || strcmp(session.user_id, token->uid) != 0 ||
				session.epoch != token->epoch || session.tenant_epoch != token->tepoch)
				outcome = "revoked";
			else
				outcome = "active";
		}
	}
	PG_CATCH();
	{
		sa_token_free(token);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return outcome;
}

static Datum
verify_answer(FunctionCallInfo fcinfo, const char *outcome, const SaToken *token, const char *claims)
{
	TupleDesc	desc;
	Datum		values[7] = {0};
	bool		nulls[7];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != lengthof(values))
		elog(ERROR, "sessauth: the function's result type is not what the library was built for");
	memset(nulls, true, sizeof(nulls));
	nulls[0] = false;
	values[0] = CStringGetTextDatum(outcome);
	if (strcmp(outcome, "active") == 0)
	{
		memset(nulls, false, sizeof(nulls));
		values[1] = CStringGetTextDatum(token->tid);
		values[2] = CStringGetTextDatum(token->uid);
		values[3] = DirectFunctionCall1(uuid_in, CStringGetDatum(token->sid));
		values[4] = Int64GetDatum(token->epoch);
		values[5] = TimestampTzGetDatum(from_unix_seconds(token->exp));
		nulls[6] = claims == NULL;
		if (claims)
			values[6] = DirectFunctionCall1(jsonb_in, CStringGetDatum(claims));
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
