-- Login, verification, rotation, reuse: the life of a session.
SELECT sessauth.create_tenant('s_acme') IS NOT NULL AS created;
SELECT length(sessauth.create_signing_key()) AS kid_length;

SELECT * FROM sessauth.issue_session('s_acme', 'alice', 'laptop', '192.0.2.7', 'Browser/1', '{"role": "editor"}') \gset pc_
SELECT * FROM sessauth.issue_session('s_acme', 'alice', 'phone') \gset phone_
SELECT :'pc_outcome' AS pc, :'phone_outcome' AS phone, :'pc_session_id' <> :'phone_session_id' AS two_sessions,
	:pc_epoch = :phone_epoch AS same_epoch, :'pc_refresh_token' LIKE 'sar\_%' AS refresh_prefix,
	:'pc_access_expires_at'::timestamptz - clock_timestamp() BETWEEN '4 min 50 s' AND '5 min' AS five_minutes;

SELECT outcome, tenant_id, user_id, session_id = :'pc_session_id' AS session, epoch = :pc_epoch AS epoch,
	expires_at = :'pc_access_expires_at' AS expires, claims
	FROM sessauth.verify(:'pc_access_token');
SELECT tenant_id, user_id, state, device, ip, user_agent FROM sessauth.sessions WHERE tenant_id = 's_acme' ORDER BY created_at;

-- nothing but hashes is stored
SELECT count(*) AS tokens_in_clear FROM sessauth.session s
	WHERE s::text LIKE '%' || :'pc_refresh_token' || '%' OR s::text LIKE '%' || :'pc_access_token' || '%';
SELECT octet_length(refresh_hash) AS hash_bytes, refresh_hash = sha256(:'pc_refresh_token') AS is_its_sha256
	FROM sessauth.session WHERE session_id = :'pc_session_id';

-- bad tokens are outcomes, never errors
SELECT outcome FROM sessauth.verify('');
SELECT outcome FROM sessauth.verify('garbage');
SELECT outcome FROM sessauth.verify(left(:'pc_access_token', -1));
SELECT outcome FROM sessauth.verify(:'pc_access_token' || 'A');
SELECT outcome FROM sessauth.verify(repeat('A', 9000));
SELECT outcome FROM sessauth.verify('eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.');
SELECT outcome FROM sessauth.verify(:'phone_refresh_token');
-- the signature of another token
SELECT outcome FROM sessauth.verify(split_part(:'pc_access_token', '.', 1) || '.' || split_part(:'pc_access_token', '.', 2)
	|| '.' || split_part(:'phone_access_token', '.', 3));
SELECT sessauth.verify(NULL);

-- rotation: the successor works, the parent gets the same successor again within its grace
SELECT * FROM sessauth.refresh_session(:'pc_refresh_token', '192.0.2.8') \gset r1_
SELECT :'r1_outcome' AS outcome, :'r1_session_id' = :'pc_session_id' AS same_session, :'r1_refresh_token' <> :'pc_refresh_token' AS rotated;
SELECT * FROM sessauth.refresh_session(:'pc_refresh_token') \gset again_
SELECT :'again_outcome' AS outcome, :'again_refresh_token' = :'r1_refresh_token' AS same_successor;
SELECT outcome FROM sessauth.verify(:'again_access_token');
SELECT ip FROM sessauth.sessions WHERE session_id = :'pc_session_id';

-- forged and unknown tokens change nothing
SELECT outcome FROM sessauth.refresh_session('sar_' || repeat('A', 119));
SELECT outcome FROM sessauth.refresh_session(overlay(:'r1_refresh_token' PLACING 'AAAA' FROM 60));
SELECT outcome FROM sessauth.refresh_session(:'pc_access_token');
SELECT outcome FROM sessauth.refresh_session('');
SELECT sessauth.refresh_session(NULL);
SELECT state FROM sessauth.sessions WHERE session_id = :'pc_session_id';

-- reuse: a token older than the parent ends the session, the other device goes on
SELECT * FROM sessauth.refresh_session(:'r1_refresh_token') \gset r2_
SELECT :'r2_outcome' AS outcome;
SELECT outcome, access_token, refresh_token FROM sessauth.refresh_session(:'pc_refresh_token', '203.0.113.66');
SELECT outcome FROM sessauth.refresh_session(:'r2_refresh_token');
SELECT outcome FROM sessauth.verify(:'r2_access_token');
SELECT outcome FROM sessauth.verify(:'phone_access_token');
SELECT state, end_reason FROM sessauth.sessions WHERE session_id = :'pc_session_id';
SELECT kind, ip, reason FROM sessauth.history WHERE session_id = :'pc_session_id' ORDER BY event_id;

-- the parent beyond its grace is reuse as well
SELECT sessauth.create_tenant('s_nograce', '{"refresh_grace": 0}') ->> 'refresh_grace' AS grace;
SELECT * FROM sessauth.issue_session('s_nograce', 'bob') \gset n_
SELECT outcome FROM sessauth.refresh_session(:'n_refresh_token');
SELECT outcome FROM sessauth.refresh_session(:'n_refresh_token');

-- lifetimes: absolute, idle, and a token never outlives its session
SELECT sessauth.create_tenant('s_short', '{"session_ttl": 100, "access_ttl": 300}') ->> 'session_ttl' AS session_ttl;
SELECT * FROM sessauth.issue_session('s_short', 'carol') \gset c_
SELECT :'c_access_expires_at'::timestamptz <= :'c_refresh_expires_at'::timestamptz AS token_within_session;
UPDATE sessauth.session SET idle_expires_at = clock_timestamp() - interval '1 s' WHERE session_id = :'c_session_id';
SELECT outcome FROM sessauth.refresh_session(:'c_refresh_token');
UPDATE sessauth.session SET expires_at = clock_timestamp() - interval '1 s' WHERE session_id = :'c_session_id';
SELECT outcome FROM sessauth.refresh_session(:'c_refresh_token');

-- a limit rejects, or evicts the oldest
SELECT sessauth.create_tenant('s_reject', '{"max_sessions": 2}') ->> 'on_limit' AS on_limit;
SELECT outcome FROM sessauth.issue_session('s_reject', 'dave');
SELECT outcome FROM sessauth.issue_session('s_reject', 'dave');
SELECT outcome, session_id, access_token FROM sessauth.issue_session('s_reject', 'dave');
SELECT outcome FROM sessauth.issue_session('s_reject', 'erin');
SELECT sessauth.create_tenant('s_evict', '{"max_sessions": 2, "on_limit": "evict_oldest"}') ->> 'on_limit' AS on_limit;
SELECT * FROM sessauth.issue_session('s_evict', 'dave') \gset e1_
SELECT * FROM sessauth.issue_session('s_evict', 'dave') \gset e2_
SELECT outcome, evicted = ARRAY[:'e1_session_id'::uuid] AS the_oldest FROM sessauth.issue_session('s_evict', 'dave');
SELECT outcome FROM sessauth.verify(:'e1_access_token');
SELECT outcome FROM sessauth.verify(:'e2_access_token');

-- arguments
SELECT sessauth.issue_session('s_nowhere', 'x');
SELECT sessauth.issue_session('s_acme', '');
SELECT sessauth.issue_session('s_acme', NULL);
SELECT sessauth.issue_session('s_acme', repeat('x', 256));
SELECT sessauth.issue_session('s_acme', 'x', repeat('x', 513));
SELECT sessauth.issue_session('s_acme', 'x', claims => '{"sub": "somebody else"}');
SELECT sessauth.issue_session('s_acme', 'x', claims => '[1]');
SELECT sessauth.issue_session('s_acme', 'x', claims => jsonb_build_object('a', repeat('x', 5000)));
SELECT count(*) AS made_by_refused_calls FROM sessauth.session WHERE user_id = 'x';
