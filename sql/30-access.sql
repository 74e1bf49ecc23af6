/*
 * Chapter 30: who may do what. C: src/ledger/access.c, src/ledger/grants.c.
 *
 * Functions authorise their caller themselves; the policies below are the
 * second wall, for roles that read tables and views. No policy lets anybody write.
 */

CREATE FUNCTION sessauth.grant_access(role text, access text, tenant_id text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_grant_access';
COMMENT ON FUNCTION sessauth.grant_access(text, text, text) IS
	'Gives a role the access service, node, tenant_admin or auditor, for one tenant or (null) for all; throws 42704, 22023';

CREATE FUNCTION sessauth.revoke_access(role text, access text, tenant_id text DEFAULT NULL) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_access';
COMMENT ON FUNCTION sessauth.revoke_access(text, text, text) IS 'Takes an access back; false when there was no such grant';

CREATE FUNCTION sessauth.reads_all() RETURNS boolean
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_reads_all';
COMMENT ON FUNCTION sessauth.reads_all() IS 'The current user may read the rows of every tenant; for policies';

CREATE FUNCTION sessauth.reads_tenants() RETURNS text[]
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_reads_tenants';
COMMENT ON FUNCTION sessauth.reads_tenants() IS 'The tenants whose rows the current user may read; for policies';

CREATE FUNCTION sessauth.reads_from() RETURNS text[]
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_reads_from';
COMMENT ON FUNCTION sessauth.reads_from() IS 'The first tenant, in the order of the bytes, that the current user may read, several times, or none; for policies';

CREATE FUNCTION sessauth.reads_to() RETURNS text[]
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_reads_to';
COMMENT ON FUNCTION sessauth.reads_to() IS 'The last tenant that the current user may read, several times, or none; for policies';

CREATE FUNCTION sessauth.in_reach_support(internal) RETURNS internal
	LANGUAGE C STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'sessauth_in_reach_support';
COMMENT ON FUNCTION sessauth.in_reach_support(internal) IS 'Tells the planner that an index on tenant_id can answer in_reach()';

CREATE FUNCTION sessauth.in_reach(text) RETURNS boolean
	LANGUAGE C STABLE PARALLEL RESTRICTED SUPPORT sessauth.in_reach_support
	AS 'MODULE_PATHNAME', 'sessauth_in_reach';
COMMENT ON FUNCTION sessauth.in_reach(text) IS 'The tenant is not outside the range from reads_from() to reads_to(); for policies';

ALTER TABLE sessauth.tenant ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.tenant_user ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.session ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.erasure ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.signing_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.access ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.mirror ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.ledger_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.revocation_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.receipt_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.arrival ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.arrival ALTER tenant_id SET STATISTICS 0;
ALTER TABLE sessauth.mirror_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

/*
 * Row security hides rows, not statistics: without this, EXPLAIN would tell an administrator of one tenant
 * how many users and sessions another one has, or whether it exists. No plan of the ledger needs them: each goes by a key.
 * Partitions of the history have the same, where they are made (src/ledger/history.c).
 */
ALTER TABLE sessauth.tenant ALTER tenant_id SET STATISTICS 0;
ALTER TABLE sessauth.tenant_user ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0;
ALTER TABLE sessauth.session ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0, ALTER session_id SET STATISTICS 0,
	ALTER device SET STATISTICS 0, ALTER ip SET STATISTICS 0, ALTER user_agent SET STATISTICS 0, ALTER end_reason SET STATISTICS 0;
ALTER TABLE sessauth.event ALTER tenant_id SET STATISTICS 0, ALTER user_id SET STATISTICS 0, ALTER session_id SET STATISTICS 0,
	ALTER actor SET STATISTICS 0, ALTER ip SET STATISTICS 0, ALTER client_addr SET STATISTICS 0, ALTER reason SET STATISTICS 0;

/*
 * in_reach() says nothing that the rest does not say. But an index can use it, and it contradicts a reader who asks for
 * another tenant before a row is touched: else the time, and EXPLAIN (ANALYZE), would tell whether there is one.
 */
CREATE POLICY readers ON sessauth.tenant FOR SELECT
	USING (sessauth.in_reach(tenant_id)
		AND ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[])));
CREATE POLICY readers ON sessauth.tenant_user FOR SELECT
	USING (sessauth.in_reach(tenant_id)
		AND ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[])));
CREATE POLICY readers ON sessauth.session FOR SELECT
	USING (sessauth.in_reach(tenant_id)
		AND ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[])));
CREATE POLICY readers ON sessauth.arrival FOR SELECT
	USING ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
CREATE POLICY readers ON sessauth.event FOR SELECT
	USING (sessauth.in_reach(tenant_id)
		AND ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[])));
