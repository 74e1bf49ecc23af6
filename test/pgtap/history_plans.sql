-- history_plans.sql
--		Questions about a tenant, a user and a time touch few pages of the history,
--		also for those who see it through the row security of one tenant.
BEGIN;
SELECT no_plan();

CREATE ROLE plans_admin; CREATE ROLE plans_auditor; CREATE ROLE plans_everything;
SELECT sessauth.create_tenant('plans_3') IS NOT NULL AS created;
SELECT sessauth.grant_access('plans_admin', 'tenant_admin', 'plans_3');
SELECT sessauth.grant_access('plans_auditor', 'auditor', 'plans_3');
SELECT sessauth.grant_access('plans_everything', 'auditor');

-- half a year of 20 tenants with 30 users each; every seventh event is a revocation
DO $$
BEGIN
	FOR i IN 1 .. 6 LOOP
		EXECUTE format('CREATE TABLE sessauth.event_2098_0%1$s PARTITION OF sessauth.event'
			' FOR VALUES FROM (''2098-0%1$s-01 00:00:00Z'') TO (''2098-0%2$s-01 00:00:00Z'')', i, i + 1);
		PERFORM sessauth.prepare_partition(format('sessauth.event_2098_0%s', i)::regclass);
	END LOOP;
END
$$;
INSERT INTO sessauth.event (at, kind, revokes, tenant_id, user_id, session_id, epoch)
	SELECT timestamptz '2098-01-01 00:00:00Z' + i * interval '250 seconds', CASE WHEN i % 7 = 0 THEN 'session_revoked' ELSE 'session_refreshed' END,
		CASE WHEN i % 7 = 0 THEN 'session' END, 'plans_' || i % 20, 'user ' || i / 20 % 30, gen_random_uuid(), 1
	FROM generate_series(0, 59999) i;
-- and a tenant as big as all of these, with 300 users; every third event is a revocation
INSERT INTO sessauth.event (at, kind, revokes, tenant_id, user_id, session_id, epoch)
	SELECT timestamptz '2098-01-01 00:00:00Z' + i * interval '250 seconds', CASE WHEN i % 3 = 0 THEN 'session_revoked' ELSE 'session_refreshed' END,
		CASE WHEN i % 3 = 0 THEN 'session' END, 'plans_big', 'user ' || i / 3 % 300, gen_random_uuid(), 1
	FROM generate_series(0, 59999) i;
ANALYZE sessauth.event;

-- How many pages a query touches, and what it finds. One run before, which fills the caches of catalog and grants.
CREATE FUNCTION pg_temp.pages(query text, OUT pages bigint, OUT hits bigint) LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE query;
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || query INTO plan;
	pages := (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::bigint + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::bigint;
	hits := (plan -> 0 -> 'Plan' ->> 'Actual Rows')::numeric;
END
$$;
CREATE TEMP TABLE question (name text, query text, rows bigint);
CREATE TEMP TABLE big_question (LIKE question);
INSERT INTO big_question VALUES
	('the revocations of a user of a big tenant', $$SELECT * FROM sessauth.revocations WHERE tenant_id = 'plans_big' AND user_id = 'user 3'$$, 67),
	('the newest revocations of a big tenant', $$SELECT * FROM sessauth.revocations WHERE tenant_id = 'plans_big' ORDER BY at DESC LIMIT 30$$, 30),
	('the newest revocations of all', $$SELECT * FROM sessauth.revocations ORDER BY event_id DESC LIMIT 30$$, 30);
INSERT INTO question VALUES
	('the newest revocations of a tenant', $$SELECT * FROM sessauth.revocations WHERE tenant_id = 'plans_3' ORDER BY at DESC LIMIT 10$$, 10),
	('the newest revocations of a user', $$SELECT * FROM sessauth.revocations WHERE tenant_id = 'plans_3' AND user_id = 'user 3' ORDER BY at DESC LIMIT 10$$, 10),
	('the revocations of a tenant in a time', $$SELECT * FROM sessauth.revocations WHERE tenant_id = 'plans_3'
		AND at >= '2098-03-10 00:00:00Z' AND at < '2098-03-20 00:00:00Z'$$, 25),
	('the newest events of a tenant', $$SELECT * FROM sessauth.history WHERE tenant_id = 'plans_3' ORDER BY at DESC LIMIT 10$$, 10),
	('the events of a tenant in a time', $$SELECT * FROM sessauth.history WHERE tenant_id = 'plans_3'
		AND at >= '2098-03-10 00:00:00Z' AND at < '2098-03-12 00:00:00Z'$$, 35),
	('the newest events of a user', $$SELECT * FROM sessauth.history WHERE tenant_id = 'plans_3' AND user_id = 'user 3' ORDER BY at DESC LIMIT 30$$, 30),
	('the events of a user in a time', $$SELECT * FROM sessauth.history WHERE tenant_id = 'plans_3' AND user_id = 'user 3'
		AND at >= '2098-03-01 00:00:00Z' AND at < '2098-04-01 00:00:00Z'$$, 18);
CREATE TEMP TABLE answer (who name, name text, pages bigint, hits bigint);
GRANT SELECT ON question, big_question TO plans_admin, plans_auditor, plans_everything;
GRANT INSERT ON answer TO plans_admin, plans_auditor, plans_everything;
SET ROLE plans_admin;
INSERT INTO answer SELECT current_user, name, p.* FROM question, pg_temp.pages(query) p;
SET ROLE plans_auditor;
INSERT INTO answer SELECT current_user, name, p.* FROM question, pg_temp.pages(query) p;
SET ROLE plans_everything;
INSERT INTO answer SELECT current_user, name, p.* FROM (TABLE question UNION ALL TABLE big_question) q, pg_temp.pages(query) p;
RESET ROLE;

SELECT cmp_ok(sum(relpages), '>', 800::bigint, 'the history has many pages') FROM pg_class
	WHERE relnamespace = 'sessauth'::regnamespace AND relname LIKE 'event\_2098%' AND relkind = 'r';
SELECT is(hits, rows, format('%s finds %s', who, name)) FROM answer JOIN (TABLE question UNION ALL TABLE big_question) q USING (name) ORDER BY who, name;
SELECT cmp_ok(pages, '<', 120::bigint, format('%s finds %s in few pages', who, name)) FROM answer ORDER BY who, name;

SELECT * FROM finish();
ROLLBACK;
