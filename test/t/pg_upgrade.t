# pg_upgrade.t
#		pg_upgrade of a cluster with a ledger: quiet while it runs, nothing of the ledger lost, no token back to
#		life, and the mirror untouched until somebody says that this is the ledger now.
#
# From one version to itself, because there is only one here; what it does with an extension is the same.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use IPC::Run ();
use Test::More;
use Worker;

my ($old, $dba, $redis) = worker_ledger('old', config => "sessauth.max_lease = 2s\n");
my $gate = start_gate($old, $redis)->wait_ready;
my ($live, $dead) = map { login($dba, $_) } qw(alice bob);
my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')});
wait_revocation($redis, $event);
is($gate->auth($live->{access_token}), 200, 'before: a session is live');
is($gate->auth($dead->{access_token}), 401, 'and another is not');
my @before = history($dba);
my $ledger_id = value($dba, 'SELECT ledger_id FROM sessauth.ledger_state');
$gate->stop;
$old->stop;

my $new = Sessauth::Ledger->new('new');
$new->init;
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'sessauth'\nsessauth.master_key_file = '$old->{master_key_file}'\nsessauth.max_lease = 2s\n");
my $bin = $new->config_data('--bindir');
my $run = private_dir();
my $tail_before = $redis->command('XINFO', 'STREAM', 'sessauth:revocations');
{
	require Cwd;
	my $cwd = Cwd::getcwd();
	chdir $run or die "chdir: $!";
	my $ok = IPC::Run::run([ "$bin/pg_upgrade", '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin,
			'-p', $old->port, '-P', $new->port, '-s', $new->host ], '>&', \my $out);
	chdir $cwd or die "chdir: $!";
	ok($ok, 'pg_upgrade goes through') or diag($out);
}
is_deeply($redis->command('XINFO', 'STREAM', 'sessauth:revocations'), $tail_before, 'while it ran nobody wrote to the mirror');
$new->start;
$dba = $new->dbh;
wait_log($new, qr/this ledger is a copy; its mirrors are disabled/);
pass('the new cluster does not know whether it is the original, and says what to do');
ok(poll_until('the mirror to be disabled', sub { mirror_row($dba)->{state} eq 'disabled' }), 'so the mirror is disabled');
is_deeply([ history($dba) ], \@before, 'the history is there, and nothing was added to it');
is(value($dba, 'SELECT outcome FROM sessauth.verify(?)', $live->{access_token}), 'active', 'the live session is live');
is(value($dba, 'SELECT outcome FROM sessauth.verify(?)', $dead->{access_token}), 'revoked', 'the other one is not');
is(value($dba, 'SELECT sessauth.activate()'), 1, 'activate() enables the mirror');
wait_streaming($dba);
$gate = start_gate($new, $redis)->wait_ready;
is($gate->auth($live->{access_token}), 200, 'afterwards: the session is live at a node');
is($gate->auth($dead->{access_token}), 401, 'and the other is not');
my $again = row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $live->{refresh_token});
is($again->{outcome}, 'ok', 'a refresh token from before works');
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')}));
poll_until('the node to refuse it', sub { $gate->auth($again->{access_token}) == 401 });
pass('and a revocation arrives');
isnt(value($dba, 'SELECT ledger_id FROM sessauth.ledger_state'), $ledger_id, 'it is a ledger of its own');
check_log($dba, 'after pg_upgrade');
done_testing;

sub history
{
	my ($dbh) = @_;
	return map { join ' ', map { $_ // '-' } @$_ } @{ $dbh->selectall_arrayref('SELECT event_id, kind, revokes, tenant_id, user_id, session_id, epoch, at FROM sessauth.event ORDER BY event_id') };
}
