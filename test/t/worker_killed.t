# worker_killed.t
#		The worker dies at every place of its loop, while others write: what was committed arrives exactly
#		once, and nobody who is logged in is told otherwise.
#
# Places that can be held open are: its transaction waits for a lock; Redis has what was sent, and its answer
# has nobody to go to; a full sync and a comparison are under way. For the rest it dies at any moment, many times.
# test/t/worker_gaps.t goes from one system call to the next.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Storm qw(storm);
use Test::More;
use Time::HiRes qw(sleep);
use Worker;

use constant { WRITERS => 3, TERMINATED => 60, KILLED => 12 };

my ($ledger, $dba, $redis) = worker_ledger('killed', config => "restart_after_crash = on\nsessauth.heartbeat_interval = 50ms\nsessauth.reconcile_interval = 0\nmax_connections = 40\n");
my $gate  = start_gate($ledger, $redis, node => 'a', redis_alone => 1)->wait_ready;
my $alice = login($dba, 'alice');
my $dir   = private_dir();
my $stop  = "$dir/stop";
my %said;

sub worker_pid { return eval { value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker'}) }; }

# Another worker than that, in a server that may have to come back first. The load asks for it, as commits do.
sub another_worker
{
	my ($before) = @_;
	return poll_until('another worker', sub {
		$dba = eval { $ledger->dbh } // return unless eval { $dba->ping };
		my $pid = worker_pid();
		$said{ $gate->auth($alice->{access_token}) } = 1;
		return $pid && $pid != $before && $pid;
	});
}

sub terminate { my ($pid) = @_; value($dba, 'SELECT pg_terminate_backend(?)', $pid); return another_worker($pid); }
sub kill_hard { my ($pid) = @_; kill('KILL', $pid) or return $pid; return another_worker($pid); }

# Revokes until told to stop, in a connection that may break; the events that were reported as committed.
sub write_on
{
	my ($dbh, $i) = @_;
	my $parent = getppid;
	my @events;
	for (my $k = 0; !-e $stop && getppid == $parent; $k++)
	{
		my $event = eval { login($dbh, "user$i-$k") if $k % 3 == 0; value($dbh, q{SELECT sessauth.revoke_user('acme', ?)}, "user$i-" . int($k / 2)) };
		push @events, $event if defined $event;
		$dbh = eval { $ledger->dbh } // $dbh unless defined $event;
		sleep 0.003;
	}
	return \@events;
}

sub held_open
{
	my $pid = another_worker(0);

	# In its transaction.
	my $locker = $ledger->dbh;
	$locker->begin_work;
	$locker->do('LOCK TABLE sessauth.revocation_log IN EXCLUSIVE MODE');
	poll_until('the worker to wait', sub { value($dba, q{SELECT 1 FROM pg_locks WHERE pid = ? AND NOT granted}, $pid) });
	value($dba, 'SELECT pg_terminate_backend(?)', $pid);
	$locker->rollback;
	$pid = another_worker($pid);
	wait_streaming($dba);

	# Redis has it, and answers to nobody. What it does with that comes after what it says to the next worker, or before.
	for my $how (\&terminate, \&kill_hard)
	{
		my $n = $redis->hash('sessauth:mirror')->{n};
		$redis->pause;
		poll_until('revocations that are numbered and not answered', sub { value($dba, 'SELECT n FROM sessauth.ledger_state') > $n + 20 });
		$pid = $how->($pid);
		$redis->continue;
		wait_streaming($dba);
	}

	# In a full sync, and in a comparison.
	for my $call ('SELECT sessauth.resync()', 'SELECT sessauth.reconcile()')
	{
		for my $how (\&terminate, \&kill_hard)
		{
			wait_streaming($dba);
			value($dba, $call);
			sleep rand 0.1;
			$pid = $how->($pid);
		}
	}
	return;
}

sub at_any_moment
{
	my $pid = another_worker(0);

	# As often just after it has come as when it has been there for a while.
	for my $round (1 .. TERMINATED)
	{
		sleep 0.2 * rand() ** 3;
		$pid = $round % (TERMINATED / KILLED) == 0 ? kill_hard($pid) : terminate($pid);
	}
	return;
}

my @answers = storm(
	count     => WRITERS,
	connect   => sub { $ledger->dbh },
	run       => \&write_on,
	meanwhile => sub {
		my $ok = eval { held_open(); at_any_moment(); 1 };
		my $error = $@;
		open my $file, '>', $stop or die "$stop: $!";
		die $error unless $ok;
	});
is(scalar(grep { ref $_ ne 'ARRAY' } @answers), 0, 'the writers have come to their end');
my @reported = map { @$_ } @answers;
note(scalar(@reported) . ' revocations were reported as committed');
cmp_ok(scalar @reported, '>', 1000, 'under load');

$dba = $ledger->dbh;
wait_streaming($dba);
wait_published($dba, $redis);
my %logged = map { $_->{event_id} => 1 } log_rows($dba);
is(scalar(grep { !$logged{$_} } @reported), 0, 'what was reported as committed is in the log');
check_log($dba, 'afterwards');
check_stream($dba, $redis, 'afterwards');
my %count;
$count{ $_->{eid} }++ for grep { $_->{g} eq generation($dba) } revocations($redis);
is(scalar(grep { ($count{$_} // 0) != 1 } @reported), 0, 'every revocation is in the stream exactly once');
is_deeply([ sort keys %said ], [ grep { $said{$_} } 200, 503 ], 'who was logged in all the time was never told otherwise');
is($gate->wait_auth($alice->{access_token}, 200), 200, 'and still is');

# The keys, too.
my $last = login($dba, 'last');
poll_until('the keys', sub { $redis->command('EXISTS', "session:{acme}:$last->{session_id}") && mirror_row($dba)->{state} eq 'streaming' });
value($dba, 'SELECT sessauth.reconcile()');
my $row = poll_until('a comparison', sub { my $r = mirror_row($dba); $r->{reconciled_at} && !$r->{reconcile_phase} && $r });
is_deeply({ map { $_ => $row->{$_} } qw(missing stale foreign_keys ahead) }, { missing => 0, stale => 0, foreign_keys => 0, ahead => 0 },
	'nothing is wrong with the keys');
unlike(slurp_file($ledger->logfile), qr/PANIC|TRAP|signal 11|stuck spinlock|not as it was left|changed the revocation log/, 'nothing has gone wrong that was not meant to');
done_testing;
