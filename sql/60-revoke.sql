/* Chapter 60: forced logout. C: src/ledger/revoke.c. */

CREATE FUNCTION sessauth.revoke_session(tenant_id text, session_id uuid, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_session';
COMMENT ON FUNCTION sessauth.revoke_session(text, uuid, text, text) IS
	'Ends one session; returns the event id, null when it is unknown or already ended';

CREATE FUNCTION sessauth.revoke_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_user';
COMMENT ON FUNCTION sessauth.revoke_user(text, text, text, text) IS
	'Ends every session of a user by raising the user''s epoch; returns the event id';

CREATE FUNCTION sessauth.revoke_other_sessions(
	tenant_id text, user_id text, keep uuid, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_other_sessions';
COMMENT ON FUNCTION sessauth.revoke_other_sessions(text, text, uuid, text, text) IS
	'Ends every session of a user but one; returns the id of the last event, null when there are no others';

CREATE FUNCTION sessauth.revoke_tenant(tenant_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_tenant';
COMMENT ON FUNCTION sessauth.revoke_tenant(text, text, text) IS
	'Ends every session of a tenant by raising its epoch; returns the event id';
