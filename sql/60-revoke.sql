/* Chapter 60: forced logout, blocking, suspending. C: src/ledger/revoke.c. */

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

CREATE FUNCTION sessauth.block_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_block_user';
COMMENT ON FUNCTION sessauth.block_user(text, text, text, text) IS
	'Ends every session of a user and refuses new logins; returns the event id, null when blocked already';

CREATE FUNCTION sessauth.unblock_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_unblock_user';
COMMENT ON FUNCTION sessauth.unblock_user(text, text, text, text) IS
	'Lets a user log in again; sessions of before stay dead; returns the event id, null when not blocked';

CREATE FUNCTION sessauth.suspend_tenant(tenant_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_suspend_tenant';
COMMENT ON FUNCTION sessauth.suspend_tenant(text, text, text) IS
	'Ends every session of a tenant and refuses new logins; returns the event id, null when suspended already';

CREATE FUNCTION sessauth.resume_tenant(tenant_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_resume_tenant';
COMMENT ON FUNCTION sessauth.resume_tenant(text, text, text) IS
	'Lets a tenant''s users log in again; sessions of before stay dead; returns the event id, null when not suspended';
