/*
 * bearer.c
 *		The session that a token of either kind belongs to.
 *
 * verify, introspect, logout and authenticate all ask here, so that they can
 * never disagree on a token.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/builtins.h"

#include "core/refresh.h"
#include "core/token.h"
#include "ledger/bearer.h"
#include "ledger/signing.h"
#include "ledger/verified.h"
#include "server/clock.h"
#include "server/settings.h"

static void read_access(Oid caller, int accesses, const char *text, size_t len, Bearer *out);
static void read_refresh(Oid caller, int accesses, const char *text, size_t len, Bearer *out);
static bool find_session(Oid caller, int accesses, const pg_uuid_t *session_id, TimestampTz now, Bearer *out);

bool
bearer_can_tell(void)
{
	return setting_standby_verify || !RecoveryInProgress();
}

void
bearer_read(FunctionCallInfo fcinfo, Oid caller, int accesses, text *token, Bearer *out)
{
	const char *data = VARDATA_ANY(token);
	size_t		len = VARSIZE_ANY_EXHDR(token);

	memset(out, 0, sizeof(*out));
	signing_prepare(fcinfo, sa_refresh_looks_like(data, len));
	out->is_refresh = sa_refresh_looks_like(data, len);
	if (out->is_refresh)
		read_refresh(caller, accesses, data, len, out);
	else
		read_access(caller, accesses, data, len, out);
}

static void
read_access(Oid caller, int accesses, const char *text, size_t len, Bearer *out)
{
	TimestampTz now = ledger_now();
	const Verified *token;
	SaTokenResult result;

	result = verified_read(text, len, unix_seconds(now), &token);
	out->outcome = result == SA_TOKEN_OK ? "active" : sa_token_result_name(result);
	if (result != SA_TOKEN_OK && result != SA_TOKEN_EXPIRED && result != SA_TOKEN_NOT_YET_VALID)
		return;
	out->iat = token->iat;
	out->expires_at = from_unix_seconds(token->exp);
	out->claims = token->claims;

	/* To somebody of one tenant, a token of another is not from an issuer that concerns him. */
	if (!access_allows(caller, accesses, token->tid))
	{
		out->outcome = "wrong_issuer";
		return;
	}
	if (find_session(caller, accesses, &token->sid, now, out))
		out->has_session = strcmp(out->session.tenant_id, token->tid) == 0 && strcmp(out->session.user_id, token->uid) == 0 &&
			out->session.epoch == token->epoch && out->session.tenant_epoch == token->tepoch;
	if (result == SA_TOKEN_OK &&
		(!out->has_session || out->session.state != SESSION_LIVE || signing_is_revoked(token->kid)))
		out->outcome = "revoked";
}

/* Good is the current token of a live session; a used one is not, even where refresh_session would still answer it. */
static void
read_refresh(Oid caller, int accesses, const char *text, size_t len, Bearer *out)
{
	const unsigned char *key = signing_refresh_key();
	TimestampTz now = ledger_now();
	unsigned char hash[SA_DIGEST_LEN];
	pg_uuid_t	session_id;
	SaRefresh	token;

	out->outcome = "malformed";
	if (key == NULL || !sa_refresh_decode(key, text, len, &token) || !sa_sha256(text, len, hash))
		return;
	memcpy(session_id.data, token.sid, UUID_LEN);
	out->has_session = find_session(caller, accesses, &session_id, now, out);
	out->outcome = "revoked";
	if (!out->has_session)
		return;
	out->expires_at = Min(out->session.expires_at, out->session.idle_expires_at);
	if (out->session.state == SESSION_EXPIRED || out->session.state == SESSION_IDLE)
		out->outcome = "expired";
	else if (out->session.state == SESSION_LIVE)
	{
		bytea	   *current = session_bytea(&out->session, SC_HASH);

		if (current != NULL && VARSIZE_ANY_EXHDR(current) == SA_DIGEST_LEN && sa_equal(VARDATA_ANY(current), hash, SA_DIGEST_LEN))
			out->outcome = "active";
	}
}

static bool
find_session(Oid caller, int accesses, const pg_uuid_t *session_id, TimestampTz now, Bearer *out)
{
	return session_read(session_id, now, false, &out->session) &&
		access_allows(caller, accesses, out->session.tenant_id);
}
