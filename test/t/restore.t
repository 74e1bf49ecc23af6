# restore.t
#		Dump and restore (plain and custom with several jobs), and a database
#		cloned from a template: the data lives on, nothing is news again, and the
#		copy never writes to the original's mirror until somebody says so.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;

my $ledger = new_ledger('restore');
my $redis  = Sessauth::Redis->start_server;
my $dba    = $ledger->dbh;
my $app    = $ledger->dbh('app');

value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', $_) for qw(acme other);
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
my $live    = login('acme', 'alice');
my $revoked = login('acme', 'bob');
value($app, 'SELECT sessauth.revoke_user(?, ?, ?)', 'acme', 'bob', 'before the dump');
poll_until('the mirror to stream', sub { value($dba, 'SELECT state FROM sessauth.mirrors') eq 'streaming' });
poll_until('the mirror to have the revocation', sub { $redis->hash('sessauth:mirror')->{n} == 1 });

my $history = value($dba, 'SELECT md5(string_agg(e::text, chr(10) ORDER BY event_id)) FROM sessauth.event e');
my $last    = value($dba, 'SELECT max(event_id) FROM sessauth.event');
my $owner   = $redis->hash('sessauth:mirror')->{owner};
my $dir     = private_dir();

PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-f', "$dir/plain.sql", '-d', $ledger->connstr('postgres'));
PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-Fc', '-f', "$dir/custom.dump", '-d', $ledger->connstr('postgres'));

$dba->do("CREATE DATABASE $_") for qw(plain custom);
is(system('psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $ledger->connstr('plain'), '-f', "$dir/plain.sql"), 0,
	'a plain dump is restored without an error');
is(system('pg_restore', '--exit-on-error', '-j4', '-d', $ledger->connstr('custom'), "$dir/custom.dump"), 0,
	'a custom dump is restored by four jobs without an error');
restored($_) for qw(plain custom);

# A clone has all that the original had, also what belongs to one cluster.
my $elsewhere = connect_to($ledger->conninfo(undef, 'template1'));
$_->disconnect for $dba, $app;
$elsewhere->do('CREATE DATABASE clone TEMPLATE postgres');
pass('the worker does not block CREATE DATABASE ... TEMPLATE');
my $clone = $ledger->dbh(undef, 'clone');
poll_until('the clone to be recognised', sub { value($clone, 'SELECT state FROM sessauth.mirrors') eq 'disabled' });
isnt(value($clone, 'SELECT ledger_id FROM sessauth.ledger_state'), $owner, 'the clone has an identity of its own');
is(value($clone, 'SELECT outcome FROM sessauth.verify(?)', $live->{access_token}), 'active', 'a live session is live in the clone');
is(value($clone, 'SELECT outcome FROM sessauth.verify(?)', $revoked->{access_token}), 'revoked', 'a revoked one is revoked');
value($clone, 'SELECT sessauth.revoke_tenant(?)', 'acme');
poll_until('the clone to number its revocation', sub { value($clone, 'SELECT n FROM sessauth.ledger_state') > 1 });
is($redis->hash('sessauth:mirror')->{owner}, $owner, 'the mirror still belongs to the original');
is($redis->hash('sessauth:mirror')->{n}, 1, 'and has nothing from the clone');
$clone->disconnect;
$elsewhere->do('DROP DATABASE clone');
pass('the worker does not block DROP DATABASE');

done_testing;

sub login
{
	my ($tenant, $user) = @_;
	return row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, $user);
}

sub restored
{
	my ($database) = @_;
	my $copy = $ledger->dbh(undef, $database);

	is(value($copy, 'SELECT count(*) FROM sessauth.ledger_state'), 0, "$database: dormant until the first call that writes");
	is(value($copy, 'SELECT md5(string_agg(e::text, chr(10) ORDER BY event_id)) FROM sessauth.event e'), $history,
		"$database: the history is the same, to the letter");
	is(value($copy, 'SELECT outcome FROM sessauth.verify(?)', $live->{access_token}), 'active', "$database: a live token is active");
	is(value($copy, 'SELECT outcome FROM sessauth.verify(?)', $revoked->{access_token}), 'revoked', "$database: a revoked one is revoked");
	is(value($copy, 'SELECT outcome FROM sessauth.refresh_session(?)', $live->{refresh_token}), 'ok', "$database: a refresh token works");
	is(value($copy, 'SELECT floor FROM sessauth.ledger_state'), $last, "$database: what came with the dump is history, not news");
	cmp_ok(value($copy, 'SELECT max(event_id) FROM sessauth.event'), '>', $last, "$database: event ids go on");
	my $as_app = $ledger->dbh('app', $database);
	my $new = row($as_app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'bob');
	is($new->{outcome}, 'ok', "$database: grants have survived");
	cmp_ok($new->{epoch}, '>', $revoked->{epoch}, "$database: epochs go on");
	$as_app->disconnect;
	is(value($copy, 'SELECT state FROM sessauth.mirrors'), 'disabled', "$database: its mirror is disabled");
	is($redis->hash('sessauth:mirror')->{owner}, $owner, "$database: the mirror belongs to the original");
	is(value($copy, 'SELECT sessauth.activate()'), 1, "$database: activate() enables it");
	poll_until('the mirror to be refused', sub { (value($copy, 'SELECT last_error FROM sessauth.mirrors') // '') =~ /another ledger/ });
	is($redis->hash('sessauth:mirror')->{owner}, $owner, "$database: even then it takes nothing from an owner that is alive");
	value($copy, 'SELECT sessauth.remove_mirror(?)', 'main');
	$copy->disconnect;
	return;
}
