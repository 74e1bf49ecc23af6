-- Who may do what. Denied by default.
SET client_min_messages = warning;
DROP ROLE IF EXISTS sessauth_app, sessauth_node, sessauth_admin, sessauth_audit, sessauth_nobody, sessauth_child;
CREATE ROLE sessauth_app; CREATE ROLE sessauth_node; CREATE ROLE sessauth_admin; CREATE ROLE sessauth_audit;
CREATE ROLE sessauth_nobody; CREATE ROLE sessauth_child IN ROLE sessauth_app;
SELECT sessauth.create_tenant('x_acme') IS NOT NULL AS acme, sessauth.create_tenant('x_other') IS NOT NULL AS other;
SELECT length(sessauth.create_signing_key()) AS kid_length;
SELECT sessauth.grant_access('sessauth_app', 'service', 'x_acme');
SELECT sessauth.grant_access('sessauth_node', 'node');
SELECT sessauth.grant_access('sessauth_admin', 'tenant_admin', 'x_acme');
SELECT sessauth.grant_access('sessauth_audit', 'auditor');
SELECT * FROM sessauth.issue_session('x_acme', 'alice') \gset a_
SELECT * FROM sessauth.issue_session('x_other', 'alice') \gset o_

-- nothing is for everybody
SELECT p.oid::regprocedure AS callable_by_public FROM pg_proc p
	WHERE pronamespace = 'sessauth'::regnamespace AND has_function_privilege('sessauth_nobody', p.oid, 'EXECUTE');
SELECT c.oid::regclass AS readable_by_public FROM pg_class c
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v')
	AND has_any_column_privilege('sessauth_nobody', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES');
SELECT c.oid::regclass AS without_row_security FROM pg_class c
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity);
-- no role has any right to write, or to attach a trigger
SELECT r.rolname, c.oid::regclass FROM pg_class c, pg_roles r
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v') AND r.rolname LIKE 'sessauth\_%'
	AND has_table_privilege(r.rolname, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER');
-- no definer function, and every function is in C
SELECT p.oid::regprocedure AS definer_or_not_c FROM pg_proc p JOIN pg_language l ON l.oid = prolang
	WHERE pronamespace = 'sessauth'::regnamespace AND (prosecdef OR lanname <> 'c');

SET ROLE sessauth_nobody;
SELECT sessauth.issue_session('x_acme', 'alice');
RESET ROLE;
-- EXECUTE alone is not enough
GRANT USAGE ON SCHEMA sessauth TO sessauth_nobody;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sessauth TO sessauth_nobody;
SET ROLE sessauth_nobody;
SELECT sessauth.issue_session('x_acme', 'alice');
SELECT sessauth.refresh_session('sar_x');
SELECT sessauth.verify('x');
SELECT sessauth.revoke_tenant('x_acme');
SELECT sessauth.jwks();
SELECT sessauth.link_key();
SELECT sessauth.create_tenant('x_mine');
SELECT sessauth.create_signing_key();
SELECT sessauth.grant_access('sessauth_nobody', 'service');
SELECT sessauth.reads_all(), sessauth.reads_tenants();
RESET ROLE;

-- a service of one tenant, directly and through membership
SET ROLE sessauth_app;
SELECT outcome FROM sessauth.issue_session('x_acme', 'bob');
SELECT outcome FROM sessauth.issue_session('x_other', 'bob');
SELECT sessauth.issue_session('x_nowhere', 'bob');
SELECT sessauth.revoke_user('x_other', 'alice');
SELECT outcome FROM sessauth.verify(:'a_access_token');
SELECT outcome, tenant_id, user_id FROM sessauth.verify(:'o_access_token');
SELECT outcome FROM sessauth.refresh_session(:'o_refresh_token');
SELECT sessauth.link_key();
SELECT count(*) FROM sessauth.session;
SELECT count(*) FROM sessauth.sessions;
SET ROLE sessauth_child;
SELECT outcome FROM sessauth.issue_session('x_acme', 'bob');
RESET ROLE;
SELECT outcome AS untouched FROM sessauth.refresh_session(:'o_refresh_token');

-- a node verifies everybody and mints nothing
SET ROLE sessauth_node;
SELECT outcome FROM sessauth.verify(:'a_access_token');
SELECT octet_length(sessauth.link_key()) AS link_key_bytes;
SELECT jsonb_array_length(sessauth.jwks() -> 'keys') > 0 AS has_keys;
SELECT sessauth.jwks()::text ~ '"d"' AS private_parts;
SELECT sessauth.issue_session('x_acme', 'bob');
SELECT sessauth.revoke_user('x_acme', 'alice');
RESET ROLE;

-- a tenant's administrator sees and ends the tenant's own
SET ROLE sessauth_admin;
SELECT DISTINCT tenant_id FROM sessauth.sessions;
SELECT DISTINCT tenant_id FROM sessauth.history;
SELECT DISTINCT tenant_id FROM sessauth.tenant;
SELECT refresh_hash FROM sessauth.session;
SELECT sessauth.revoke_user('x_acme', 'alice', 'by the admin') IS NOT NULL AS revoked;
SELECT sessauth.revoke_user('x_other', 'alice');
SELECT sessauth.issue_session('x_acme', 'alice');
RESET ROLE;

-- an auditor reads everything but secrets
SET ROLE sessauth_audit;
SELECT count(DISTINCT tenant_id) >= 2 AS several_tenants FROM sessauth.sessions;
SELECT sessauth.revoke_user('x_acme', 'alice');
SELECT sealed FROM sessauth.secret;
SELECT sealed FROM sessauth.signing_key;
SELECT client_claims FROM sessauth.session;
RESET ROLE;

-- taking access back
SELECT sessauth.revoke_access('sessauth_app', 'service', 'x_acme');
SELECT sessauth.revoke_access('sessauth_app', 'service', 'x_acme') AS twice;
SET ROLE sessauth_child;
SELECT sessauth.issue_session('x_acme', 'bob');
RESET ROLE;
SELECT kind, tenant_id, before - 'granted_at' AS before, after FROM sessauth.history WHERE kind LIKE 'access%' ORDER BY event_id;

-- refused
SELECT sessauth.grant_access('sessauth_app', 'everything');
SELECT sessauth.grant_access('sessauth_missing', 'service');
SELECT sessauth.grant_access('sessauth_app', 'service', 'x_nowhere');
SELECT sessauth.grant_access('sessauth_app', 'tenant_admin');
SELECT sessauth.grant_access('sessauth_app', 'node', 'x_acme');
SELECT sessauth.grant_access(NULL, 'service');

SELECT sessauth.revoke_access('sessauth_node', 'node'), sessauth.revoke_access('sessauth_admin', 'tenant_admin', 'x_acme'),
	sessauth.revoke_access('sessauth_audit', 'auditor');
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sessauth FROM sessauth_nobody;
REVOKE USAGE ON SCHEMA sessauth FROM sessauth_nobody;
DROP ROLE sessauth_app, sessauth_node, sessauth_admin, sessauth_audit, sessauth_nobody, sessauth_child;
