-- Logout, the devices page, introspection, blocking, suspending, dropping.
SELECT sessauth.create_tenant('c_acme') IS NOT NULL AS created;
SELECT length(sessauth.create_signing_key()) AS kid_length;
SELECT * FROM sessauth.issue_session('c_acme', 'alice', 'pc', '192.0.2.1', 'UA', '{"role": "editor"}') \gset pc_
SELECT * FROM sessauth.issue_session('c_acme', 'alice', 'phone') \gset phone_
SELECT * FROM sessauth.issue_session('c_acme', 'bob') \gset bob_

-- devices
SELECT device, ip, user_agent, session_id IN (:'pc_session_id', :'phone_session_id') AS known FROM sessauth.list_sessions('c_acme', 'alice');
SELECT count(*) FROM sessauth.list_sessions('c_acme', 'nobody');
SELECT count(*) FROM sessauth.list_sessions('c_nowhere', 'alice');

-- introspection (RFC 7662) never consumes a token
SELECT key, CASE WHEN key IN ('exp', 'iat', 'sid', 'epoch', 'tepoch') THEN '...' ELSE value #>> '{}' END AS value
	FROM jsonb_each(sessauth.introspect(:'pc_access_token')) ORDER BY key;
SELECT r ->> 'active' AS active, r ->> 'token_type' AS type, r ->> 'sid' = :'pc_session_id' AS sid FROM sessauth.introspect(:'pc_refresh_token') r;
SELECT sessauth.introspect(:'pc_refresh_token') ->> 'active' AS still;
SELECT sessauth.introspect('garbage'), sessauth.introspect('sar_garbage'), sessauth.introspect('');
SELECT outcome FROM sessauth.refresh_session(:'pc_refresh_token') \gset
SELECT :'outcome' AS refreshed, sessauth.introspect(:'pc_refresh_token') AS used_one;

-- logout by either kind of token, an old one included; true once
SELECT sessauth.logout(:'pc_refresh_token'), sessauth.logout(:'pc_refresh_token') AS again, sessauth.logout(:'pc_access_token') AS and_again;
SELECT outcome FROM sessauth.verify(:'pc_access_token');
SELECT sessauth.logout(:'phone_access_token');
SELECT outcome FROM sessauth.refresh_session(:'phone_refresh_token');
SELECT sessauth.logout('garbage'), sessauth.logout('sar_garbage'), sessauth.logout(NULL), sessauth.logout('');
SELECT outcome AS bob FROM sessauth.verify(:'bob_access_token');
SELECT kind, reason FROM sessauth.history WHERE tenant_id = 'c_acme' AND kind LIKE '%logged_out' ORDER BY event_id;
SELECT revokes, count(*) FROM sessauth.event WHERE tenant_id = 'c_acme' AND revokes IS NOT NULL GROUP BY 1;

-- blocking and unblocking
SELECT sessauth.block_user('c_acme', 'bob', 'fraud', 'trust') IS NOT NULL AS event, sessauth.block_user('c_acme', 'bob') IS NULL AS already;
SELECT outcome FROM sessauth.verify(:'bob_access_token');
SELECT outcome FROM sessauth.issue_session('c_acme', 'bob');
SELECT sessauth.block_user('c_acme', 'never_seen') IS NOT NULL AS event;
SELECT outcome FROM sessauth.issue_session('c_acme', 'never_seen');
SELECT sessauth.unblock_user('c_acme', 'bob') IS NOT NULL AS event, sessauth.unblock_user('c_acme', 'bob') IS NULL AS already;
SELECT outcome AS old_token FROM sessauth.verify(:'bob_access_token');
SELECT * FROM sessauth.issue_session('c_acme', 'bob') \gset bob_
SELECT outcome AS new_token FROM sessauth.verify(:'bob_access_token');

-- suspending and resuming
SELECT sessauth.suspend_tenant('c_acme', 'unpaid') IS NOT NULL AS event, sessauth.suspend_tenant('c_acme') IS NULL AS already;
SELECT outcome FROM sessauth.verify(:'bob_access_token');
SELECT outcome FROM sessauth.issue_session('c_acme', 'bob');
SELECT sessauth.resume_tenant('c_acme') IS NOT NULL AS event, sessauth.resume_tenant('c_acme') IS NULL AS already;
SELECT outcome AS old_token FROM sessauth.verify(:'bob_access_token');
SELECT * FROM sessauth.issue_session('c_acme', 'bob') \gset bob_

-- dropping: dead at once, and dead after re-creation
SELECT sessauth.drop_tenant('c_acme') IS NOT NULL AS event;
SELECT outcome FROM sessauth.verify(:'bob_access_token');
SELECT count(*) AS rows_left FROM sessauth.session WHERE tenant_id = 'c_acme';
SELECT sessauth.create_tenant('c_acme') IS NOT NULL AS created;
SELECT outcome AS token_of_before FROM sessauth.verify(:'bob_access_token');
SELECT epoch AS before FROM sessauth.event WHERE tenant_id = 'c_acme' AND kind = 'tenant_dropped' \gset
SELECT epoch > :before AS higher FROM sessauth.tenant WHERE tenant_id = 'c_acme';
SELECT kind, user_id, actor, reason FROM sessauth.history
	WHERE tenant_id = 'c_acme' AND kind ~ 'block|suspend|resume|drop' ORDER BY event_id;
SELECT sessauth.drop_tenant('c_nowhere');
SELECT sessauth.block_user('c_nowhere', 'x');

-- keys: rotation without a gap, retirement, revocation
SELECT * FROM sessauth.issue_session('c_acme', 'kim') \gset k1_
SELECT sessauth.rotate_signing_key('RS256') AS kid \gset rs_
SELECT * FROM sessauth.issue_session('c_acme', 'kim') \gset k2_
SELECT a.outcome AS before_rotation, b.outcome AS after_rotation
	FROM sessauth.verify(:'k1_access_token') a, sessauth.verify(:'k2_access_token') b;
SELECT alg, state FROM sessauth.keys WHERE kid = :'rs_kid';
SELECT count(*) AS signing FROM sessauth.keys WHERE state = 'signing';
SELECT sessauth.rotate_signing_key() AS kid \gset rs2_
SELECT alg AS same_algorithm FROM sessauth.keys WHERE kid = :'rs2_kid';
SELECT sessauth.revoke_signing_key(:'rs_kid') IS NOT NULL AS event, sessauth.revoke_signing_key(:'rs_kid') IS NULL AS already;
SELECT a.outcome AS other_key, b.outcome AS revoked_key
	FROM sessauth.verify(:'k1_access_token') a, sessauth.verify(:'k2_access_token') b;
SELECT count(*) AS published FROM jsonb_array_elements(sessauth.jwks() -> 'keys') k WHERE k ->> 'kid' = :'rs_kid';
SELECT outcome AS session_goes_on FROM sessauth.refresh_session(:'k2_refresh_token');
SELECT sessauth.retire_signing_key(:'rs2_kid') IS NOT NULL AS event;
SELECT sessauth.issue_session('c_acme', 'kim');
SELECT length(sessauth.create_signing_key('EdDSA')) AS kid_length;
SELECT outcome FROM sessauth.issue_session('c_acme', 'kim');
SELECT sessauth.revoke_signing_key('no such key');
SELECT sessauth.create_signing_key('HS256');

-- a read-only transaction stays one
BEGIN READ ONLY;
SELECT outcome FROM sessauth.issue_session('c_acme', 'kim');
ROLLBACK;
BEGIN READ ONLY;
SELECT sessauth.revoke_user('c_acme', 'kim');
ROLLBACK;
BEGIN READ ONLY;
SELECT sessauth.logout(:'k2_refresh_token');
ROLLBACK;
BEGIN READ ONLY;
SELECT outcome FROM sessauth.verify(:'k1_access_token');
COMMIT;
