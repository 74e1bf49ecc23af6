/*
 * Chapter 90: nothing is for anybody yet. Must stay the last chapter.
 *
 * Whatever ALTER DEFAULT PRIVILEGES gave goes, too: a role that may hang a
 * trigger on a table of the ledger would have its function run as the ledger's owner.
 */

DO $$
DECLARE
	statement text;
BEGIN
	FOR statement IN
		SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', o.kind, o.name,
			CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
		FROM (
			SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, oid::regclass::text AS name, relowner AS owner, relacl AS acl
				FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
			UNION ALL
			SELECT 'FUNCTION', oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
				FROM pg_proc WHERE pronamespace = 'sessauth'::regnamespace
			UNION ALL
			SELECT 'SCHEMA', nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = 'sessauth'
		) o, aclexplode(o.acl) a
		WHERE a.grantee <> o.owner
	LOOP
		EXECUTE statement;
	END LOOP;
END
$$;
