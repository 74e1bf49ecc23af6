/*
 * identity.c
 *		authenticate: binds a verified token's tenant, user and session to the
 *		current transaction, for the application's own row-security policies.
 *
 * The binding lives in this process's memory, not in a setting: SET cannot
 * forge it. It ends with the transaction, so a pooled connection cannot hand it
 * to the next client, and with the savepoint in which it was made when that is rolled back.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "core/token.h"
#include "ledger/bearer.h"
#include "ledger/identity.h"

static struct
{
	bool		bound;
	SubTransactionId sub;
	char		tenant[SA_TENANT_ID_MAX + 1];
	char		user[SA_USER_ID_MAX + 1];
	pg_uuid_t	session;
} identity;

PG_FUNCTION_INFO_V1(sessauth_authenticate);

/*
 * authenticate(access_token) → void. Throws 28000 unless the token is active (also when another one was bound before:
 * then nothing is bound), 42501 without access.
 */
Datum
sessauth_authenticate(PG_FUNCTION_ARGS)
{
	Bearer		bearer = {.outcome = "cannot_tell"};

	access_require(ACCESS_SERVICE | ACCESS_NODE, NULL);
	identity.bound = false;
	if (PG_ARGISNULL(0))
		bearer.outcome = "malformed";
	else if (bearer_can_tell())
		bearer_read(fcinfo, GetUserId(), ACCESS_SERVICE | ACCESS_NODE, PG_GETARG_TEXT_PP(0), &bearer);
	if (bearer.is_refresh || strcmp(bearer.outcome, "active") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the access token is not active"),
				 errdetail("The outcome is \"%s\".", bearer.is_refresh ? "malformed" : bearer.outcome),
				 errhint("Refresh it with sessauth.refresh_session(), or let the user log in again."),
				 errhidestmt(true)));
	strlcpy(identity.tenant, bearer.session.tenant_id, sizeof(identity.tenant));
	strlcpy(identity.user, bearer.session.user_id, sizeof(identity.user));
	identity.session = bearer.session.session_id;
	identity.sub = GetCurrentSubTransactionId();
	identity.bound = true;
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sessauth_current_tenant);

/* current_tenant() → text; null when the transaction is not authenticated, as the next two. */
Datum
sessauth_current_tenant(PG_FUNCTION_ARGS)
{
	if (!identity.bound)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(identity.tenant));
}

PG_FUNCTION_INFO_V1(sessauth_current_user_id);

/* current_user_id() → text */
Datum
sessauth_current_user_id(PG_FUNCTION_ARGS)
{
	if (!identity.bound)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(identity.user));
}

PG_FUNCTION_INFO_V1(sessauth_current_session_id);

/* current_session_id() → uuid */
Datum
sessauth_current_session_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *result;

	if (!identity.bound)
		PG_RETURN_NULL();
	result = palloc(sizeof(pg_uuid_t));
	*result = identity.session;
	PG_RETURN_UUID_P(result);
}

const char *
identity_tenant(void)
{
	return identity.bound ? identity.tenant : NULL;
}

const char *
identity_user(void)
{
	return identity.bound ? identity.user : NULL;
}

void
identity_forget(void)
{
	identity.bound = false;
}

void
identity_subtransaction(bool aborted, unsigned int sub, unsigned int parent)
{
	if (!identity.bound || identity.sub != sub)
		return;
	if (aborted)
		identity.bound = false;
	else
		identity.sub = parent;
}
