-- history.sql
--		No table of data without its history: what is changed is recorded, nothing
--		can be truncated, and what is in the history stays as it is, in partitions made later, too.
BEGIN;
SELECT no_plan();

-- the first write call, after which there are partitions for this month and the next
CREATE ROLE pgtap_service;
SELECT sessauth.grant_access('pgtap_service', 'service');
SELECT cmp_ok((SELECT count(*) FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass), '>=', 3::bigint,
	'the history has partitions beside the default one');

SELECT set_eq($$
	SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgfoid = 'sessauth.record'::regproc$$,
	ARRAY['sessauth.tenant', 'sessauth.tenant_user', 'sessauth.session', 'sessauth.signing_key', 'sessauth.access', 'sessauth.mirror'],
	'every table with something to tell has its trigger');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind IN ('r', 'p')
		AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'sessauth.refuse_truncate'::regproc AND t.tgenabled = 'A')$$,
	'no table can be truncated, in replica mode neither');
SELECT throws_ok(format('TRUNCATE %s', inhrelid::regclass), '0A000', NULL, 'a partition of the history refuses, too')
	FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass AND inhrelid <> 'sessauth.event_default'::regclass
	ORDER BY inhrelid LIMIT 1;

-- a month that the worker makes, and one that somebody attaches
CREATE TABLE sessauth.event_2099_01 PARTITION OF sessauth.event FOR VALUES FROM ('2099-01-01 00:00:00Z') TO ('2099-02-01 00:00:00Z');
SELECT sessauth.prepare_partition('sessauth.event_2099_01');
CREATE TABLE sessauth.event_2099_02 (LIKE sessauth.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
ALTER TABLE sessauth.event ATTACH PARTITION sessauth.event_2099_02 FOR VALUES FROM ('2099-02-01 00:00:00Z') TO ('2099-03-01 00:00:00Z');
SELECT is(tgenabled, 'A'::"char", format('UPDATE and DELETE are guarded on %s, in replica mode, too', relid))
	FROM pg_partition_tree('sessauth.event') LEFT JOIN pg_trigger ON tgrelid = relid AND tgfoid = 'sessauth.guard_history'::regproc;
SELECT bag_eq(
	format($$SELECT regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', '') FROM pg_index WHERE indrelid = %s$$, relid::oid),
	$$SELECT regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', '') FROM pg_index WHERE indrelid = 'sessauth.event_default'::regclass$$,
	format('%s has the indexes of the default partition', relid))
	FROM pg_partition_tree('sessauth.event') WHERE isleaf AND relid::text NOT IN ('sessauth.event_default', 'sessauth.event_2099_02');
SELECT bag_eq($$SELECT DISTINCT relrowsecurity AND relforcerowsecurity FROM pg_class
	WHERE relname LIKE 'event\_%' AND relkind = 'r' AND relname <> 'event_2099_02' AND relnamespace = 'sessauth'::regnamespace$$, ARRAY[true],
	'a partition has row security of its own');

SELECT * FROM finish();
ROLLBACK;
