# handover_locked.t
#		What aborted transactions have handed over cannot be written, because
#		somebody has locked a table: what can be is, nobody else waits, and no node gets a lease that passes over the rest.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('main', config => "sessauth.max_lease = 10s\n");
my $gate = start_gate($ledger, $redis)->wait_ready;
my $app  = $ledger->dbh('app');
my ($worker) = map { $_->{pid} } rows($dba, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sessauth worker'});

sub events
{
	my ($kind, $user) = @_;
	return value($dba, 'SELECT count(*) FROM sessauth.event WHERE kind = ? AND user_id = ?', $kind, $user);
}

# While the worker stands still: rolls back what $abort does, and locks a table. Returns who locks it.
sub lock_behind
{
	my ($table, $mode, $abort) = @_;
	kill 'STOP', $worker or die "kill: $!";
	$app->begin_work;
	$abort->();
	$app->rollback;
	my $locker = $ledger->dbh;
	$locker->begin_work;
	$locker->do("LOCK TABLE sessauth.$table IN $mode MODE");
	kill 'CONT', $worker or die "kill: $!";
	return $locker;
}

# A theft, whose session cannot be ended, and a login.
my $stolen = login($dba, 'alice');
row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $_)
	for $stolen->{refresh_token}, row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $stolen->{refresh_token})->{refresh_token};
my $from = -s $ledger->logfile;
my $ghost;
my $locker = lock_behind(session => 'ACCESS EXCLUSIVE', sub {
	is(row($app, 'SELECT * FROM sessauth.refresh_session(?)', $stolen->{refresh_token})->{outcome}, 'reused', 'a theft is seen');
	$ghost = login($app, 'ghost')->{access_token};
});
poll_until('the login that was rolled back to be revoked', sub { events(session_rolled_back => 'ghost') == 1 });
is($gate->wait_auth($ghost, 401), 401, 'a login that was rolled back is revoked although a theft cannot be written');
my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'nobody')});
ok(value($dba, q{SELECT sessauth.await_receipt(?, '30 s')}, $event), 'other revocations reach everybody');
wait_log($ledger, qr/the worker could not end the sessions of thefts/, $from);
my $beat = (reverse beats($redis))[0]{b};
poll_until('the worker to have tried again', sub { (reverse beats($redis))[0]{b} >= $beat + 5 });
is(scalar(() = substr(slurp_file($ledger->logfile), $from) =~ /the worker could not end the sessions of thefts/g), 1, 'the log says it once');
is(events(session_revoked => 'alice'), 0, 'the session of the theft has not ended yet');
$locker->rollback;
poll_until('the session of the theft to be ended', sub { events(session_revoked => 'alice') == 1 });
pass('it ends as soon as it can');

# A login that cannot be recorded as rolled back.
my $lone = start_gate($ledger, $redis, redis_alone => 1)->wait_ready;
my $good = login($dba, 'bob')->{access_token};
is($_->wait_auth($good, 200), 200, 'a node decides alone') for $gate, $lone;
my $lost;
$locker = lock_behind(event => 'SHARE', sub { $lost = login($app, 'lost')->{access_token} });
is($gate->wait_auth($lost, 401), 401, 'over SQL a node is told of a login that cannot be revoked yet');
poll_until('the lease from before to be over', sub { !$lone->is_ready });
is($lone->auth($lost), 503, 'through Redis no lease passes over it');
$locker->rollback;
poll_until('the node to get leases again', sub { $lone->is_ready });
is(events(session_rolled_back => 'lost'), 1, 'the next one comes after its revocation');
is($lone->auth($lost), 401, 'which the node knows');
is($_->auth($good), 200, 'and other tokens are good') for $gate, $lone;

done_testing();
