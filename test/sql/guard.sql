-- Plain statements of a DBA are recorded like calls, and cannot break what the ledger promises.
SELECT sessauth.create_tenant('g_acme') IS NOT NULL AS created;
SELECT length(sessauth.create_signing_key()) AS kid_length;
SELECT * FROM sessauth.issue_session('g_acme', 'alice') \gset a_
SELECT * FROM sessauth.issue_session('g_acme', 'alice') \gset b_
SELECT * FROM sessauth.issue_session('g_acme', 'bob') \gset c_

-- ending and deleting sessions
UPDATE sessauth.session SET ended_at = now(), end_reason = 'by hand' WHERE session_id = :'a_session_id';
DELETE FROM sessauth.session WHERE session_id = :'b_session_id';
SELECT outcome FROM sessauth.verify(:'a_access_token');
SELECT outcome FROM sessauth.verify(:'b_access_token');
SELECT kind, revokes, version, live, reason FROM sessauth.event
	WHERE session_id IN (:'a_session_id', :'b_session_id') ORDER BY event_id;

-- raising epochs by hand; whatever is written, the sequence decides
UPDATE sessauth.tenant_user SET epoch = epoch + 1000000 WHERE tenant_id = 'g_acme' AND user_id = 'bob';
SELECT epoch > :c_epoch AS grown, epoch = (SELECT last_value FROM sessauth.epoch_seq) AS from_the_sequence
	FROM sessauth.tenant_user WHERE tenant_id = 'g_acme' AND user_id = 'bob';
SELECT outcome FROM sessauth.verify(:'c_access_token');

-- deletion and re-creation: old tokens stay dead
SELECT * FROM sessauth.issue_session('g_acme', 'bob') \gset d_
DELETE FROM sessauth.tenant_user WHERE tenant_id = 'g_acme' AND user_id = 'bob';
SELECT outcome FROM sessauth.verify(:'d_access_token');
SELECT * FROM sessauth.issue_session('g_acme', 'bob') \gset e_
SELECT :e_epoch > :d_epoch AS higher;
SELECT outcome FROM sessauth.verify(:'d_access_token');
SELECT outcome FROM sessauth.verify(:'e_access_token');
INSERT INTO sessauth.tenant_user (tenant_id, user_id, epoch) VALUES ('g_acme', 'zoe', 1);
SELECT epoch > 1 AS not_what_was_asked FROM sessauth.tenant_user WHERE user_id = 'zoe';
DELETE FROM sessauth.tenant WHERE tenant_id = 'g_acme';
SELECT outcome FROM sessauth.verify(:'e_access_token');
INSERT INTO sessauth.tenant (tenant_id) VALUES ('g_acme');
SELECT outcome FROM sessauth.verify(:'e_access_token');
SELECT kind, revokes, user_id FROM sessauth.event WHERE tenant_id = 'g_acme' AND session_id IS NULL ORDER BY event_id;

-- blocking by hand is a revocation too
SELECT * FROM sessauth.issue_session('g_acme', 'kim') \gset k_
UPDATE sessauth.tenant_user SET blocked_at = now() WHERE tenant_id = 'g_acme' AND user_id = 'kim';
SELECT outcome FROM sessauth.verify(:'k_access_token');
SELECT outcome FROM sessauth.issue_session('g_acme', 'kim');
UPDATE sessauth.tenant SET suspended_at = now() WHERE tenant_id = 'g_acme';
SELECT outcome FROM sessauth.issue_session('g_acme', 'new');
UPDATE sessauth.tenant SET suspended_at = NULL WHERE tenant_id = 'g_acme';
SELECT outcome FROM sessauth.issue_session('g_acme', 'new');

-- refused (the detail of the first names a number that depends on what ran before)
\set VERBOSITY terse
UPDATE sessauth.tenant_user SET epoch = 1 WHERE user_id = 'zoe';
\set VERBOSITY default
UPDATE sessauth.session SET ended_at = NULL WHERE session_id = :'a_session_id';
UPDATE sessauth.session SET user_id = 'mallory' WHERE session_id = :'a_session_id';
UPDATE sessauth.session SET epoch = epoch + 1 WHERE session_id = :'a_session_id';
UPDATE sessauth.tenant SET policy = '{"nonsense": 1}' WHERE tenant_id = 'g_acme';
TRUNCATE sessauth.session;
TRUNCATE sessauth.event;
TRUNCATE sessauth.tenant;
SET session_replication_role = replica;
UPDATE sessauth.session SET ended_at = NULL WHERE session_id = :'a_session_id';
RESET session_replication_role;

-- a rolled back change leaves no trace, a savepoint takes back only its own
SELECT count(*) AS events FROM sessauth.event WHERE tenant_id = 'g_acme' \gset before_
BEGIN;
SELECT sessauth.revoke_tenant('g_acme') IS NOT NULL AS revoked;
ROLLBACK;
SELECT count(*) - :before_events AS left_over FROM sessauth.event WHERE tenant_id = 'g_acme';
BEGIN;
SAVEPOINT s;
SELECT sessauth.revoke_user('g_acme', 'kim', 'taken back') IS NOT NULL AS revoked;
ROLLBACK TO s;
SELECT sessauth.revoke_user('g_acme', 'zoe', 'kept') IS NOT NULL AS revoked;
COMMIT;
SELECT user_id, reason FROM sessauth.history WHERE tenant_id = 'g_acme' AND kind = 'user_revoked' ORDER BY event_id;
