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
	tenant_id	text COLLATE "C" DEFAULT '',
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
	detail		jsonb,
	client_addr	inet DEFAULT inet_client_addr()
) PARTITION BY RANGE (at);

CREATE TABLE sessauth.event_default PARTITION OF sessauth.event DEFAULT;
COMMENT ON TABLE sessauth.event IS 'Append-only: the history of everything that happened, and what the worker publishes';
COMMENT ON TABLE sessauth.event_default IS 'Catches events of a month that has no partition yet';
COMMENT ON COLUMN sessauth.event.xid IS 'The transaction that wrote it: consumers read by snapshot, because ids are given before commit';
COMMENT ON COLUMN sessauth.event.tenant_id IS 'Empty for what concerns no tenant';
COMMENT ON COLUMN sessauth.event.revokes IS 'What it revokes, if anything: session, user, tenant or key';
COMMENT ON COLUMN sessauth.event.epoch IS 'Session events: the user''s epoch at the session''s birth; user and tenant events: the new epoch';
COMMENT ON COLUMN sessauth.event.version IS 'Session events: the version of the session row after the change';
COMMENT ON COLUMN sessauth.event.live IS 'Session events: the row says active (true) or ended (false) after the change';
COMMENT ON COLUMN sessauth.event.expires_at IS 'Session events: when the session ends if nothing happens';
COMMENT ON COLUMN sessauth.event.until IS
	'Revocations: no token that it affects lives longer, had it been committed at that moment (the worker adds the time until it saw it)';
COMMENT ON COLUMN sessauth.event.actor IS 'Who asked for it';
COMMENT ON COLUMN sessauth.event.role IS 'The database role that did it';
COMMENT ON COLUMN sessauth.event.ip IS 'The end user''s address, as the application tells it';
COMMENT ON COLUMN sessauth.event.client_addr IS 'The address of the database connection; null over a unix socket and for the worker';
COMMENT ON COLUMN sessauth.event.detail IS
	'{"before": …, "after": …}: of an UPDATE the columns that differ, of an INSERT or DELETE the row; null where the other columns say it all';

CREATE TABLE sessauth.erasure (
	event_id	bigint PRIMARY KEY,
	tenant_id	text COLLATE "C" NOT NULL,
	user_id		text COLLATE "C" NOT NULL,
	pseudonym	text NOT NULL,
	epoch		bigint NOT NULL
);
COMMENT ON TABLE sessauth.erasure IS
	'Erased users whose real id somebody still needs: nodes for the revocation, transactions that were open; the worker finishes them';
COMMENT ON COLUMN sessauth.erasure.event_id IS 'The event of the erasure, which still has the real user id';
COMMENT ON COLUMN sessauth.erasure.epoch IS 'What is older was the erased user''s; what is newer is somebody''s who came later under the same id';

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
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	sealed_by	text NOT NULL
);
COMMENT ON TABLE sessauth.secret IS 'The link key and the refresh-token key, AES-256-GCM under the master key';
COMMENT ON COLUMN sessauth.secret.sealed_by IS 'Id of that master key, so that a server with another one can be told: the start of a MAC under it';

CREATE TABLE sessauth.access (
	role_name	text NOT NULL,
	access		text NOT NULL CHECK (access IN ('service', 'node', 'tenant_admin', 'auditor')),
	tenant_id	text COLLATE "C",
	granted_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	role_id		oid,
	CHECK (access <> 'tenant_admin' OR tenant_id IS NOT NULL),
	CHECK (access <> 'node' OR tenant_id IS NULL)
);
COMMENT ON TABLE sessauth.access IS 'Which role may do what';
COMMENT ON COLUMN sessauth.access.role_name IS 'Carries the grant through a dump: roles of another cluster have other ids';
COMMENT ON COLUMN sessauth.access.role_id IS
	'The role itself: renamed it keeps its access, and a later role of its old name gets none. A restored ledger is bound by name when it becomes active';

CREATE TABLE sessauth.arrival (
	event_id	bigint PRIMARY KEY,
	tenant_id	text COLLATE "C",
	committed_after	timestamptz NOT NULL,
	published_at	timestamptz,
	confirmed_at	timestamptz NOT NULL,
	ways		jsonb
);
CREATE INDEX ON sessauth.arrival (committed_after);
COMMENT ON TABLE sessauth.arrival IS 'When a revocation had reached every mirror and every node; kept as long as the history';
COMMENT ON COLUMN sessauth.arrival.committed_after IS 'It had not committed earlier than this';
COMMENT ON COLUMN sessauth.arrival.published_at IS 'Null when a mirror was away, and its nodes had lost their leases, before it was there';
COMMENT ON COLUMN sessauth.arrival.ways IS 'When the nodes of each mirror, and those over SQL (*), knew it or had lost their leases; null when there is but one way';

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
SELECT pg_catalog.pg_extension_config_dump('sessauth.erasure', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.signing_key', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.secret', '');

/* A grant whose role is gone or has another name must not come back as a grant to whoever bears that name elsewhere. */
SELECT pg_catalog.pg_extension_config_dump('sessauth.access',
	'WHERE NOT EXISTS (SELECT FROM sessauth.ledger_state)'
	' OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = role_id AND r.rolname = role_name)');
SELECT pg_catalog.pg_extension_config_dump('sessauth.mirror', '');
SELECT pg_catalog.pg_extension_config_dump('sessauth.arrival', '');

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
	activated_at	timestamptz NOT NULL DEFAULT clock_timestamp(),
	longest_lease	bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE sessauth.ledger_state IS
	'Identity and position of this copy of the ledger; empty until the first write call, and never dumped';
COMMENT ON COLUMN sessauth.ledger_state.longest_lease IS 'No lease that may still be out was given for more milliseconds';
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
	committed_after	timestamptz,
	PRIMARY KEY (generation, n)
);
CREATE INDEX ON sessauth.revocation_log (event_id);
COMMENT ON COLUMN sessauth.revocation_log.committed_after IS 'It had not committed earlier than this';
COMMENT ON TABLE sessauth.revocation_log IS
	'Revocations in the one order in which every mirror and every node hears of them; rows go when no token can need them';

CREATE TABLE sessauth.receipt_state (
	mirror		text PRIMARY KEY,
	generation	uuid NOT NULL,
	n			bigint NOT NULL
);
COMMENT ON TABLE sessauth.receipt_state IS 'Up to which number every node of a mirror, (mirror is *) those over SQL, or (mirror is empty) everybody, knows all revocations or has lost its lease';

CREATE TABLE sessauth.mirror_state (
	name		text PRIMARY KEY,
	generation	uuid,
	seen		pg_snapshot,
	place		text,
	synced_at	timestamptz,
	resync_at	timestamptz,
	reconcile_at	timestamptz
);
COMMENT ON TABLE sessauth.mirror_state IS 'How far each mirror has been brought; a null snapshot asks for a full sync, and a mirror without a row (its ledger is a restored or cloned copy) is disabled until activate()';
COMMENT ON COLUMN sessauth.mirror_state.seen IS 'Snapshot up to which session events have reached the mirror';
COMMENT ON COLUMN sessauth.mirror_state.place IS 'The life of the Redis process, the database and the prefix that this is about: another one has other keys, or may have lost some';
COMMENT ON COLUMN sessauth.mirror_state.synced_at IS 'When the last full sync ended; null while one is needed';
COMMENT ON COLUMN sessauth.mirror_state.resync_at IS 'When somebody last asked for a full sync';
COMMENT ON COLUMN sessauth.mirror_state.reconcile_at IS 'When somebody last asked for a comparison with the ledger';
