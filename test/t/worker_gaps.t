# worker_gaps.t
#		The worker is killed in every gap of its loop, one after the other: what was committed arrives exactly
#		once, and nobody who is logged in is told otherwise.
#
# A kill takes the server's shared memory with it. What remains is what the worker has written to files, to sockets
# and to other processes, and that changes at system calls alone: two kills between the same two of them leave the
# same world. So strace counts those calls while the worker does a piece of work, and then ends it at the first, at
# the second, and so on, each time with work of the same kind. test/t/worker_killed.t has the load, and the start.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Process;
use Test::More;
use Worker;

use constant TRIES => 10;

# Whatever a file, a peer or another process can notice; and recvfrom, for the time between a command to Redis and its answer.
use constant CALLS => join ',', qw(sendto sendmsg recvfrom write writev pwrite64 pwritev pwritev2 fsync fdatasync sync_file_range ftruncate fallocate unlink rename kill);

my ($ledger, $dba, $redis) = worker_ledger('gaps', config => "restart_after_crash = on\nsessauth.reconcile_interval = 0\nfsync = on");
my $gate  = start_gate($ledger, $redis, node => 'a', redis_alone => 1)->wait_ready;
my $alice = login($dba, 'alice');
my %said;
my %killed_in;
my $made = 0;
my @reported;
my ($may_look, $why_not);

sub worker_pid { return eval { value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker'}) }; }

sub wait_worker
{
	return poll_until('a worker that streams', sub {
		$dba = eval { $ledger->dbh } // return unless eval { $dba->ping };
		my $row = eval { mirror_row($dba) };
		$said{ $gate->auth($alice->{access_token}) } = 1;
		return $row && $row->{state} eq 'streaming' && worker_pid();
	});
}

# strace on the worker, with these arguments; returns once it looks. One that has just been killed may still seem to be there.
sub trace
{
	my (@arguments) = @_;
	for (1 .. TRIES)
	{
		my $pid    = wait_worker();
		my $strace = Sessauth::Process->start('strace', [ 'strace', '-qqq', '-p', $pid, '-e', 'trace=' . CALLS, @arguments ]);
		poll_until('strace to look', sub { defined $strace->ended || (eval { slurp_file("/proc/$pid/status") } // '') =~ /^TracerPid:\s*[1-9]/m });
		if (!defined $strace->ended)
		{
			$may_look = 1;
			return $strace;
		}
		$why_not = $strace->log_contents;
		# The same is said of one that is just ending.
		return if $why_not =~ /Operation not permitted/ && !$may_look;
	}
	die "strace: $why_not";
}

# A login, and the revocation of it.
sub revoke_one
{
	my $user = 'user' . $made++;
	login($dba, $user);
	push @reported, value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, $user);
	return;
}

# At once; every third or fourth time a page is written (doc/protocol.md, section 3).
sub revoke_many
{
	push @reported, $dba->selectcol_arrayref(q{SELECT sessauth.revoke_user('acme', 'many' || i) FROM generate_series(1, 300) i})->@*;
	return;
}

# What there is to do, and what shows that it has been done.
my %work = (
	'a revocation' => [ \&revoke_one, sub { $redis->hash('sessauth:mirror')->{n} } ],
	'many at once' => [ \&revoke_many, sub { $redis->hash('sessauth:mirror')->{n} } ],
	'a full sync'  => [ sub { value($dba, 'SELECT sessauth.resync()') }, sub { mirror_row($dba)->{synced_at} } ],
	'a comparison' => [ sub { value($dba, 'SELECT sessauth.reconcile()') }, sub { mirror_row($dba)->{reconciled_at} } ],
);

my $probe = trace();
plan skip_all => "strace may not look at another process here: $why_not" unless $probe;
$probe->stop;

for my $what (sort keys %work)
{
	my ($do, $done) = @{ $work{$what} };
	my $counter = trace();
	my $before  = $done->() // '';
	$do->();
	poll_until("$what to be done", sub { ($done->() // '') ne $before });
	my @calls = $counter->log_contents =~ /^(\w+)\(/mg;
	$counter->stop;
	note("$what: @calls");
	cmp_ok(scalar @calls, '>', 5, "$what: the worker does something");

	my %nth;
	for my $call (@calls)
	{
		my $killer = trace('-e', "inject=$call:signal=KILL:when=" . ++$nth{$call});

		# Not every time is the same: another process may have flushed what this one would have.
		for (1 .. TRIES)
		{
			eval { $do->() };
			last if eval { poll_until('the worker to be killed', sub { defined $killer->ended }, 0.5); 1 };
		}
		$killed_in{$call}++ if defined $killer->ended;
		$killer->stop;
	}
	wait_worker();
}
note(join ', ', map { "$killed_in{$_} in $_" } sort keys %killed_in);
ok($killed_in{$_}, "some of the kills were in $_") for qw(sendto recvfrom pwrite64 fdatasync);

wait_worker();
wait_published($dba, $redis);
my %logged = map { $_->{event_id} => 1 } log_rows($dba);
cmp_ok(scalar @reported, '>', 10, 'revocations were reported as committed');
is(scalar(grep { !$logged{$_} } @reported), 0, 'and all of them are in the log');
check_log($dba, 'afterwards');
check_stream($dba, $redis, 'afterwards');
my %count;
$count{ $_->{eid} }++ for grep { $_->{g} eq generation($dba) } revocations($redis);
is(scalar(grep { ($count{$_} // 0) != 1 } @reported), 0, 'every one is in the stream exactly once');
is_deeply([ sort keys %said ], [ grep { $said{$_} } 200, 503 ], 'who was logged in all the time was never told otherwise');
is($gate->wait_auth($alice->{access_token}, 200), 200, 'and still is');
done_testing;
