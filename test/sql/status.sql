-- status(): what is in order, and what is not, with a hint.
SET client_min_messages = warning;
DROP ROLE IF EXISTS sessauth_doctor, sessauth_ward, sessauth_visitor;
CREATE ROLE sessauth_doctor; CREATE ROLE sessauth_ward; CREATE ROLE sessauth_visitor;
SELECT sessauth.create_tenant('status_acme') IS NOT NULL AS acme;
SELECT sessauth.grant_access('sessauth_doctor', 'auditor');
SELECT sessauth.grant_access('sessauth_ward', 'auditor', 'status_acme');
SELECT sessauth.grant_access('sessauth_visitor', 'service');
SELECT length(sessauth.create_signing_key()) AS kid_length;

-- a state and a detail for each, a hint wherever something is to be done
SELECT check_name, bool_and(state IN ('ok', 'warning', 'error') AND detail <> '') AS said, bool_and(state = 'ok' OR hint <> '') AS hinted
	FROM sessauth.status() GROUP BY check_name ORDER BY check_name COLLATE "C";
SELECT check_name, state, hint FROM sessauth.status()
	WHERE check_name IN ('preload', 'version', 'server', 'ledger', 'signing_keys', 'master_key', 'history');
SELECT count(*) AS secrets FROM sessauth.status(), sessauth.secret s WHERE detail || coalesce(hint, '') LIKE '%' || encode(s.sealed, 'hex') || '%';

-- what is wrong
BEGIN;
UPDATE sessauth.signing_key SET revoked_at = now() WHERE revoked_at IS NULL;
SELECT check_name, state, detail, hint FROM sessauth.status() WHERE check_name = 'signing_keys';
ROLLBACK;
BEGIN;
SET LOCAL session_replication_role = origin;
UPDATE sessauth.secret SET sealed_by = '0123456789abcdef';
SELECT check_name, state, regexp_replace(detail, '(has the one with id )[0-9a-f]{16}', '\1...') AS detail, hint FROM sessauth.status() WHERE check_name = 'master_key';
ROLLBACK;
BEGIN;
SELECT sessauth.add_mirror('status_none', 'unix:///nowhere');
SELECT check_name, state <> 'ok' AS not_streaming, detail ~ 'status_none' AS named, hint <> '' AS hinted FROM sessauth.status() WHERE check_name = 'mirrors' AND detail ~ 'status_none';
ROLLBACK;
BEGIN;
DELETE FROM sessauth.ledger_state;
SELECT check_name, state, detail, hint FROM sessauth.status() WHERE check_name = 'ledger';
ROLLBACK;

-- what is broken does not break it
BEGIN;
ALTER TABLE sessauth.signing_key RENAME TO away;
ALTER TABLE sessauth.secret RENAME TO gone;
ALTER TABLE sessauth.mirror RENAME TO lost;
SELECT check_name, state, detail, hint FROM sessauth.status() WHERE check_name IN ('signing_keys', 'master_key', 'mirrors');
SELECT current_user = session_user AS still_me, current_setting('search_path') AS path;
ROLLBACK;
BEGIN;
SAVEPOINT a;
SELECT count(*) > 10 AS in_a_savepoint FROM sessauth.status();
ROLLBACK TO a;
COMMIT;
BEGIN READ ONLY;
SELECT count(*) > 10 AS read_only FROM sessauth.status();
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) > 10 AS serializable FROM sessauth.status();
COMMIT;

-- who may ask
SET ROLE sessauth_doctor;
SELECT count(*) > 10 AS an_auditor_sees, count(*) FILTER (WHERE detail ~ 'failed') AS failed FROM sessauth.status();
SET ROLE sessauth_ward;
SELECT count(*) AS an_auditor_of_one_tenant_sees FROM sessauth.status();
SET ROLE sessauth_visitor;
SELECT * FROM sessauth.status();
RESET ROLE;
SELECT sessauth.revoke_access('sessauth_doctor', 'auditor'), sessauth.revoke_access('sessauth_ward', 'auditor', 'status_acme'), sessauth.revoke_access('sessauth_visitor', 'service');
SELECT sessauth.drop_tenant('status_acme') IS NOT NULL AS dropped;
DROP ROLE sessauth_doctor, sessauth_ward, sessauth_visitor;
