# node.pl
#		What a decision costs, in the process and over HTTP: `make bench-node`.
#
# Product and floor take turns in one run; what is shown is the median of the rounds. Floors: one Redis GET per
# request, OpenSSL's own ES256 verification, and the same libevent server answering a constant 200. Over HTTP the client has one
# processor and the servers take turns on the others: where all share them, a latency says mostly how long the client waited for one.
#
# Settings by environment: BENCH_SECONDS (2) of each measurement, BENCH_ROUNDS (5), BENCH_REVOCATIONS (1000000), BENCH_ONLY (a
# pattern: rates, gate, join).

use strict;
use warnings;

use IO::Select;
use Sessauth::Bench qw(median processors stolen);
use Sessauth::Postgres qw(connect_to);
use Sessauth::Process qw(free_port now_ms poll_until private_dir);
use Sessauth::Publisher;
use Sessauth::Redis;

use constant SCALING        => 0.75;	# of how OpenSSL's verification scales, which shares nothing
use constant ALONE_AT_LEAST => 25;	# percent of a round, for its p99 to count

my $seconds     = $ENV{BENCH_SECONDS}     // 2;
my $rounds      = $ENV{BENCH_ROUNDS}      // 5;
my $revocations = $ENV{BENCH_REVOCATIONS} // 1_000_000;
my $only        = $ENV{BENCH_ONLY}        // '.';
my $program     = ($ENV{TESTDIR} // '.') . '/build/bench/node';
my $http        = ($ENV{TESTDIR} // '.') . '/build/bench/http';

$| = 1;
chomp(my $cores = `nproc`);
my $missed = 0;
my $redis  = Sessauth::Redis->start_server;
print "$cores cores; $rounds rounds of $seconds s, medians.\n\n";

rates() if 'rates' =~ /$only/;
gate() if 'gate' =~ /$only/;
if ('join' =~ /$only/)
{
	printf "\n%-44s %12s %12s %7s   %s\n", "a new node, $revocations revocations", 'sessauth', 'floor', 'ratio', 'bar';
	join_over_redis();
	join_over_postgres();
}
printf "\nThe host kept %.1f %% of the time for others.\n", stolen();
print $missed ? "$missed of the bars above are missed.\n" : "Every bar is met.\n";
exit($missed ? 1 : 0);

sub rates
{
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'rates:');
	my $dir    = private_dir();
	open my $file, '>', "$dir/tokens" or die $!;
	print $file $ledger->token(user => "user-$_\@example.com", exp => $ledger->now_s + 36000), "\n" for 1 .. 1000;
	close $file;
	my %rate = split ' ', with_worker($ledger, 'rates', redis_url($ledger), $ledger->write_jwks, $ledger->write_link_key, "$dir/tokens", $seconds, $rounds, $cores);
	printf "%-44s %12s %12s %7s   %s\n", 'decisions a second, in the process', 'sessauth', 'floor', 'ratio', 'bar';
	for my $threads ('', '-1')
	{
		my $t = $threads ? '1 thread' : "$cores threads";
		show("token seen before, $t; floor: Redis GET", $rate{"seen$threads"}, $rate{"get$threads"}, 100);
		show("new token, $t; floor: OpenSSL verify *", $rate{"new$threads-cpu"}, $rate{"openssl$threads-cpu"}, 0.9);
	}
	print "* by the CPU time of the threads that decide, so that what else runs on the machine does not count\n";

	# By the clock on the wall: threads that wait for each other use no CPU. The machine gives OpenSSL as much of a second core as it gives us.
	printf "\n%-44s %12s %12s %7s   %s\n", "$cores threads over one, by the clock", 'sessauth', 'OpenSSL', 'ratio', 'bar';
	my $openssl = $rate{openssl} / $rate{'openssl-1'};
	scaling($_->[0], $rate{ $_->[1] } / $rate{"$_->[1]-1"}, $openssl) for [ 'token seen before', 'seen' ], [ 'new token', 'new' ];
	return;
}

sub gate
{
	my @cores  = processors();
	my @theirs = @cores > 1 ? @cores[ 1 .. $#cores ] : @cores;
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'gate:');
	my $gate   = $ledger->start_gate(max_staleness => '1h', arguments => [ '--threads', scalar @theirs ]);
	poll_until('the gate', sub { $ledger->work; $gate->is_ready });
	my $token = $ledger->token(exp => $ledger->now_s + 36000);
	my $port  = free_port();
	my $floor = Sessauth::Process->start('floor', [ $http, 'constant', $port, scalar @theirs ]);
	poll_until('the floor', sub { $floor->log_contents =~ /listening/ });
	$_->move_to(@theirs) for $gate, $floor;
	my %port = (gate => $gate->url =~ /:(\d+)$/, floor => $port);

	my %rate = (gate => [], floor => []);
	for my $round (1 .. $rounds)
	{
		push @{ $rate{$_} }, load($port{$_}, 0, $token)->{rate} for qw(gate floor);
	}
	printf "\n%-44s %12s %12s %7s   %s\n", 'requests a second over HTTP, 16 connections', 'gate', 'floor', 'ratio', 'bar';
	printf "(both on processor %s, the client on %s)\n", join(',', @theirs), $cores[0];
	show('/auth; floor: constant 200', median(@{ $rate{gate} }), median(@{ $rate{floor} }), 0.8);

	# Rounds in which the host left us too little say nothing about either server; there may be as many again.
	my $half = median(@{ $rate{gate} }) / 2;
	my (%all, %alone);
	for my $round (1 .. 3 * $rounds)
	{
		last if $round > $rounds && !grep { @{ $alone{$_} // [] } < $rounds } qw(gate floor);
		for my $server (qw(gate floor))
		{
			my $load = load($port{$server}, $half, $token);
			push @{ $all{$server} }, $load->{p99} / 1000;
			push @{ $alone{$server} }, $load->{alone_p99} / 1000 if $load->{alone} >= ALONE_AT_LEAST;
		}
	}
	my $enough = !grep { @{ $alone{$_} // [] } < $rounds } qw(gate floor);
	show_p99(sprintf('p99 at half of its peak (%.0f), ms', $half), \%all, $enough ? undef : 1);
	show_p99('the same, while the host paused no processor', \%alone, 1) if $enough;
	$floor->stop;
	$gate->stop;
	return;
}

sub join_over_redis
{
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'join:');
	my $now    = $ledger->now_ms_of_ledger;
	run('fill', redis_url($ledger), $ledger->{link_key}, $ledger->{revocations_key}, $ledger->{g}, $revocations, $now, $now + 3_600_000);
	$ledger->{n} = $revocations;
	my (@ms, @bytes, @cpu, @floor, @redis);
	for (1 .. $rounds)
	{
		my $before = redis_cpu_ms();
		push @floor, 0 + run('drain', redis_url($ledger), $ledger->{revocations_key});
		push @redis, redis_cpu_ms() - $before;
		my ($ms, $bytes, $cpu) = split ' ', with_worker($ledger, 'join', redis_url($ledger), $ledger->write_jwks, $ledger->write_link_key, $revocations);
		push @ms, $ms;
		push @bytes, $bytes;
		push @cpu, $cpu;
	}
	at_most('ms over Redis; floor: read the stream', median(@ms), 2000, sprintf '%.0f', median(@floor));
	at_most('bytes for each', median(@bytes), 100);
	printf "(CPU ms: node %.0f, Redis for the floor %.0f)\n", median(@cpu), median(@redis);
	return;
}

sub join_over_postgres
{
	my $server = Sessauth::Postgres->start_server(config => "shared_buffers = 1GB\nmax_wal_size = 4GB\n");
	my $dba    = connect_to($server->conninfo);
	$dba->do('SET client_min_messages = warning');
	$dba->do('CREATE EXTENSION sessauth');
	$dba->do('CREATE ROLE gate LOGIN');
	$dba->do(q{SELECT sessauth.grant_access('gate', 'node')});
	$dba->do(q{SELECT sessauth.create_signing_key()});
	$dba->do(q{SELECT sessauth.create_tenant('acme')});

	# As the worker does, and in its place.
	$dba->do('BEGIN; LOCK TABLE sessauth.ledger_state');
	$dba->do(q{INSERT INTO sessauth.revocation_log (generation, n, kind, tenant_id, user_id, epoch, event_id, at, until)
		SELECT s.generation, s.n + i, 'user', 'acme', 'revoked-user-' || i || '@example.com', 5, 1, clock_timestamp(), clock_timestamp() + '1 h'
		FROM sessauth.ledger_state s, generate_series(1, ?) i}, undef, $revocations);
	$dba->do('UPDATE sessauth.ledger_state SET n = n + ?', undef, $revocations);
	$dba->do('COMMIT');
	$dba->do('VACUUM ANALYZE sessauth.revocation_log');
	my (@ms, @bytes, @cpu, @floor);
	for (1 .. $rounds)
	{
		my $start = now_ms();
		output_of('psql', '-X', '-q', $server->conninfo, '-o', '/dev/null', '-c', 'COPY sessauth.revocation_log TO STDOUT');
		push @floor, now_ms() - $start;
		my ($ms, $bytes, $cpu) = split ' ', run('join-postgres', $server->conninfo('gate'), $revocations);
		push @ms, $ms;
		push @bytes, $bytes;
		push @cpu, $cpu;
	}
	at_most('ms over PostgreSQL alone; floor: COPY the log', median(@ms), 2000, sprintf '%.0f', median(@floor));
	at_most('bytes for each', median(@bytes), 100);
	printf "(CPU ms: node %.0f)\n", median(@cpu);
	$server->stop;
	return;
}

sub redis_cpu_ms
{
	my $info = $redis->command('INFO', 'cpu');
	my ($sys) = $info =~ /used_cpu_sys:([\d.]+)/;
	my ($user) = $info =~ /used_cpu_user:([\d.]+)/;
	return ($sys + $user) * 1000;
}

sub redis_url { my ($ledger) = @_; return 'redis://127.0.0.1:' . $redis->port . "?prefix=$ledger->{prefix}"; }

# Rates are a second, latencies in us; alone: the part of the time, in percent, in which the host paused no processor.
sub load
{
	my ($port, $rate, $token) = @_;
	my %load;
	@load{qw(rate p50 p99 errors alone_p99 alone)} = split ' ', output_of($http, 'load', $port, 16, $seconds, $rate, $token);
	die "$load{errors} requests were not answered 200\n" if $load{errors};
	return \%load;
}

sub run { return output_of($program, @_); }

sub output_of
{
	my ($command, @arguments) = @_;
	open my $out, '-|', $command, @arguments or die "$command: $!";
	my $text = do { local $/; <$out> };
	close $out or die "$command $arguments[0]: $?";
	return $text;
}

# The same, while the worker works.
sub with_worker
{
	my ($ledger, @arguments) = @_;
	open my $out, '-|', $program, @arguments or die "$program: $!";
	my $select = IO::Select->new($out);
	$ledger->work until $select->can_read(0.01);
	my $text = do { local $/; <$out> };
	close $out or die "$program $arguments[0]: $?";
	return $text;
}

sub show
{
	my ($name, $ours, $floor, $bar) = @_;
	my $met = $ours / $floor >= $bar;
	$missed++ unless $met;
	printf "%-44s %12.0f %12.0f %7.2f   at least %s%s\n", $name, $ours, $floor, $ours / $floor, $bar, $met ? '' : '  MISSED';
	return;
}

sub scaling
{
	my ($name, $ours, $floor) = @_;
	my $met = $ours / $floor >= SCALING;
	$missed++ unless $met;
	printf "%-44s %12.2f %12.2f %7.2f   at least %s%s\n", $name, $ours, $floor, $ours / $floor, SCALING, $met ? '' : '  MISSED';
	return;
}

# Judged only with a bar.
sub show_p99
{
	my ($name, $p99, $bar) = @_;
	my ($ours, $floor) = map { median(@{ $p99->{$_} }) } qw(gate floor);
	return at_most($name, $ours, $bar, sprintf '%.2f', $floor) if $bar;
	printf "%-44s %12.2f %12.2f %7.2f\n", $name, $ours, $floor, $ours / $floor;
	return;
}

sub at_most
{
	my ($name, $value, $bar, $floor) = @_;
	$missed++ if $value > $bar;
	printf "%-44s %12.2f %12s %7s   at most %s%s\n", $name, $value, $floor // '', $floor ? sprintf '%.2f', $value / $floor : '', $bar, $value > $bar ? '  MISSED' : '';
	return;
}
