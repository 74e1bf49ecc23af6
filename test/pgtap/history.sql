-- history.sql
--		No table of data without its history: what is changed is recorded, and
--		nothing can be truncated, the monthly partitions included.
BEGIN;
SELECT plan(4);

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
	WHERE c.relnamespace = 'sessauth'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname NOT IN ('ledger_state', 'mirror_state')
		AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'sessauth.refuse_truncate'::regproc AND t.tgenabled = 'A')$$,
	'no table of data can be truncated, in replica mode neither');
SELECT throws_ok(format('TRUNCATE %s', inhrelid::regclass), '0A000', NULL, 'a partition of the history refuses, too')
	FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass AND inhrelid <> 'sessauth.event_default'::regclass
	ORDER BY inhrelid LIMIT 1;

SELECT * FROM finish();
ROLLBACK;
