-- authenticate: the transaction's identity, for an application's own policies.
SET client_min_messages = warning;
DROP ROLE IF EXISTS sessauth_web;
CREATE ROLE sessauth_web;
SELECT sessauth.create_tenant('i_acme') IS NOT NULL AS acme, sessauth.create_tenant('i_other') IS NOT NULL AS other;
SELECT length(sessauth.create_signing_key()) AS kid_length;
SELECT sessauth.grant_access('sessauth_web', 'service');
SELECT * FROM sessauth.issue_session('i_acme', 'alice') \gset a_
SELECT * FROM sessauth.issue_session('i_other', 'oscar') \gset o_
CREATE TABLE i_note (tenant text, note text);
INSERT INTO i_note SELECT t, t || ' ' || n FROM unnest(ARRAY['i_acme', 'i_other']) t, generate_series(1, 2) n;
ALTER TABLE i_note ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON i_note USING (tenant = (SELECT sessauth.current_tenant()));
GRANT SELECT ON i_note TO sessauth_web;
SET ROLE sessauth_web;

-- nobody without a token, the own tenant with one, nobody again afterwards
SELECT count(*) FROM i_note;
BEGIN;
SELECT sessauth.authenticate(:'a_access_token');
SELECT sessauth.current_tenant(), sessauth.current_user_id(), sessauth.current_session_id() = :'a_session_id' AS session;
SELECT * FROM i_note ORDER BY 1, 2;
COMMIT;
SELECT sessauth.current_tenant() IS NULL AS gone, count(*) FROM i_note;

-- it cannot be forged with SET
SET sessauth.tenant = 'i_acme';
SET sessauth.current_tenant = 'i_acme';
SELECT count(*) FROM i_note;

-- a rolled back savepoint takes its binding with it; a failed call leaves nothing bound
BEGIN;
SAVEPOINT s;
SELECT sessauth.authenticate(:'a_access_token');
ROLLBACK TO s;
SELECT sessauth.current_tenant() IS NULL AS unbound;
SAVEPOINT s2;
SELECT sessauth.authenticate(:'a_access_token');
RELEASE s2;
SELECT sessauth.current_tenant();
SAVEPOINT s3;
SELECT sessauth.authenticate('garbage');
ROLLBACK TO s3;
SELECT sessauth.current_tenant() IS NULL AS unbound;
COMMIT;

-- in parallel plans the leader answers
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
BEGIN;
SELECT sessauth.authenticate(:'o_access_token');
SELECT count(*) FROM i_note;
COMMIT;

-- an authenticated administrator acts within the own tenant, under the own name
BEGIN;
SELECT sessauth.authenticate(:'a_access_token');
SELECT sessauth.revoke_user('i_acme', 'somebody', 'why', 'not my name') IS NOT NULL AS revoked;
SELECT sessauth.revoke_user('i_other', 'oscar');
ROLLBACK;
BEGIN;
SELECT sessauth.authenticate(:'a_access_token');
SELECT sessauth.revoke_user('i_acme', 'somebody', 'why', 'not my name') IS NOT NULL AS revoked;
COMMIT;

-- refused
SELECT sessauth.authenticate(:'a_refresh_token');
SELECT sessauth.authenticate(NULL);
RESET ROLE;
SELECT sessauth.revoke_user('i_acme', 'alice') IS NOT NULL AS revoked;
SELECT sessauth.authenticate(:'a_access_token');
SELECT kind, user_id, actor, reason FROM sessauth.history WHERE tenant_id = 'i_acme' AND kind = 'user_revoked' ORDER BY event_id;
SELECT sessauth.revoke_access('sessauth_web', 'service');
DROP TABLE i_note;
DROP ROLE sessauth_web;
