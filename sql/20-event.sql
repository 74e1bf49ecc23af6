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

CREATE FUNCTION sessauth.guard_history() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'sessauth_guard_history';
COMMENT ON FUNCTION sessauth.guard_history() IS 'The history is changed by superusers, retention and erase_user() alone';

CREATE FUNCTION sessauth.refuse_truncate() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'sessauth_refuse_truncate';
COMMENT ON FUNCTION sessauth.refuse_truncate() IS 'TRUNCATE would pass by the history and the mirrors';

CREATE TRIGGER guard BEFORE UPDATE ON sessauth.session
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_session();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON sessauth.tenant
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_epoch();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON sessauth.tenant_user
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_epoch();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON sessauth.event
	FOR EACH ROW EXECUTE FUNCTION sessauth.guard_history();

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
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.erasure
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.revocation_log
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.ledger_state
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.receipt_state
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.arrival
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.mirror_state
	FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate();

ALTER TABLE sessauth.session ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.tenant ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.tenant_user ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.signing_key ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.access ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.mirror ENABLE ALWAYS TRIGGER record, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.secret ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.event ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.erasure ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.revocation_log ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.receipt_state ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.arrival ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.ledger_state ENABLE ALWAYS TRIGGER no_truncate;
ALTER TABLE sessauth.mirror_state ENABLE ALWAYS TRIGGER no_truncate;

CREATE FUNCTION sessauth.prepare_partition(partition regclass) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sessauth_prepare_partition';
COMMENT ON FUNCTION sessauth.prepare_partition(regclass) IS
	'Gives a partition of the history its indexes, guards and row security; throws 42P16 when it has them already';

SELECT sessauth.prepare_partition('sessauth.event_default');
