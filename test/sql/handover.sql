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

-- savepoints in savepoints: what counts is whether any of them is rolled back
BEGIN;
SAVEPOINT outside;
SAVEPOINT inside;
SELECT * FROM sessauth.issue_session('h_acme', 'nested') \gset inner_
RELEASE inside;
SELECT * FROM sessauth.issue_session('h_acme', 'nested') \gset outer_
ROLLBACK TO outside;
SELECT * FROM sessauth.issue_session('h_acme', 'nested') \gset stays_
RELEASE outside;
COMMIT;
CALL pg_temp.wait_for_event('session_rolled_back', :'inner_session_id');
CALL pg_temp.wait_for_event('session_rolled_back', :'outer_session_id');
SELECT i.outcome AS inner, o.outcome AS outer, s.outcome AS stays
	FROM sessauth.verify(:'inner_access_token') i, sessauth.verify(:'outer_access_token') o, sessauth.verify(:'stays_access_token') s;

-- exception blocks, one in another, in a function that returns what it got
CREATE FUNCTION pg_temp.careless(OUT lost uuid, OUT lost_deeper uuid, OUT kept uuid) LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		BEGIN
			SELECT session_id INTO lost_deeper FROM sessauth.issue_session('h_acme', 'careless');
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			SELECT session_id INTO lost FROM sessauth.issue_session('h_acme', 'careless');
		END;
		RAISE invalid_parameter_value;
	EXCEPTION WHEN invalid_parameter_value THEN
		SELECT session_id INTO kept FROM sessauth.issue_session('h_acme', 'careless');
	END;
END
$$;
SELECT * FROM pg_temp.careless() \gset
CALL pg_temp.wait_for_event('session_rolled_back', :'lost');
CALL pg_temp.wait_for_event('session_rolled_back', :'lost_deeper');
SELECT count(*) FILTER (WHERE session_id = :'lost') AS lost, count(*) FILTER (WHERE session_id = :'lost_deeper') AS lost_deeper,
	count(*) FILTER (WHERE session_id = :'kept') AS kept
	FROM sessauth.event WHERE kind = 'session_rolled_back' AND user_id = 'careless';
SELECT session_id = :'kept' AS kept FROM sessauth.list_sessions('h_acme', 'careless');

-- a statement that fails after its login
CREATE PROCEDURE pg_temp.wait_for_count(who text, wanted bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		EXIT WHEN (SELECT count(*) FROM sessauth.event WHERE kind = 'session_rolled_back' AND user_id = who) >= wanted;
		PERFORM pg_sleep(0.01);
		ROLLBACK;
	END LOOP;
END
$$;
CREATE FUNCTION pg_temp.login_and_fail() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM sessauth.issue_session('h_acme', 'statement');
	RAISE division_by_zero;
END
$$;
\set VERBOSITY terse
SELECT pg_temp.login_and_fail();
\set VERBOSITY default
CALL pg_temp.wait_for_count('statement', 1);
SELECT count(*) FROM sessauth.event WHERE kind = 'session_rolled_back' AND user_id = 'statement';

-- a theft that is seen in a savepoint, and in an exception block
SELECT * FROM sessauth.issue_session('h_acme', 'victim') \gset v0_
SELECT * FROM sessauth.refresh_session(:'v0_refresh_token') \gset v1_
SELECT * FROM sessauth.refresh_session(:'v1_refresh_token') \gset v2_
BEGIN;
SAVEPOINT s;
SELECT outcome FROM sessauth.refresh_session(:'v0_refresh_token');
ROLLBACK TO s;
COMMIT;
CALL pg_temp.wait_for_event('session_revoked', :'v0_session_id');
SELECT state, end_reason FROM sessauth.sessions WHERE session_id = :'v0_session_id';
SELECT * FROM sessauth.issue_session('h_acme', 'victim') \gset w0_
SELECT * FROM sessauth.refresh_session(:'w0_refresh_token') \gset w1_
SELECT * FROM sessauth.refresh_session(:'w1_refresh_token') \gset w2_
CREATE FUNCTION pg_temp.present(token text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	BEGIN
		SELECT outcome INTO said FROM sessauth.refresh_session(token);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RETURN said;
	END;
END
$$;
SELECT pg_temp.present(:'w0_refresh_token');
CALL pg_temp.wait_for_event('session_revoked', :'w0_session_id');
SELECT state, end_reason FROM sessauth.sessions WHERE session_id = :'w0_session_id';
SELECT outcome FROM sessauth.refresh_session(:'w2_refresh_token');
SELECT count(*) AS endings FROM sessauth.event WHERE revokes = 'session' AND session_id IN (:'v0_session_id', :'w0_session_id');

-- more than shared memory has room for: nothing is forgotten, nothing is recorded twice
BEGIN;
SELECT count(sessauth.issue_session('h_acme', 'many', claims => jsonb_build_object('i', i))) FROM generate_series(1, 1200) i;
ROLLBACK;
CALL pg_temp.wait_for_count('many', 1200);
SELECT count(*), count(DISTINCT session_id) AS sessions FROM sessauth.event WHERE kind = 'session_rolled_back' AND user_id = 'many';
