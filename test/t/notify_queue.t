# notify_queue.t
#		A listener sleeps in a transaction, and the queue of NOTIFY fills up: status() says so, and
#		nobody but listeners notices.
#
# The queue holds 8 GB. A tenth of it is written here in seconds; all of it only when SESSAUTH_SLOW is set.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

use constant { QUEUE_PAGES => 1024 * 1024, ROUND => 1000 };

my ($ledger, $dba, $redis) = worker_ledger('queue', config => "sessauth.max_lease = 2s\n");
my $gate     = start_gate($ledger, $redis, node => 'redis', redis_alone => 1)->wait_ready;
my $pager    = start_gate($ledger, undef, node => 'sql')->wait_ready;
my $listener = $ledger->dbh;
my $sleeper  = $ledger->dbh;
$listener->do('LISTEN sessauth_revocation');

# An entry of more than half a page has a page to itself.
$dba->do(q{
	CREATE PROCEDURE fill(rounds int, round int) LANGUAGE plpgsql AS $$
	DECLARE half text := repeat('x', 4090);
	BEGIN
		FOR i IN 1 .. rounds LOOP
			PERFORM count(pg_notify('filling', half || k)) FROM generate_series(1, round) k;
			COMMIT;
		END LOOP;
	END $$});
my $check = sub { return row($dba, q{SELECT * FROM sessauth.status() WHERE check_name = 'notify_queue'}) };

is($check->()->{state}, 'ok', 'at first there is nothing to say about the queue');
is(heard(revocation('alice')), 1, 'who listens hears of a revocation');

# ---- a tenth of it ----

sleeps();
is(fill(0.11), undef, 'others send notifications, which a listener in a transaction keeps from being forgotten');
my $row = $check->();
is($row->{state}, 'warning', 'status() warns');
like($row->{detail}, qr/^The queue of NOTIFY is 11% full; /, 'of how full it is');
like($row->{hint}, qr/xact_start/, 'with a hint where to look');
is(heard(revocation('bob')), 1, 'who listens still hears of a revocation');
$sleeper->commit;
poll_until('the queue to be empty', sub { $check->()->{state} eq 'ok' });
pass('when it has woken up, there is nothing to say any more');

# ---- all of it ----

SKIP:
{
	skip 'SESSAUTH_SLOW is not set: a queue of 8 GB was not filled', 12 unless $ENV{SESSAUTH_SLOW};
	my $from = -s $ledger->logfile;

	sleeps();
	is(fill(2), '54000', 'others send until there is no room');
	cmp_ok(value($dba, 'SELECT pg_notification_queue_usage()'), '>', 0.99, 'the queue is full');
	like($check->()->{detail}, qr/is (?:99|100)% full/, 'status() says it');
	for my $user (qw(carol dave))
	{
		is(heard(revocation($user)), 0, "$user: a revocation reaches mirrors and nodes, and no listener");
	}
	my $log = substr(slurp_file($ledger->logfile), $from);
	is(scalar(() = $log =~ /WARNING:  sessauth sends no notifications: their queue is nearly full/g), 1, 'the log says it once');
	unlike($log, qr/could not (?:look at|publish)|is down/, 'no round of the worker has failed');
	$sleeper->commit;
	poll_until('the queue to be empty', sub { $check->()->{state} eq 'ok' });
	is(heard(revocation('erin')), 1, 'when the sleeper has woken up, who listens hears again');
	check_log($dba, 'after a full queue');
	check_stream($dba, $redis, 'after a full queue');
}
done_testing;

# Holds back the end of the queue.
sub sleeps
{
	$sleeper->do('LISTEN anything');
	$sleeper->begin_work;
	$sleeper->do('SELECT 1');
	return;
}

# So much of the queue, in a session that may fail; the SQLSTATE, if it does.
sub fill
{
	my ($share) = @_;
	my $dbh = $ledger->dbh;
	return eval { $dbh->do(sprintf 'CALL fill(%d, %d)', $share * QUEUE_PAGES / ROUND, ROUND); undef; } // $dbh->state || undef;
}

# Logs somebody in and out, and waits until it is in the mirror and at the nodes. Returns its number.
sub revocation
{
	my ($user) = @_;
	my $token = login($dba, $user)->{access_token};
	$_->wait_auth($token, 200) for $gate, $pager;
	my $event = value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, $user);
	my $n     = wait_revocation($redis, $event)->{n};
	$_->wait_auth($token, 401) for $gate, $pager;
	poll_until("$user: the receipt", sub { value($dba, 'SELECT sessauth.await_receipt(?)', $event) });
	return $n;
}

# Whether the listener has been told of that number; by the time of a receipt, a hint has long been sent.
sub heard
{
	my ($n) = @_;
	my $heard = 0;
	while (my $hint = $listener->pg_notifies)
	{
		$heard = 1 if $hint->[2] =~ /"n":$n\}/;
	}
	return $heard;
}
