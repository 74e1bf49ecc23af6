# standby.t
#		A real streaming standby: what it answers, what it does not know, what it
#		says of its master key before anybody needs it, and that it can take over.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('primary', init => { allows_streaming => 1 });
my $dba    = $ledger->dbh;
my $app    = $ledger->dbh('app');
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
$dba->do('CREATE DATABASE second');
$dba->do('CREATE DATABASE empty');
{
	my $second = $ledger->dbh(undef, 'second');
	$second->do('CREATE EXTENSION sessauth');
	value($second, 'SELECT sessauth.create_signing_key()');
}
my $live    = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'alice');
my $revoked = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'bob');
value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'bob');
my $id = value($dba, 'SELECT DISTINCT sealed_by FROM sessauth.secret');

$ledger->backup('base');
my $standby = Sessauth::Ledger->new('standby');
$standby->init_from_backup($ledger, 'base', has_streaming => 1);
$standby->start;
catch_up();

sub catch_up { $ledger->wait_for_catchup($standby, 'replay', $ledger->lsn('insert')); return; }

sub restart_standby
{
	my ($setting) = @_;
	$standby->append_conf('postgresql.conf', $setting);
	my $from = -s $standby->logfile;
	$standby->restart;
	return $from;
}

sub log_says
{
	my ($pattern, $from) = @_;
	return poll_until("the standby's log to say $pattern", sub { my $log = substr(slurp_file($standby->logfile), $from); $log =~ $pattern && $log });
}

sub outcome { my ($role, $login) = @_; return value($standby->dbh($role), 'SELECT outcome FROM sessauth.verify(?)', $login->{access_token}); }

# ---- what it answers by itself ----

my $gate = $standby->dbh('gate');
is(outcome('gate', $live), 'cannot_tell', 'verify cannot tell on a standby');
is(outcome('gate', $revoked), 'cannot_tell', 'not even of what it has heard');
my $error = error_of($gate, 'SELECT sessauth.introspect(?)', $live->{access_token});
is($error->{sqlstate}, '25006', 'introspect refuses');
like($error->{message}, qr/HINT:.*sessauth\.standby_verify/, 'with a hint');
is(error_of($gate, 'SELECT sessauth.authenticate(?)', $live->{access_token})->{sqlstate}, '28000', 'authenticate, too');
is(value($gate, 'SELECT sessauth.jwks()'), value($dba, 'SELECT sessauth.jwks()'), 'jwks are those of the primary');
is(value($gate, 'SELECT sessauth.link_key()'), value($dba, 'SELECT sessauth.link_key()'), 'so is the link key');
my $on_standby = $standby->dbh;
for my $view (qw(sessions history keys mirrors nodes))
{
	is(value($on_standby, "SELECT count(*) FROM sessauth.$view"), value($dba, "SELECT count(*) FROM sessauth.$view"), "the view $view is there");
}
for my $call ([ 'issue_session(?, ?)', 'acme', 'alice' ], [ 'refresh_session(?)', $live->{refresh_token} ], [ 'logout(?)', $live->{refresh_token} ],
	[ 'revoke_user(?, ?)', 'acme', 'alice' ], ['create_signing_key()'], [ 'create_tenant(?)', 'more' ],
	[ 'lease(?, ?, NULL, 0)', 'n/' . '0' x 32, '1s' ], [ 'end_lease(?)', 'n/' . '0' x 32 ])
{
	my ($text, @parameters) = @$call;
	is(error_of($on_standby, "SELECT sessauth.$text", @parameters)->{sqlstate}, '25006', "$text is refused: read only");
}

my %status = status();
is_deeply([ grep { $status{$_}{state} ne 'ok' } sort keys %status ], ['durability'], 'status() has nothing against it, but for fsync, which this test has off');
like($status{server}{detail}, qr/standby/, 'knows that it is a standby');
like($status{worker}{detail}, qr/promotion/, 'and that the worker comes with the promotion');

sub status { return map { $_->{check_name} => $_ } rows($standby->dbh, 'SELECT * FROM sessauth.status()'); }

# ---- from what it has replayed ----

my $from = restart_standby('sessauth.standby_verify = on');
is(outcome('gate', $live), 'active', 'with standby_verify a live token is active');
is(outcome('gate', $revoked), 'revoked', 'and a revoked one is revoked');
%status = status();
is($status{server}{state}, 'warning', 'status() warns of it');
$gate = $standby->dbh('gate');
like(value($gate, 'SELECT sessauth.introspect(?)', $live->{$_}), qr/"active": true/, "introspect of the $_") for qw(access_token refresh_token);
like(value($gate, 'SELECT sessauth.introspect(?)', $revoked->{$_}), qr/"active": false/, "introspect of the $_ of a revoked session") for qw(access_token refresh_token);
$gate->begin_work;
$gate->do('SELECT sessauth.authenticate(?)', undef, $live->{access_token});
is(value($gate, 'SELECT sessauth.current_user_id()'), 'alice', 'authenticate binds the user');
$gate->rollback;
for my $level ('REPEATABLE READ', 'READ COMMITTED')
{
	$gate->do("BEGIN ISOLATION LEVEL $level");
	is(value($gate, 'SELECT outcome FROM sessauth.verify(?)', $live->{access_token}), 'active', "$level: active");
	my $other = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'carol');
	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'carol');
	catch_up();
	is(value($gate, 'SELECT outcome FROM sessauth.verify(?)', $other->{access_token}), 'revoked', "$level: sees what has been replayed since the transaction began");
	$gate->do('ROLLBACK');
}
$dba->do('CREATE ROLE late LOGIN');
value($dba, 'SELECT sessauth.grant_access(?, ?)', 'late', 'node');
my $late = value($dba, 'SELECT sessauth.create_signing_key()');
my $fresh = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'dave');
catch_up();
is(outcome('late', $fresh), 'active', 'grants and keys made on the primary reach the standby');
is(value($gate, 'SELECT outcome FROM sessauth.verify(?)', $fresh->{access_token}), 'active', 'in sessions that have read them before, too');
value($dba, 'SELECT sessauth.revoke_signing_key(?)', $late);
catch_up();
is(value($gate, 'SELECT outcome FROM sessauth.verify(?)', $fresh->{access_token}), 'revoked', 'and so does the end of a key');

# While replay stands still the standby does not know: that is why it is off by default.
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
poll_until('replay to pause', sub { $standby->safe_psql('postgres', 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' });
my $unknown = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'erin');
value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'alice');
is(outcome('gate', $live), 'active', 'a standby that lags says yes to what the primary has revoked');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
catch_up();
is(outcome('gate', $live), 'revoked', 'until it has caught up');

# ---- its master key ----

unlike(substr(slurp_file($standby->logfile), $from), qr/failover/, 'a standby with the right key has nothing to say');
my $other = make_master_key($standby->basedir . '/other.key');
$from = restart_standby("sessauth.master_key_file = '$other'");
my $log = log_says(qr/database "second"/, $from);
like($log, qr/WARNING:  sessauth: after a failover to this standby, nobody could log in to database "$_": the master key is not the one/, "another key: a warning about $_")
  for qw(postgres second);
like($log, qr/DETAIL:  They were sealed under the key with id $id; this server has the one with id [0-9a-f]{16}\.\n.*HINT:/, 'which names the keys');
unlike($log, qr/database "empty"/, 'a database without the extension is not concerned');
%status = status();
is($status{master_key}{state}, 'error', 'status() says so, too');
like($status{master_key}{detail}, qr/not the one that sealed.*$id/, 'and why');
is(error_of($standby->dbh('gate'), 'SELECT sessauth.link_key()')->{sqlstate}, 'F0000', 'the link key cannot be read then');
is(outcome('gate', $unknown), 'active', 'but tokens can be verified');

$from = restart_standby("sessauth.master_key_file = '/nowhere/at/all'");
like(log_says(qr/database "second"/, $from), qr/nobody could log in to database "postgres": could not open the master key file/, 'no key: a warning, too');
%status = status();
like($status{master_key}{detail}, qr/could not open/, 'and a finding of status()');

# ---- promotion ----

restart_standby("sessauth.master_key_file = '$ledger->{master_key_file}'");
$ledger->stop('immediate');
$standby->promote;
poll_until('the worker of the new primary', sub {
	$standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sessauth worker'}) == 2 });
is(outcome('gate', $live), 'revoked', 'the new primary knows what the old one has revoked');
is(outcome('gate', $unknown), 'active', 'and who is logged in');
$app = $standby->dbh('app');
is(row($app, 'SELECT * FROM sessauth.refresh_session(?)', $unknown->{refresh_token})->{outcome}, 'ok', 'a refresh token of the old primary is good');
is(row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'frank')->{outcome}, 'ok', 'and people log in');

done_testing;
