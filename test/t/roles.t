# roles.t
#		Whose rights count: the current user's, at the moment of the call, however
#		the call is wrapped; and what becomes of a grant when its role is renamed,
#		dropped and made again, or arrives in another cluster.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;

my $ledger = new_ledger('roles', config => "max_connections = 40\n");
my $dba = $ledger->dbh;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', $_) for 'acme', 'other';
$dba->do($_) for
  'CREATE ROLE svc LOGIN', 'CREATE ROLE outsider LOGIN', 'CREATE ROLE member LOGIN IN ROLE svc',
  'CREATE ROLE noinherit_member LOGIN NOINHERIT IN ROLE svc', 'CREATE ROLE between IN ROLE svc', 'CREATE ROLE grandchild LOGIN IN ROLE between',
  'CREATE ROLE wall NOINHERIT IN ROLE svc', 'CREATE ROLE behind_wall LOGIN IN ROLE wall', 'CREATE ROLE admin LOGIN', 'CREATE ROLE auditor LOGIN',
  'CREATE SCHEMA tools', 'GRANT ALL ON SCHEMA tools TO PUBLIC', 'CREATE ROLE definer LOGIN';
value($dba, 'SELECT sessauth.grant_access(?, ?, ?)', @$_) for [ 'svc', 'service', 'acme' ], [ 'admin', 'tenant_admin', 'acme' ], [ 'auditor', 'auditor', undef ],
  [ 'definer', 'service', undef ];
# So that nothing but the functions' own check is asked.
$dba->do('GRANT USAGE ON SCHEMA sessauth TO PUBLIC');
$dba->do('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sessauth TO PUBLIC');
# A call that changes nothing, so that nobody waits for anybody.
my $CALL = q{sessauth.unblock_user('acme', 'somebody')};

# ---- roles inside roles ----

for my $case (
	[ svc => 'allowed' ], [ outsider => 'refused' ], [ member => 'allowed' ], [ noinherit_member => 'refused' ],
	[ grandchild => 'allowed' ], [ behind_wall => 'refused' ])
{
	my ($role, $expected) = @$case;
	is(tried($ledger->dbh($role), "SELECT $CALL"), $expected, "$role is $expected");
}

# ---- SET ROLE, SET SESSION AUTHORIZATION ----

my $dbh = $ledger->dbh('noinherit_member');
$dbh->do('SET ROLE svc');
is(tried($dbh, "SELECT $CALL"), 'allowed', 'a member that does not inherit is allowed after SET ROLE');
$dbh->do('RESET ROLE');
is(tried($dbh, "SELECT $CALL"), 'refused', 'and no longer after RESET ROLE');
$dbh = $ledger->dbh;
for my $statement ('SET ROLE outsider', 'RESET ROLE; SET SESSION AUTHORIZATION outsider')
{
	$dbh->do($_) for split /; /, $statement;
	is(tried($dbh, "SELECT $CALL"), 'refused', "a superuser after $statement is refused");
	is(tried($dbh, "SELECT sessauth.create_tenant('mine')"), 'refused', '... also what only superusers may do');
}
$dbh->do('RESET SESSION AUTHORIZATION');
$dbh->do("PREPARE again AS SELECT $CALL");
is(tried($dbh, 'EXECUTE again'), 'allowed', 'a prepared statement of a superuser');
$dbh->do('SET ROLE outsider');
is(tried($dbh, 'EXECUTE again'), 'refused', '... is refused when it runs again after SET ROLE');
$dbh->do('SET ROLE svc');
is(tried($dbh, 'EXECUTE again'), 'allowed', '... and allowed after another one');
$dbh->do('RESET ROLE');
$dbh->do('PREPARE look AS SELECT count(DISTINCT tenant_id) FROM sessauth.tenant');
$dbh->do('GRANT SELECT ON sessauth.tenant TO outsider');
is(value($dbh, 'EXECUTE look'), 2, 'a prepared query of a superuser reads every tenant');
for my $case ([ admin => 1 ], [ outsider => 0 ], [ auditor => 2 ])
{
	$dbh->do("SET ROLE $case->[0]");
	is(value($dbh, 'EXECUTE look'), $case->[1], "... and run again by $case->[0], $case->[1]");
}
$dbh->disconnect;

# ---- inside views, functions, triggers, DO ----

$ledger->dbh('definer')->do($_) for
  "CREATE FUNCTION tools.definer_plpgsql() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS \$\$BEGIN RETURN $CALL; END\$\$",
  "CREATE FUNCTION tools.definer_sql() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS \$\$SELECT $CALL\$\$",
  "CREATE FUNCTION tools.invoker_plpgsql() RETURNS bigint LANGUAGE plpgsql AS \$\$BEGIN RETURN $CALL; END\$\$",
  "CREATE FUNCTION tools.invoker_sql() RETURNS bigint LANGUAGE sql AS \$\$SELECT $CALL\$\$",
  "CREATE FUNCTION tools.sets_role() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS \$\$BEGIN EXECUTE 'SET ROLE definer'; RETURN $CALL; END\$\$",
  "CREATE VIEW tools.calls AS SELECT $CALL AS event", 'GRANT SELECT ON tools.calls TO PUBLIC',
  'CREATE TABLE tools.t (x int)', 'GRANT ALL ON tools.t TO PUBLIC',
  "CREATE FUNCTION tools.trg() RETURNS trigger LANGUAGE plpgsql AS \$\$BEGIN PERFORM $CALL; RETURN NEW; END\$\$",
  'CREATE TRIGGER trg BEFORE INSERT ON tools.t FOR EACH ROW EXECUTE FUNCTION tools.trg()';
for my $case (
	[ 'SELECT tools.definer_plpgsql()', 'allowed', 'allowed' ],    # the definer's rights, as with every definer function
	[ 'SELECT tools.definer_sql()',     'allowed', 'allowed' ],
	[ 'SELECT tools.invoker_plpgsql()', 'refused', 'allowed' ],
	[ 'SELECT tools.invoker_sql()',     'refused', 'allowed' ],
	[ 'SELECT tools.sets_role()',       'refused', 'refused' ],
	[ 'SELECT * FROM tools.calls',      'refused', 'allowed' ],    # not the view's owner's
	[ 'INSERT INTO tools.t VALUES (1)', 'refused', 'allowed' ],
	[ "DO \$\$ BEGIN PERFORM $CALL; END \$\$", 'refused', 'allowed' ],
	[ "SELECT (SELECT $CALL) FROM generate_series(1, 2)", 'refused', 'allowed' ])
{
	my ($statement, @expected) = @$case;
	for my $role ('outsider', 'svc')
	{
		my $expected = shift @expected;
		is(tried($ledger->dbh($role), $statement), $expected, "$statement by $role is $expected");
	}
}

# ---- what the caller may have put in the way ----

$dbh = $ledger->dbh('svc');
$dbh->do($_) for
  'SET search_path = pg_temp, tools, pg_catalog',
  q{CREATE FUNCTION pg_temp.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trap'; END$$},
  'CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.eq)',
  q{CREATE FUNCTION tools.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trap'; END$$},
  'CREATE OPERATOR tools.= (LEFTARG = text, RIGHTARG = text, FUNCTION = tools.eq)',
  (map { "CREATE FUNCTION tools.$_ LANGUAGE plpgsql AS \$\$BEGIN RAISE EXCEPTION 'trap'; END\$\$" }
	  'nextval(text) RETURNS bigint', 'clock_timestamp() RETURNS timestamptz', 'to_regclass(text) RETURNS regclass'),
  (map { "CREATE TEMP TABLE $_ (tenant_id text, epoch bigint, session_id uuid)" } qw(tenant tenant_user session event access pg_roles)),
  'CREATE TYPE pg_temp.jsonb AS (x int)', 'SET search_path = tools, pg_temp, pg_catalog';
my $login = row($dbh, q{SELECT * FROM sessauth.issue_session('acme', 'trapped')});
is($login->{outcome}, 'ok', 'a login does not fall into what the caller has put into the search path');
is(value($dbh, 'SELECT outcome FROM sessauth.verify($1)', $login->{access_token}), 'active', 'nor does verify');
is(value($dbh, 'SELECT outcome FROM sessauth.refresh_session($1)', $login->{refresh_token}), 'ok', 'nor refresh');
ok(value($dbh, q{SELECT sessauth.revoke_user('acme', 'trapped')}), 'nor a revocation');
is(value($dbh, 'SHOW search_path'), 'tools, pg_temp, pg_catalog', 'and finds its search path as it was');
is(tried($dbh, q{SELECT sessauth.revoke_user('other', 'x')}), 'refused', 'a temporary table "access" grants nothing');
$dbh->disconnect;

# ---- taking access back ----

my $running = $ledger->dbh('svc');
my $child = $ledger->dbh('member');
$running->begin_work;
$running->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
is(tried($_, "SELECT $CALL"), 'allowed', 'before revoke_access') for $running, $child;
$dba->begin_work;
value($dba, q{SELECT sessauth.revoke_access('svc', 'service', 'acme')});
is(tried($child, "SELECT $CALL"), 'allowed', 'a revocation of access counts when it commits');
$dba->rollback;
is(tried($child, "SELECT $CALL"), 'allowed', 'and not when it rolls back');
is(value($dba, q{SELECT sessauth.revoke_access('svc', 'service', 'acme')}), 1, 'access is taken back');
is(tried($_, "SELECT $CALL"), 'refused', 'which running sessions notice at once, also in the middle of a repeatable-read transaction') for $running, $child;
$running->rollback;
$dba->begin_work;
value($dba, q{SELECT sessauth.grant_access('svc', 'service', 'acme')});
$dba->rollback;
is(tried($running, "SELECT $CALL"), 'refused', 'a grant that rolls back grants nothing');
value($dba, q{SELECT sessauth.grant_access('svc', 'service', 'acme')}) for 1 .. 2;
is(value($dba, q{SELECT count(*) FROM sessauth.access WHERE role_name = 'svc'}), 1, 'granting twice is granting once');
is(tried($running, "SELECT $CALL"), 'allowed', 'a grant counts at once');
$_->disconnect for $running, $child;

# ---- renamed, dropped, made again ----

$dba->do('REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA sessauth FROM PUBLIC');
$dba->do('ALTER ROLE svc RENAME TO renamed');
is(tried($ledger->dbh('renamed'), "SELECT $CALL"), 'allowed', 'a renamed role keeps its access');
$dba->do('CREATE ROLE svc LOGIN');
$dba->do('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sessauth TO svc');
is(tried($ledger->dbh('svc'), "SELECT $CALL"), 'refused', 'a new role of the old name gets nothing');
value($dba, q{SELECT sessauth.grant_access('svc', 'tenant_admin', 'other')});
is(tried($ledger->dbh('svc'), "SELECT $CALL"), 'refused', '... also when it is granted something else');
is(tried($ledger->dbh('svc'), q{SELECT sessauth.revoke_user('other', 'x')}), 'allowed', '... which it has');
is(value($dba, q{SELECT string_agg(access, ' ') FROM sessauth.access WHERE role_name = 'renamed'}), 'service', 'the grant follows the name');
is(value($dba, q{SELECT sessauth.revoke_access('renamed', 'service', 'acme')}), 1, 'and can be taken back under it');
is(tried($ledger->dbh('renamed'), "SELECT $CALL"), 'refused', 'from the renamed role');

my $error = error_of($dba, 'DROP ROLE auditor');
is($error->{sqlstate}, '2BP01', 'a role with access cannot be dropped just so: its privileges depend on it');
$dba->do('DROP OWNED BY auditor');
$dba->do('DROP ROLE auditor');
$dba->do('CREATE ROLE auditor LOGIN');
value($dba, q{SELECT sessauth.grant_access('auditor', 'tenant_admin', 'acme')});
is(value($ledger->dbh('auditor'), q{SELECT string_agg(tenant_id, ' ') FROM sessauth.tenant}), 'acme', 'a new role of the name of a dropped auditor does not audit');
is(tried($ledger->dbh('auditor'), 'SELECT * FROM sessauth.mirrors'), 'refused', '... at all');
value($dba, q{SELECT sessauth.grant_access('auditor', 'auditor')});
is(value($ledger->dbh('auditor'), q{SELECT count(*) FROM sessauth.tenant}), 2, 'unless somebody grants it');

# ---- a grant travels in a dump, by name; a stale one stays behind ----

$dba->do('CREATE ROLE gone LOGIN');
value($dba, q{SELECT sessauth.grant_access('gone', 'service')});
value($dba, q{SELECT sessauth.grant_access('renamed', 'service', 'acme')});
$dba->do('DROP OWNED BY gone');
$dba->do('DROP ROLE gone');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$ledger->command_ok([ 'pg_dump', '-f', $dump, $ledger->connstr('postgres') ], 'a dump of the ledger');
my $second = new_ledger('second', extension => 0);
my $there = $second->dbh;
# Other ids for the same names, and somebody else under the name of the role that is gone.
$there->do("CREATE ROLE $_ LOGIN") for qw(gone filler auditor admin definer svc renamed app gate member outsider);
$second->command_ok([ 'psql', '-Xqf', $dump, $second->connstr('postgres') ], 'is restored in another cluster');
is(tried($second->dbh('renamed'), q{SELECT sessauth.verify('x')}), 'allowed', 'dormant, it goes by names');
value($there, q{SELECT sessauth.create_tenant('first_write')});
is(tried($second->dbh('renamed'), "SELECT $CALL"), 'allowed', 'a role of a grant has its access there');
is(tried($second->dbh('admin'), "SELECT $CALL"), 'allowed', '... and another one');
$there->do('GRANT USAGE ON SCHEMA sessauth TO gone; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sessauth TO gone');
is(tried($second->dbh('gone'), "SELECT $CALL"), 'refused', 'a grant whose role was gone is not granted to its namesake');
$there->do('ALTER ROLE admin RENAME TO boss');
is(tried($second->dbh('boss'), "SELECT $CALL"), 'allowed', 'and from then on they are bound to the roles');

done_testing;

# "allowed", or "refused" when the statement raises 42501. A database handle may be in a transaction.
sub tried
{
	my ($handle, $statement) = @_;
	my $in_transaction = !$handle->{AutoCommit};
	$handle->do('SAVEPOINT tried') if $in_transaction;
	my $failed = eval { $handle->do($statement); 1 } ? undef : { sqlstate => $handle->state, message => $handle->errstr };
	$handle->do('ROLLBACK TO tried') if $in_transaction && $failed;
	return 'allowed' if !$failed;
	return $failed->{sqlstate} eq '42501' ? 'refused' : "$failed->{sqlstate} $failed->{message}";
}
