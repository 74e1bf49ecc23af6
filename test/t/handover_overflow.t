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

my ($worker) = map { $_->{pid} } rows($dba, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sessauth worker'});
kill 'STOP', $worker or die "kill: $!";

my $app = $ledger->dbh('app');
$app->begin_work;
my @tokens = map { row($app, 'SELECT access_token FROM sessauth.issue_session(?, ?)', 'acme', "ghost$_")->{access_token} } 1 .. 600;
$app->rollback;
$app->disconnect;
wait_log($ledger, qr/could not hand \d+ tokens of aborted transactions to its worker/);
pass('what did not fit is a line in the log');
unlike(slurp_file($ledger->logfile), qr/\Q$tokens[-1]\E/, 'without the tokens');

my $error = error_of($ledger->dbh('gate'), 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', 'sql/' . '0' x 32, '1s');
is($error && $error->{sqlstate}, '55000', 'over SQL neither');
like($error->{message}, qr/no node gets a lease before/, 'with the reason');
is(value($ledger->dbh('gate'), 'SELECT sessauth.end_lease(?)', 'sql/' . '0' x 32), 0, 'but a node may say that it stops');

kill 'CONT', $worker or die "kill: $!";
poll_until('those that fitted to be revoked', sub {
	value($dba, q{SELECT count(*) FROM sessauth.event WHERE kind = 'session_rolled_back'}) >= 512 });
poll_until('the lease from before to be over', sub { !$gate->is_ready });
my %answers;
poll_until('the node to get leases again', sub {
	$answers{ $gate->auth($tokens[$_]) }++ for 0, -1;
	return $gate->get('/readyz')->{status} == 200;
});
is(join(' ', grep { $_ == 200 } keys %answers), '', 'no token of a login that was rolled back was accepted meanwhile');
ok($answers{503} || $answers{401}, 'it was refused, or nobody could tell');
is($gate->auth($_), 401, 'and now they have expired') for @tokens[ 0, -1 ];

done_testing();
