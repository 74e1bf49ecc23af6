-- What an abort would erase is revoked and recorded all the same.
SELECT sessauth.create_tenant('h_acme') IS NOT NULL AS created;
SELECT length(sessauth.create_signing_key()) AS kid_length;

-- The worker acts in its own time: waits until it has.
CREATE PROCEDURE pg_temp.wait_for_event(wanted text, sid uuid) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 3000 LOOP
		EXIT WHEN EXISTS (SELECT FROM sessauth.event WHERE session_id = sid AND kind = wanted);
		PERFORM pg_sleep(0.01);
		ROLLBACK;
	END LOOP;
END
$$;

-- a login that is rolled back, also to a savepoint
BEGIN;
SELECT * FROM sessauth.issue_session('h_acme', 'alice') \gset lost_
ROLLBACK;
BEGIN;
SELECT * FROM sessauth.issue_session('h_acme', 'bob') \gset kept_
SAVEPOINT s;
SELECT * FROM sessauth.issue_session('h_acme', 'bob') \gset sub_
ROLLBACK TO s;
SAVEPOINT t;
SELECT * FROM sessauth.issue_session('h_acme', 'bob') \gset released_
RELEASE t;
COMMIT;
CALL pg_temp.wait_for_event('session_rolled_back', :'lost_session_id');
CALL pg_temp.wait_for_event('session_rolled_back', :'sub_session_id');
SELECT user_id, revokes, session_id = :'lost_session_id' AS lost, session_id = :'sub_session_id' AS sub, until > at AS remembered, reason
	FROM sessauth.event WHERE kind = 'session_rolled_back' AND tenant_id = 'h_acme' ORDER BY user_id;
SELECT l.outcome AS lost, s.outcome AS sub, k.outcome AS kept, r.outcome AS released
	FROM sessauth.verify(:'lost_access_token') l, sessauth.verify(:'sub_access_token') s,
		sessauth.verify(:'kept_access_token') k, sessauth.verify(:'released_access_token') r;

-- a theft that is seen in a transaction that rolls back
SELECT * FROM sessauth.refresh_session(:'kept_refresh_token') \gset r1_
SELECT * FROM sessauth.refresh_session(:'r1_refresh_token') \gset r2_
BEGIN;
SELECT outcome FROM sessauth.refresh_session(:'kept_refresh_token');
ROLLBACK;
CALL pg_temp.wait_for_event('session_revoked', :'kept_session_id');
SELECT state, end_reason FROM sessauth.sessions WHERE session_id = :'kept_session_id';
SELECT outcome FROM sessauth.refresh_session(:'r2_refresh_token');
SELECT outcome AS other_device FROM sessauth.verify(:'released_access_token');
