-- Every way of SQL to write a row is recorded once per row, and revokes what it ends: several rows at once,
-- ON CONFLICT, UPDATE ... FROM, writable CTEs, COPY into a ledger that is in use, rows that say nonsense.
SELECT sessauth.create_tenant('st_acme') IS NOT NULL AS created;
SELECT length(sessauth.create_signing_key()) AS kid_length;
SELECT coalesce(max(event_id), 0) AS start FROM sessauth.event \gset

-- users: several rows, twice over
INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES ('st_acme', 'u1'), ('st_acme', 'u2'), ('st_acme', 'u3');
INSERT INTO sessauth.tenant_user AS u (tenant_id, user_id) VALUES ('st_acme', 'u3'), ('st_acme', 'u4')
	ON CONFLICT (tenant_id, user_id) DO UPDATE SET epoch = u.epoch + 1;
INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES ('st_acme', 'u4') ON CONFLICT DO NOTHING;
COPY sessauth.tenant_user (tenant_id, user_id, epoch) FROM stdin;
st_acme	u5	1
st_acme	u6	9000000000000000000
\.
SELECT user_id, kind, revokes FROM sessauth.event WHERE event_id > :start AND tenant_id = 'st_acme'
	AND user_id LIKE 'u_' ORDER BY user_id COLLATE "C", event_id;
SELECT user_id, epoch <= (SELECT last_value FROM sessauth.epoch_seq) AS from_the_sequence,
	epoch < 1000000000000 AS not_what_was_copied FROM sessauth.tenant_user WHERE user_id IN ('u5', 'u6') ORDER BY user_id COLLATE "C";

-- sessions: ended by UPDATE ... FROM, by a writable CTE, by a DELETE of several
SELECT * FROM sessauth.issue_session('st_acme', 'u1') \gset a_
SELECT * FROM sessauth.issue_session('st_acme', 'u1') \gset b_
SELECT * FROM sessauth.issue_session('st_acme', 'u2') \gset c_
SELECT * FROM sessauth.issue_session('st_acme', 'u2') \gset d_
UPDATE sessauth.session s SET ended_at = now(), end_reason = 'joined' FROM sessauth.tenant_user u
	WHERE u.tenant_id = s.tenant_id AND u.user_id = s.user_id AND u.user_id = 'u1' AND s.session_id = :'a_session_id';
WITH gone AS (UPDATE sessauth.session SET ended_at = now(), end_reason = 'in a CTE' WHERE session_id = :'b_session_id' RETURNING session_id)
	SELECT count(*) FROM gone;
DELETE FROM sessauth.session WHERE session_id IN (:'c_session_id', :'d_session_id');
SELECT user_id, kind, revokes, live, reason, count(*) FROM sessauth.event WHERE event_id > :start AND session_id IS NOT NULL
	GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 5;
SELECT outcome FROM unnest(ARRAY[:'a_access_token', :'b_access_token', :'c_access_token', :'d_access_token']) t, sessauth.verify(t);

-- a session that somebody copies in is as live as its epochs, and one of nobody is dead
COPY sessauth.session (session_id, tenant_id, user_id, epoch, tenant_epoch, expires_at, idle_expires_at, access_expires_at) FROM stdin;
01890a5d-ac96-774b-bcce-b302099a8057	st_acme	u1	1	1	infinity	infinity	2030-01-01
01890a5d-ac96-774b-bcce-b302099a8058	st_nowhere	nobody	1	1	infinity	infinity	2030-01-01
\.
SELECT tenant_id, user_id, state = 'live' AS live FROM sessauth.sessions WHERE session_id::text LIKE '01890a5d-ac96-774b-bcce-b302099a80%' ORDER BY session_id;
SELECT tenant_id, user_id, kind FROM sessauth.event WHERE session_id::text LIKE '01890a5d-ac96-774b-bcce-b302099a80%' ORDER BY event_id;

-- keys of rows do not change
UPDATE sessauth.tenant_user SET user_id = 'somebody else' WHERE user_id = 'u1';
UPDATE sessauth.session SET session_id = gen_random_uuid() WHERE session_id = :'a_session_id';
UPDATE sessauth.tenant SET tenant_id = 'st_other' WHERE tenant_id = 'st_acme';

-- refused rows leave nothing behind, of a statement of several neither
\set VERBOSITY terse
INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES ('st_acme', 'u7'), ('st_acme', E'a\nb');
\set VERBOSITY default
SELECT count(*) AS left_over FROM sessauth.event WHERE event_id > :start AND user_id = 'u7';
TRUNCATE sessauth.tenant CASCADE;
SELECT count(*) AS revocations_of_u3 FROM sessauth.event WHERE event_id > :start AND user_id = 'u3' AND revokes = 'user';
DELETE FROM sessauth.session WHERE tenant_id = 'st_nowhere';
SELECT sessauth.drop_tenant('st_acme') IS NOT NULL AS dropped;
