/* sessauth 0.1: joined by the Makefile from the numbered chapters in sql/. */

\echo Use "CREATE EXTENSION sessauth" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

/* A schema that somebody else made beforehand may hold traps: functions that look like ours. */
DO $$
BEGIN
	IF (SELECT nspowner::regrole::text FROM pg_catalog.pg_namespace WHERE nspname = 'sessauth') <> quote_ident(current_user)
		OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = 'sessauth'::regnamespace)
		OR EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = 'sessauth'::regnamespace) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_schema',
			MESSAGE = 'schema "sessauth" exists already and is not an empty one of the installing role',
			HINT = 'Look at what is in it, then drop it or rename it.';
	END IF;
END
$$;
/*
 * Chapter 05: the library behind the SQL. Calling it first makes CREATE
 * EXTENSION fail early, with a hint, on a server that has not preloaded it.
 */

CREATE FUNCTION sessauth.library_version() RETURNS text
	LANGUAGE C STABLE PARALLEL SAFE STRICT
	AS 'MODULE_PATHNAME', 'sessauth_library_version';
COMMENT ON FUNCTION sessauth.library_version() IS 'Version of the loaded library; throws 55000 when it was not preloaded';

SELECT sessauth.library_version();

CREATE FUNCTION sessauth.valid_id(id text, max integer) RETURNS boolean
	LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT
	AS 'MODULE_PATHNAME', 'sessauth_valid_id';
COMMENT ON FUNCTION sessauth.valid_id(text, integer) IS '1 to max bytes of UTF-8 without control characters';

CREATE FUNCTION sessauth.ledger_time() RETURNS timestamptz
	LANGUAGE C VOLATILE PARALLEL SAFE STRICT
	AS 'MODULE_PATHNAME', 'sessauth_ledger_time';
COMMENT ON FUNCTION sessauth.ledger_time() IS
	'The wall clock, except that it never goes back while the server runs: tokens and revocations live by it';
/*
 * Chapter 10: the ledger itself. What is true about tenants, users, sessions
 * and keys, the history of how it became true, and the numbered log of
 * revocations that nodes follow.
 *
 * The first group of tables is data and travels with a dump; the second
 * belongs to this one cluster (positions, identities) and does not.
 */

CREATE SEQUENCE sessauth.epoch_seq AS bigint;
COMMENT ON SEQUENCE sessauth.epoch_seq IS
	'Every epoch of every user and tenant comes from here, so an epoch never returns, also over deletion and re-creation';

CREATE SEQUENCE sessauth.event_seq AS bigint;
COMMENT ON SEQUENCE sessauth.event_seq IS 'Event ids; gaps are normal, order is not commit order';

/* ---- data ---- */

CREATE TABLE sessauth.tenant (
	tenant_id	text COLLATE "C" PRIMARY KEY CHECK (sessauth.valid_id(tenant_id, 128)),
	epoch		bigint NOT NULL DEFAULT nextval('sessauth.epoch_seq') CHECK (epoch > 0),
	policy		jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(policy) = 'object'),
	access_ttl_max	interval NOT NULL DEFAULT '0',
	suspended_at	timestamptz,
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);
COMMENT ON TABLE sessauth.tenant IS 'One row per tenant';
COMMENT ON COLUMN sessauth.tenant.epoch IS 'Raised by every revocation of the whole tenant; sessions of an older epoch are dead';
COMMENT ON COLUMN sessauth.tenant.policy IS 'The tenant''s own policy; keys that are missing follow the settings sessauth.*';
COMMENT ON COLUMN sessauth.tenant.access_ttl_max IS
	'Longest access-token lifetime that was ever in force here: for how long a revocation must be remembered';

CREATE TABLE sessauth.tenant_user (
	tenant_id	text COLLATE "C" NOT NULL,
	user_id		text COLLATE "C" NOT NULL CHECK (sessauth.valid_id(user_id, 255)),
	epoch		bigint NOT NULL DEFAULT nextval('sessauth.epoch_seq') CHECK (epoch > 0),
	blocked_at	timestamptz,
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (tenant_id, user_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE sessauth.tenant_user IS 'One row per user that ever logged in or was revoked';
COMMENT ON COLUMN sessauth.tenant_user.epoch IS 'Raised by every revocation of the user; sessions of an older epoch are dead';

/*
 * No foreign keys: each would lock the tenant's or user's row in every login,
 * so that one forgotten transaction could hold up a revocation. A session
 * without its tenant or user is dead by the liveness rule.
 */
CREATE TABLE sessauth.session (
	session_id	uuid PRIMARY KEY,
	tenant_id	text COLLATE "C" NOT NULL,
	user_id		text COLLATE "C" NOT NULL,
	epoch		bigint NOT NULL,
	tenant_epoch	bigint NOT NULL,
	version		bigint NOT NULL DEFAULT 1,
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	refreshed_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	expires_at	timestamptz NOT NULL,
	idle_expires_at	timestamptz NOT NULL,
	access_expires_at	timestamptz NOT NULL,
	ended_at	timestamptz,
	end_reason	text,
	refresh_counter	bigint NOT NULL DEFAULT 0,
	refresh_hash	bytea,
	parent_hash	bytea,
	refresh_salt	bytea,
	device		text CHECK (octet_length(device) <= 512),
	ip			inet,
	user_agent	text CHECK (octet_length(user_agent) <= 1024),
	client_claims	jsonb CHECK (jsonb_typeof(client_claims) = 'object')
) WITH (fillfactor = 80);
CREATE INDEX session_of_user ON sessauth.session (tenant_id, user_id);
COMMENT ON TABLE sessauth.session IS 'One row per device login';
COMMENT ON COLUMN sessauth.session.epoch IS 'The user''s epoch when the session was born';
COMMENT ON COLUMN sessauth.session.tenant_epoch IS 'The tenant''s epoch when the session was born';
COMMENT ON COLUMN sessauth.session.version IS 'Grows with every change; a mirror never replaces a newer version by an older one';
COMMENT ON COLUMN sessauth.session.expires_at IS 'Absolute end of the session';
COMMENT ON COLUMN sessauth.session.idle_expires_at IS 'End of the session unless it is refreshed before';
COMMENT ON COLUMN sessauth.session.access_expires_at IS 'Latest expiry of any access token of this session';
COMMENT ON COLUMN sessauth.session.refresh_hash IS 'SHA-256 of the current refresh token';
COMMENT ON COLUMN sessauth.session.parent_hash IS 'SHA-256 of the refresh token before it';
COMMENT ON COLUMN sessauth.session.refresh_salt IS 'Lets a retry of the parent get the same successor; erased when the grace window has closed';

CREATE TABLE sessauth.event (
	event_id	bigint NOT NULL DEFAULT nextval('sessauth.event_seq'),
	at			timestamptz NOT NULL DEFAULT clock_timestamp(),
	xid			xid8 NOT NULL DEFAULT pg_current_xact_id(),
	kind		text NOT NULL,
	revokes		text CHECK (revokes IN ('session', 'user', 'tenant', 'key')),
	tenant_id	text COLLATE "C",
	user_id		text COLLATE "C",
	session_id	uuid,
	kid			text,
	epoch		bigint,
	tenant_epoch	bigint,
	version		bigint,
	live		boolean,
	expires_at	timestamptz,
	until		timestamptz,
	actor		text,
	role		name NOT NULL DEFAULT session_user,
	ip			inet,
	reason		text,
	detail		jsonb
) PARTITION BY RANGE (at);

/*
 * Indexes belong to the partitions (ledger_activate in src/ledger/frame.c makes the monthly ones): a dump
 * writes a partition's indexes after attaching it, and would find those that the parent's had made already.
 */
CREATE TABLE sessauth.event_default PARTITION OF sessauth.event DEFAULT;
ALTER TABLE sessauth.event_default ADD PRIMARY KEY (event_id);
CREATE INDEX ON sessauth.event_default (xid, event_id);
CREATE INDEX ON sessauth.event_default (tenant_id, user_id, at);
COMMENT ON TABLE sessauth.event IS 'Append-only: the history of everything that happened, and what the worker publishes';
COMMENT ON TABLE sessauth.event_default IS 'Catches events of a month that has no partition yet';
COMMENT ON COLUMN sessauth.event.xid IS 'The transaction that wrote it: consumers read by snapshot, because ids are given before commit';
COMMENT ON COLUMN sessauth.event.revokes IS 'What it revokes, if anything: session, user, tenant or key';
COMMENT ON COLUMN sessauth.event.epoch IS 'Session events: the user''s epoch at the session''s birth; user and tenant events: the new epoch';
COMMENT ON COLUMN sessauth.event.version IS 'Session events: the version of the session row after the change';
COMMENT ON COLUMN sessauth.event.live IS 'Session events: the row says active (true) or ended (false) after the change';
COMMENT ON COLUMN sessauth.event.expires_at IS 'Session events: when the session ends if nothing happens';
COMMENT ON COLUMN sessauth.event.until IS
	'Revocations: no token that it affects lives longer, had it been committed at that moment (the worker adds the time until it saw it)';
COMMENT ON COLUMN sessauth.event.actor IS 'Who asked for it';
COMMENT ON COLUMN sessauth.event.role IS 'The database role that did it';

CREATE TABLE sessauth.signing_key (
	kid			text PRIMARY KEY CHECK (sessauth.valid_id(kid, 127)),
	alg			text NOT NULL CHECK (alg IN ('ES256', 'EdDSA', 'RS256')),
	public_jwk	jsonb NOT NULL,
	sealed		bytea,
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	retired_at	timestamptz,
	revoked_at	timestamptz
);
COMMENT ON TABLE sessauth.signing_key IS 'Signing keys; the newest one that is neither retired nor revoked signs';
COMMENT ON COLUMN sessauth.signing_key.sealed IS 'The private key (PKCS #8), AES-256-GCM under the master key';

CREATE TABLE sessauth.secret (
	name		text PRIMARY KEY CHECK (name IN ('link', 'refresh')),
	sealed		bytea NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE sessauth.secret IS 'The link key and the refresh-token key, AES-256-GCM under the master key';

CREATE TABLE sessauth.access (
	role_name	text NOT NULL,
	access		text NOT NULL CHECK (access IN ('service', 'node', 'tenant_admin', 'auditor')),
	tenant_id	text COLLATE "C",
	granted_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	CHECK (access <> 'tenant_admin' OR tenant_id IS NOT NULL),
	CHECK (access <> 'node' OR tenant_id IS NULL)
);
CREATE UNIQUE INDEX access_once ON sessauth.access (role_name, access, coalesce(tenant_id, ''));
COMMENT ON TABLE sessauth.access IS 'Which role may do what; roles by name, so that a dump carries them';

CREATE TABLE sessauth.mirror (
	name		text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9_.-]{1,63}$'),
	url			text NOT NULL,
	password_file	text,
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE sessauth.mirror IS 'The Redis servers that the worker keeps equal to the ledger';

SELECT pg_catalog.pg_extension_config_dump('sessauth.epoch_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.event_seq', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.tenant', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.tenant_user', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.session', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.event', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.event_default', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.signing_key', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.secret', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.access', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.mirror', '');

/* ---- this cluster only ---- */

CREATE TABLE sessauth.ledger_state (
	singleton	boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	ledger_id	uuid NOT NULL DEFAULT gen_random_uuid(),
	system_id	bigint NOT NULL,
	database_oid	oid NOT NULL,
	timeline	integer NOT NULL,
	floor		bigint NOT NULL,
	generation	uuid NOT NULL DEFAULT gen_random_uuid(),
	n			bigint NOT NULL DEFAULT 0,
	seen		pg_snapshot NOT NULL DEFAULT '1:1:',
	activated_at	timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE sessauth.ledger_state IS
	'Identity and position of this copy of the ledger; empty until the first write call, and never dumped';
COMMENT ON COLUMN sessauth.ledger_state.floor IS 'Events up to this id came with a restore: history, not news';
COMMENT ON COLUMN sessauth.ledger_state.generation IS 'Random, and new whenever numbers of the revocation log could otherwise repeat';
COMMENT ON COLUMN sessauth.ledger_state.n IS 'Number of the last entry of the revocation log in this generation';
COMMENT ON COLUMN sessauth.ledger_state.seen IS 'Snapshot up to which events have been numbered into the revocation log';

CREATE TABLE sessauth.revocation_log (
	generation	uuid NOT NULL,
	n			bigint NOT NULL,
	kind		text NOT NULL CHECK (kind IN ('session', 'user', 'tenant', 'key')),
	tenant_id	text COLLATE "C" NOT NULL DEFAULT '',
	user_id		text COLLATE "C" NOT NULL DEFAULT '',
	session_id	uuid,
	kid			text NOT NULL DEFAULT '',
	epoch		bigint NOT NULL DEFAULT 0,
	event_id	bigint NOT NULL,
	at			timestamptz NOT NULL,
	until		timestamptz NOT NULL,
	PRIMARY KEY (generation, n)
);
COMMENT ON TABLE sessauth.revocation_log IS
	'Revocations in the one order in which every mirror and every node hears of them; rows go when no token can need them';

CREATE TABLE sessauth.mirror_state (
	name		text PRIMARY KEY,
	generation	uuid,
	seen		pg_snapshot,
	run_id		text,
	synced_at	timestamptz
);
COMMENT ON TABLE sessauth.mirror_state IS 'How far each mirror has been brought; a null snapshot asks for a full sync, and a mirror without a row (its ledger is a restored or cloned copy) is disabled until activate()';
COMMENT ON COLUMN sessauth.mirror_state.seen IS 'Snapshot up to which session events have reached the mirror';
COMMENT ON COLUMN sessauth.mirror_state.run_id IS 'The life of the Redis process that this is about: another one may have lost something';
COMMENT ON COLUMN sessauth.mirror_state.synced_at IS 'When the last full sync ended; null while one is needed';
/*
 * Chapter 20: the history writes itself, and what no statement may do.
 * C: src/ledger/event.c, src/ledger/guard.c.
 *
 * The triggers are ENABLE ALWAYS: a session in replica mode must not be able
 * to change the ledger unseen. Rows arriving from a dump are told by the ledger being dormant.
 */

CREATE FUNCTION sessauth.record() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'sessauth_record';
COMMENT ON FUNCTION sessauth.record() IS 'Writes the event of a changed row and wakes the worker at commit';

CREATE FUNCTION sessauth.guard_session() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'sessauth_guard_session';
COMMENT ON FUNCTION sessauth.guard_session() IS 'A session keeps its identity, never comes back, and gets a new version with every change';

CREATE FUNCTION sessauth.guard_epoch() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'sessauth_guard_epoch';
COMMENT ON FUNCTION sessauth.guard_epoch() IS 'An epoch only grows, and always to the next number of the sequence';

CREATE FUNCTION sessauth.refuse_truncate() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'sessauth_refuse_truncate';
COMMENT ON FUNCTION sessauth.refuse_truncate() IS 'TRUNCATE would pass by the history and the mirrors';

CREATE TRIGGER guard BEFORE UPDATE ON sessauth.session
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_session();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON sessauth.tenant
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_epoch();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON sessauth.tenant_user
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_epoch();

CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sessauth.session
	FOR EACH ROW EXECUTE FUNCTION sessauth.record();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sessauth.tenant
	FOR EACH ROW EXECUTE FUNCTION sessauth.record();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sessauth.tenant_user
	FOR EACH ROW EXECUTE FUNCTION sessauth.record();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sessauth.signing_key
	FOR EACH ROW EXECUTE FUNCTION sessauth.record();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sessauth.access
	FOR EACH ROW EXECUTE FUNCTION sessauth.record();
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON sessauth.mirror
	FOR EACH ROW EXECUTE FUNCTION sessauth.record();

CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.session
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.tenant
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.tenant_user
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.signing_key
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.access
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.mirror
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.secret
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.event
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.event_default
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.revocation_log
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();

ALTER TABLE sessauth.session ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.tenant ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.tenant_user ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.signing_key ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.access ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.mirror ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.secret ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.event ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.event_default ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.revocation_log ENABLE ALWAYS TRIGGER no_truncate;
/*
 * Chapter 30: who may do what. C: src/ledger/access.c.
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

ALTER TABLE sessauth.tenant ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.tenant_user ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.session ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.event_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.signing_key ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.access ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.mirror ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.ledger_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.revocation_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE sessauth.mirror_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY readers ON sessauth.tenant FOR SELECT
	USING ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
CREATE POLICY readers ON sessauth.tenant_user FOR SELECT
	USING ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
CREATE POLICY readers ON sessauth.session FOR SELECT
	USING ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
CREATE POLICY readers ON sessauth.event FOR SELECT
	USING ((SELECT sessauth.reads_all()) OR tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]));
/* Chapter 40: tenants and their policies. C: src/ledger/tenant.c, src/ledger/policy.c. */

CREATE FUNCTION sessauth.create_tenant(tenant_id text, policy jsonb DEFAULT '{}') RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_create_tenant';
COMMENT ON FUNCTION sessauth.create_tenant(text, jsonb) IS
	'Creates a tenant; returns the policy in force; throws 42710 when it exists, 22023 for a bad id or policy';

CREATE FUNCTION sessauth.set_policy(tenant_id text, policy jsonb) RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_set_policy';
COMMENT ON FUNCTION sessauth.set_policy(text, jsonb) IS
	'Replaces a tenant''s policy; returns the policy in force; throws 42704 for an unknown tenant, 22023 for a bad policy';

CREATE FUNCTION sessauth.drop_tenant(tenant_id text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_drop_tenant';
COMMENT ON FUNCTION sessauth.drop_tenant(text) IS
	'Ends every session of a tenant and removes its rows; the history stays, with one event for all of it; returns its id';
/* Chapter 45: signing keys and the link key. C: src/ledger/signing.c. */

CREATE FUNCTION sessauth.create_signing_key(alg text DEFAULT 'ES256') RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_create_signing_key';
COMMENT ON FUNCTION sessauth.create_signing_key(text) IS
	'Makes a key (ES256, EdDSA or RS256) that signs from now on; returns its kid; throws F0000 without a usable master key';

CREATE FUNCTION sessauth.rotate_signing_key(alg text DEFAULT NULL) RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_rotate_signing_key';
COMMENT ON FUNCTION sessauth.rotate_signing_key(text) IS
	'A new key signs from now on, of the same algorithm unless named; the keys before it are retired; returns its kid';

CREATE FUNCTION sessauth.retire_signing_key(kid text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_retire_signing_key';
COMMENT ON FUNCTION sessauth.retire_signing_key(text) IS
	'The key signs no more, its tokens stay good; returns the event id, null when retired or revoked already';

CREATE FUNCTION sessauth.revoke_signing_key(kid text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_signing_key';
COMMENT ON FUNCTION sessauth.revoke_signing_key(text) IS
	'Every token that the key signed stops at once, everywhere; returns the event id, null when revoked already';

CREATE FUNCTION sessauth.jwks() RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_jwks';
COMMENT ON FUNCTION sessauth.jwks() IS 'The public keys whose tokens are good, as a JWK set (RFC 7517)';

CREATE FUNCTION sessauth.link_key() RETURNS bytea
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_link_key';
COMMENT ON FUNCTION sessauth.link_key() IS
	'The secret that authenticates worker and nodes to each other through Redis; for access "node"';

CREATE POLICY readers ON sessauth.signing_key FOR SELECT USING ((SELECT sessauth.reads_all()));

CREATE VIEW sessauth.keys WITH (security_barrier) AS
	SELECT k.kid, k.alg,
		CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.retired_at IS NOT NULL THEN 'retired'
			WHEN k.kid = first_value(k.kid) OVER (PARTITION BY k.retired_at IS NULL AND k.revoked_at IS NULL
				ORDER BY k.created_at DESC, k.kid) THEN 'signing' ELSE 'published' END AS state,
		k.created_at, k.retired_at, k.revoked_at
	FROM sessauth.signing_key k
	WHERE (SELECT sessauth.reads_all())
	ORDER BY k.created_at DESC;
COMMENT ON VIEW sessauth.keys IS 'The signing keys and what each is good for, without secrets';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.keys SET (security_invoker = true);
	END IF;
END
$$;
/*
 * Chapter 50: sessions. Login (src/ledger/login.c), refresh (refresh.c),
 * verify and introspect (verify.c), logout (logout.c), the transaction's
 * identity (identity.c), and who is logged in where (session.c).
 */

CREATE FUNCTION sessauth.issue_session(
	tenant_id text, user_id text, device text DEFAULT NULL, ip inet DEFAULT NULL, user_agent text DEFAULT NULL,
	claims jsonb DEFAULT NULL,
	OUT outcome text, OUT session_id uuid, OUT access_token text, OUT access_expires_at timestamptz,
	OUT refresh_token text, OUT refresh_expires_at timestamptz, OUT epoch bigint, OUT evicted uuid[])
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_issue_session';
COMMENT ON FUNCTION sessauth.issue_session(text, text, text, inet, text, jsonb) IS
	'Login of a user on one device; outcomes ok, limit_reached, user_blocked, tenant_suspended; throws 42704 for an unknown tenant';

CREATE FUNCTION sessauth.refresh_session(
	refresh_token text, ip inet DEFAULT NULL, user_agent text DEFAULT NULL,
	OUT outcome text, OUT session_id uuid, OUT access_token text, OUT access_expires_at timestamptz,
	OUT refresh_token text, OUT refresh_expires_at timestamptz, OUT epoch bigint, OUT evicted uuid[])
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_refresh_session';
COMMENT ON FUNCTION sessauth.refresh_session(text, inet, text) IS
	'Exchanges a refresh token for new tokens; outcomes ok, reused, expired, idle, revoked, unknown';

CREATE FUNCTION sessauth.verify(
	access_token text,
	OUT outcome text, OUT tenant_id text, OUT user_id text, OUT session_id uuid, OUT epoch bigint,
	OUT expires_at timestamptz, OUT claims jsonb)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_verify';
COMMENT ON FUNCTION sessauth.verify(text) IS
	'Authoritative check on the newest committed state; outcomes active, malformed, bad_signature, unknown_key, wrong_issuer, not_yet_valid, expired, revoked, cannot_tell';

CREATE FUNCTION sessauth.introspect(token text) RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_introspect';
COMMENT ON FUNCTION sessauth.introspect(text) IS
	'RFC 7662 for an access or a refresh token; never consumes one; {"active": false} says nothing more';

CREATE FUNCTION sessauth.logout(token text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_logout';
COMMENT ON FUNCTION sessauth.logout(text) IS
	'Ends the session of an access or refresh token, an expired one included (RFC 7009); false when there was none to end';

CREATE FUNCTION sessauth.list_sessions(
	tenant_id text, user_id text,
	OUT session_id uuid, OUT device text, OUT ip inet, OUT user_agent text, OUT created_at timestamptz,
	OUT refreshed_at timestamptz, OUT expires_at timestamptz) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_list_sessions';
COMMENT ON FUNCTION sessauth.list_sessions(text, text) IS 'The live sessions of a user, the newest first: for a "your devices" page';

CREATE FUNCTION sessauth.authenticate(access_token text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_authenticate';
COMMENT ON FUNCTION sessauth.authenticate(text) IS
	'Verifies, and binds tenant, user and session to the current transaction; throws 28000 when the token is not active';

CREATE FUNCTION sessauth.current_tenant() RETURNS text
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_current_tenant';
COMMENT ON FUNCTION sessauth.current_tenant() IS
	'The tenant of the authenticated transaction, else null; in policies write (SELECT sessauth.current_tenant())';

CREATE FUNCTION sessauth.current_user_id() RETURNS text
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_current_user_id';
COMMENT ON FUNCTION sessauth.current_user_id() IS 'The user of the authenticated transaction, else null';

CREATE FUNCTION sessauth.current_session_id() RETURNS uuid
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_current_session_id';
COMMENT ON FUNCTION sessauth.current_session_id() IS 'The session of the authenticated transaction, else null';

CREATE FUNCTION sessauth.session_state(
	ended_at timestamptz, expires_at timestamptz, idle_expires_at timestamptz,
	epoch bigint, user_epoch bigint, tenant_epoch bigint, tenant_epoch_now bigint) RETURNS text
	LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'sessauth_session_state';
COMMENT ON FUNCTION sessauth.session_state(timestamptz, timestamptz, timestamptz, bigint, bigint, bigint, bigint) IS
	'The liveness rule: live, or ended, user revoked, tenant revoked, expired, idle';

/* On PostgreSQL 14, which has no security_invoker, the predicate alone holds the tenants apart. */
CREATE VIEW sessauth.sessions WITH (security_barrier) AS
	SELECT s.tenant_id, s.user_id, s.session_id,
		sessauth.session_state(s.ended_at, s.expires_at, s.idle_expires_at, s.epoch, u.epoch, s.tenant_epoch, t.epoch) AS state,
		s.device, s.ip, s.user_agent, s.created_at, s.refreshed_at, s.expires_at, s.idle_expires_at, s.access_expires_at,
		s.ended_at, s.end_reason
	FROM sessauth.session s
	LEFT JOIN sessauth.tenant_user u ON u.tenant_id = s.tenant_id AND u.user_id = s.user_id
	LEFT JOIN sessauth.tenant t ON t.tenant_id = s.tenant_id
	WHERE (SELECT sessauth.reads_all()) OR s.tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]);
COMMENT ON VIEW sessauth.sessions IS 'Who is logged in where, live or why not';

CREATE VIEW sessauth.history WITH (security_barrier) AS
	SELECT e.event_id, e.at, e.kind, e.tenant_id, e.user_id, e.session_id, e.kid, e.epoch, e.actor, e.role, e.ip, e.reason, e.detail
	FROM sessauth.event e
	WHERE (SELECT sessauth.reads_all()) OR e.tenant_id = ANY ((SELECT sessauth.reads_tenants())::text[]);
COMMENT ON VIEW sessauth.history IS 'Everything that happened';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.sessions SET (security_invoker = true);
		ALTER VIEW sessauth.history SET (security_invoker = true);
	END IF;
END
$$;
/* Chapter 60: forced logout, blocking, suspending. C: src/ledger/revoke.c. */

CREATE FUNCTION sessauth.revoke_session(tenant_id text, session_id uuid, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_session';
COMMENT ON FUNCTION sessauth.revoke_session(text, uuid, text, text) IS
	'Ends one session; returns the event id, null when it is unknown or already ended';

CREATE FUNCTION sessauth.revoke_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_user';
COMMENT ON FUNCTION sessauth.revoke_user(text, text, text, text) IS
	'Ends every session of a user by raising the user''s epoch; returns the event id';

CREATE FUNCTION sessauth.revoke_other_sessions(
	tenant_id text, user_id text, keep uuid, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_other_sessions';
COMMENT ON FUNCTION sessauth.revoke_other_sessions(text, text, uuid, text, text) IS
	'Ends every session of a user but one; returns the id of the last event, null when there are no others';

CREATE FUNCTION sessauth.revoke_tenant(tenant_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_revoke_tenant';
COMMENT ON FUNCTION sessauth.revoke_tenant(text, text, text) IS
	'Ends every session of a tenant by raising its epoch; returns the event id';

CREATE FUNCTION sessauth.block_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_block_user';
COMMENT ON FUNCTION sessauth.block_user(text, text, text, text) IS
	'Ends every session of a user and refuses new logins; returns the event id, null when blocked already';

CREATE FUNCTION sessauth.unblock_user(tenant_id text, user_id text, reason text DEFAULT NULL, actor text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_unblock_user';
COMMENT ON FUNCTION sessauth.unblock_user(text, text, text, text) IS
	'Lets a user log in again; sessions of before stay dead; returns the event id, null when not blocked';

CREATE FUNCTION sessauth.suspend_tenant(tenant_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_suspend_tenant';
COMMENT ON FUNCTION sessauth.suspend_tenant(text, text, text) IS
	'Ends every session of a tenant and refuses new logins; returns the event id, null when suspended already';

CREATE FUNCTION sessauth.resume_tenant(tenant_id text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_resume_tenant';
COMMENT ON FUNCTION sessauth.resume_tenant(text, text, text) IS
	'Lets a tenant''s users log in again; sessions of before stay dead; returns the event id, null when not suspended';
/* Chapter 70: mirrors and nodes. C: src/ledger/mirror.c, src/worker/status.c. */

CREATE FUNCTION sessauth.add_mirror(name text, url text, password_file text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_add_mirror';
COMMENT ON FUNCTION sessauth.add_mirror(text, text, text) IS
	'Makes a Redis server a mirror: redis://[user@]host[:port][/db] or unix:///path[?db=n]; throws 22023, 42710, F0000';

CREATE FUNCTION sessauth.remove_mirror(name text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_remove_mirror';
COMMENT ON FUNCTION sessauth.remove_mirror(text) IS 'Stops writing to a mirror; its keys stay until they expire; false when there is none of that name';

CREATE FUNCTION sessauth.activate(revoke_all boolean DEFAULT false) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_activate';
COMMENT ON FUNCTION sessauth.activate(boolean) IS
	'For a restored or cloned ledger that takes the place of its original: enables its mirrors; returns how many; with revoke_all ends every session';

CREATE FUNCTION sessauth.mirror_status(
	OUT name text, OUT state text, OUT generation uuid, OUT n bigint, OUT behind bigint, OUT last_beat_at timestamptz,
	OUT last_error text, OUT last_error_at timestamptz, OUT warning text) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_mirror_status';
COMMENT ON FUNCTION sessauth.mirror_status() IS 'What the worker of this database last said of its mirrors; for the view mirrors';

CREATE FUNCTION sessauth.node_status(
	OUT name text, OUT incarnation text, OUT mirror text, OUT generation uuid, OUT n bigint, OUT behind bigint,
	OUT max_staleness interval, OUT refused boolean, OUT last_seen_at timestamptz) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'sessauth_node_status';
COMMENT ON FUNCTION sessauth.node_status() IS 'The nodes that the worker of this database knows; for the view nodes';

CREATE VIEW sessauth.mirrors WITH (security_barrier) AS
	SELECT m.name, m.url,
		CASE WHEN s.name IS NULL THEN 'disabled' ELSE coalesce(w.state, 'waiting') END AS state,
		w.generation, w.n, w.behind, clock_timestamp() - w.last_beat_at AS last_beat_age, s.synced_at,
		w.last_error, w.last_error_at, w.warning
	FROM sessauth.mirror m
	LEFT JOIN sessauth.mirror_state s ON s.name = m.name
	LEFT JOIN sessauth.mirror_status() w ON w.name = m.name
	WHERE (SELECT sessauth.reads_all());
COMMENT ON VIEW sessauth.mirrors IS 'The Redis mirrors: state, how far behind, last error';
COMMENT ON COLUMN sessauth.mirrors.state IS
	'streaming; syncing (a full copy is under way); connecting; down (see last_error); waiting (no worker or no link key); disabled (a restored or cloned ledger: see activate())';
COMMENT ON COLUMN sessauth.mirrors.behind IS 'Revocations that this mirror has not yet been sent';

CREATE VIEW sessauth.nodes WITH (security_barrier) AS
	SELECT n.name, n.incarnation, n.mirror, n.generation, n.n, n.behind, n.max_staleness, n.refused,
		clock_timestamp() - n.last_seen_at AS last_seen_age
	FROM sessauth.node_status() n
	WHERE (SELECT sessauth.reads_all());
COMMENT ON VIEW sessauth.nodes IS 'The nodes that ask for leases: what they have applied and when they last asked';
COMMENT ON COLUMN sessauth.nodes.incarnation IS 'New for every life of a process';
COMMENT ON COLUMN sessauth.nodes.behind IS 'Revocations that it had not yet applied when it last asked';
COMMENT ON COLUMN sessauth.nodes.refused IS 'It asks for a longer lease than sessauth.max_lease and gets none';

DO $$
BEGIN
	IF current_setting('server_version_num')::int >= 150000 THEN
		ALTER VIEW sessauth.mirrors SET (security_invoker = true);
		ALTER VIEW sessauth.nodes SET (security_invoker = true);
	END IF;
END
$$;

CREATE FUNCTION sessauth.worker_probe() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_worker_probe';
COMMENT ON FUNCTION sessauth.worker_probe() IS 'Asks the launcher to look at this database when the transaction has committed';

SELECT sessauth.worker_probe();

CREATE POLICY readers ON sessauth.mirror FOR SELECT USING ((SELECT sessauth.reads_all()));
CREATE POLICY readers ON sessauth.mirror_state FOR SELECT USING ((SELECT sessauth.reads_all()));
/* Chapter 90: nothing is for everybody. Must stay the last chapter. */

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA sessauth FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA sessauth FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA sessauth FROM PUBLIC;
