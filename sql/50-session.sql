/*
 * Chapter 50: sessions. Login (src/ledger/login.c), refresh (refresh.c),
 * verify and introspect (verify.c), logout (logout.c), the transaction's
 * identity (identity.c), and who is logged in where (session.c).
 */

CREATE FUNCTION sessauth.issue_session(
	tenant_id text, user_id text, device text DEFAULT NULL, ip inet DEFAULT NULL, user_agent text DEFAULT NULL,
	claims jsonb DEFAULT NULL,
	OUT outcome text, OUT session_id uuid, OUT access_token text, OUT access_expires_at timestamptz,
	OUT refresh_token text, OUT refresh_expires_at timestamptz, OUT epoch bigint, OUT evicted uuid[])
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_issue_session';
COMMENT ON FUNCTION sessauth.issue_session(text, text, text, inet, text, jsonb) IS
	'Login of a user on one device; outcomes ok, limit_reached, user_blocked, tenant_suspended; throws 42704 for an unknown tenant';

CREATE FUNCTION sessauth.refresh_session(
	refresh_token text, ip inet DEFAULT NULL, user_agent text DEFAULT NULL,
	OUT outcome text, OUT session_id uuid, OUT access_token text, OUT access_expires_at timestamptz,
	OUT refresh_token text, OUT refresh_expires_at timestamptz, OUT epoch bigint, OUT evicted uuid[])
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_refresh_session';
COMMENT ON FUNCTION sessauth.refresh_session(text, inet, text) IS
	'Exchanges a refresh token for new tokens; outcomes ok, reused, expired, idle, revoked, unknown';

CREATE FUNCTION sessauth.verify(
	access_token text,
	OUT outcome text, OUT tenant_id text, OUT user_id text, OUT session_id uuid, OUT epoch bigint,
	OUT expires_at timestamptz, OUT claims jsonb)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_verify';
COMMENT ON FUNCTION sessauth.verify(text) IS
	'Authoritative check on the newest committed state; outcomes active, malformed, bad_signature, unknown_key, wrong_issuer, not_yet_valid, expired, revoked; on a standby cannot_tell, unless sessauth.standby_verify is on';

CREATE FUNCTION sessauth.introspect(token text) RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_introspect';
COMMENT ON FUNCTION sessauth.introspect(text) IS
	'RFC 7662 for an access or a refresh token; never consumes one; {"active": false} says nothing more';

CREATE FUNCTION sessauth.logout(token text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_logout';
COMMENT ON FUNCTION sessauth.logout(text) IS
	'Ends the session of an access or refresh token, an expired one included (RFC 7009); false when there was none to end';

CREATE FUNCTION sessauth.list_sessions(
	tenant_id text, user_id text,
	OUT session_id uuid, OUT device text, OUT ip inet, OUT user_agent text, OUT created_at timestamptz,
	OUT refreshed_at timestamptz, OUT expires_at timestamptz) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_list_sessions';
COMMENT ON FUNCTION sessauth.list_sessions(text, text) IS 'The live sessions of a user, the newest first: for a "your devices" page';

CREATE FUNCTION sessauth.authenticate(access_token text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_authenticate';
COMMENT ON FUNCTION sessauth.authenticate(text) IS
	'Verifies, and binds tenant, user and session to the current transaction; throws 28000 when the token is not active';

CREATE FUNCTION sessauth.current_tenant() RETURNS text
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_current_tenant';
COMMENT ON FUNCTION sessauth.current_tenant() IS
	'The tenant of the authenticated transaction, else null; in policies write (SELECT sessauth.current_tenant())';

CREATE FUNCTION sessauth.current_user_id() RETURNS text
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_current_user_id';
COMMENT ON FUNCTION sessauth.current_user_id() IS 'The user of the authenticated transaction, else null';

CREATE FUNCTION sessauth.current_session_id() RETURNS uuid
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_current_session_id';
COMMENT ON FUNCTION sessauth.current_session_id() IS 'The session of the authenticated transaction, else null';

CREATE FUNCTION sessauth.session_state(
	ended_at timestamptz, expires_at timestamptz, idle_expires_at timestamptz,
	epoch bigint, user_epoch bigint, tenant_epoch bigint, tenant_epoch_now bigint) RETURNS text
	LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'sessauth_session_state';
COMMENT ON FUNCTION sessauth.session_state(timestamptz, timestamptz, timestamptz, bigint, bigint, bigint, bigint) IS
	'The liveness rule: live, or ended, user revoked, tenant revoked, expired, idle';

CREATE FUNCTION sessauth.sweep_sessions(after uuid, visit integer, OUT last uuid, OUT removed bigint, OUT erased bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_sweep_sessions';
COMMENT ON FUNCTION sessauth.sweep_sessions(uuid, integer) IS
	'The worker''s: removes sessions that ended or expired longer ago than sessauth.session_retention, and erases old salts, among the next ones in the order of ids; throws 22023';

/* On PostgreSQL 14, which has no security_invoker, the predicate alone holds the tenants apart. */
CREATE VIEW sessauth.sessions WITH (security_barrier) AS
	SELECT s.tenant_id, s.user_id, s.session_id,
		sessauth.session_state(s.ended_at, s.expires_at, s.idle_expires_at, s.epoch, u.epoch, s.tenant_epoch, t.epoch) AS state,
		s.device, s.ip, s.user_agent, s.created_at, s.refreshed_at, s.expires_at, s.idle_expires_at, s.access_expires_at,
		s.ended_at, s.end_reason
	FROM sessauth.session s
	LEFT JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id
	LEFT JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id
	WHERE sessauth.in_reach(s.tenant_id)
		AND ((SELECT sessauth.reads_all()) OR s.tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
COMMENT ON VIEW sessauth.sessions IS 'Who is logged in where, live or why not';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.sessions SET (security_invoker = true);
	END IF;
END
$$;
