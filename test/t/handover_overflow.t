# handover_overflow.t
#		More logins are rolled back than shared memory can hold while the worker
#		stands still: rather than pass over one of their tokens, no node gets a lease until all have expired.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('main', config => "sessauth.max_lease = 10s\n");
value($dba, q{SELECT sessauth.set_policy('acme', '{"access_ttl": 20}')});
my $gate = start_gate($ledger, $redis)->wait_ready;
my $good = login($dba, 'alice')->{access_token};
is($gate->auth($good), 200, 'a token is good');

# With a worker that makes room they find it, although the connection does nothing more.
my $idle = $ledger->dbh('app');
roll_back_logins($idle, 'idle');
poll_until('all of them to be revoked', sub {
	value($dba, q{SELECT count(*) FROM sessauth.event WHERE kind = 'session_rolled_back' AND user_id ~ '^idle'}) == 600 });
pass('while there is a worker, all that was rolled back is revoked');
is($gate->wait_auth($good, 200), 200, 'and nobody else notices');

my ($worker) = map { $_->{pid} } rows($dba, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sessauth worker'});
kill 'STOP', $worker or die "kill: $!";

# $app->begin_work; 600 logins; rollback. Returns their tokens.
sub roll_back_logins
{
	my ($app, $name, $end) = @_;
	$app->begin_work;
	my @tokens = map { row($app, 'SELECT access_token FROM sessauth.issue_session(?, ?)', 'acme', "$name$_")->{access_token} } 1 .. 600;
	$end ? $end->() : $app->rollback;
	return @tokens;
}

my $app = $ledger->dbh('app');
my @tokens = roll_back_logins($app, 'ghost');
wait_log($ledger, qr/could not hand \d+ tokens of aborted transactions to its worker/);
pass('what did not fit is a line in the log');
unlike(slurp_file($ledger->logfile), qr/\Q$tokens[-1]\E/, 'without the tokens');

my $error = error_of($ledger->dbh('gate'), 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', 'sql/' . '0' x 32, '1s');
is($error && $error->{sqlstate}, '55000', 'over SQL neither');
like($error->{message}, qr/no node gets a lease before/, 'with the reason');
is(value($ledger->dbh('gate'), 'SELECT sessauth.end_lease(?)', 'sql/' . '0' x 32), 0, 'but a node may say that it stops');

kill 'CONT', $worker or die "kill: $!";
poll_until('those that fitted to be revoked', sub {
	value($dba, q{SELECT count(*) FROM sessauth.event WHERE kind = 'session_rolled_back' AND user_id ~ '^ghost'}) >= 512 });
poll_until('the lease from before to be over', sub { !$gate->is_ready });
my %answers;
poll_until('the node to get leases again', sub {
	$answers{ $gate->auth($tokens[$_]) }++ for 0, -1;
	return $gate->get('/readyz')->{status} == 200;
});
is(join(' ', grep { $_ == 200 } keys %answers), '', 'no token of a login that was rolled back was accepted meanwhile');
ok($answers{503} || $answers{401}, 'it was refused, or nobody could tell');
is($gate->auth($_), 401, 'and now they have expired') for @tokens[ 0, -1 ];

# Somebody ends the connection in the middle of the transaction.
kill 'STOP', $worker or die "kill: $!";
$app = $ledger->dbh('app');
my $pid  = value($app, 'SELECT pg_backend_pid()');
my $from = -s $ledger->logfile;
roll_back_logins($app, 'cut', sub { value($dba, 'SELECT pg_terminate_backend(?)', $pid) });
wait_log($ledger, qr/could not hand \d+ tokens of aborted transactions to its worker/, $from);
is((error_of($ledger->dbh('gate'), 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', 'sql/' . '0' x 32, '1s') // {})->{sqlstate}, '55000', 'a connection that is terminated forgets nothing either');
$app->{InactiveDestroy} = 1;	# its server has gone: there is nobody to roll back
kill 'CONT', $worker or die "kill: $!";

done_testing();
