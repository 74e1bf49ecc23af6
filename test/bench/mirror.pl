# mirror.pl
#		How fast what has committed reaches Redis and those who LISTEN, and what an outage of
#		Redis costs: `make bench-mirror`.
#
# Product and floor take turns in one run; what is shown is the median of the rounds. The floors: one flush and one XADD to an
# XREAD BLOCK; one flush with pg_notify; redis-cli --pipe with the very bytes that the worker sends (recorded by
# a relay, from the same state of Redis on); the same calls with Redis healthy.
#
# Settings by environment: BENCH_SECONDS (5) of each measurement, BENCH_ROUNDS (5), BENCH_BACKLOG (200000 revocations),
# BENCH_SESSIONS (1000000; what is sent for them is recorded in a file), BENCH_STALL (60 seconds), BENCH_ONLY (a pattern: stream, listen, backlog, sync,
# stall).

use strict;
use warnings;

use File::Copy qw(copy);
use List::Util qw(max min);
use Sessauth::Bench qw(median new_database number stolen USERS);
use Sessauth::Postgres qw(connect_to);
use Sessauth::Process qw(free_port now_ms poll_until private_dir slurp_file);
use Sessauth::Redis;
use Time::HiRes qw(sleep);

my $seconds  = $ENV{BENCH_SECONDS}  // 5;
my $rounds   = $ENV{BENCH_ROUNDS}   // 5;
my $backlog  = $ENV{BENCH_BACKLOG}  // 200_000;
my $sessions = $ENV{BENCH_SESSIONS} // 1_000_000;
my $stall    = $ENV{BENCH_STALL}    // 60;
my $only     = $ENV{BENCH_ONLY}     // '.';
my $program  = "$ENV{TESTDIR}/build/bench/mirror";

use constant LOAD         => 2000;	# revocations a second
use constant CLIENTS      => 8;
use constant STALL_ROUNDS => 2;
use constant MIRROR       => 'sessauth:mirror';
use constant STREAM       => 'sessauth:revocations';

$| = 1;
my $dir = private_dir();
my ($missed, $scripts) = (0, 0);

my $server = Sessauth::Postgres->start_server(config => <<'END_OF_CONFIG');
shared_buffers = 8GB
max_wal_size = 32GB
checkpoint_timeout = 1h
max_connections = 50
autovacuum_naptime = 1h
sessauth.access_ttl = 86400
sessauth.reconcile_interval = 0
END_OF_CONFIG
my $version = connect_to($server->conninfo)->selectrow_array('SHOW server_version');
print "PostgreSQL $version, fsync on, ", `redis-server --version` =~ /v=([0-9.]+)/ ? "Redis $1, " : '', `nproc` =~ s/\s//gr,
  " cores; $rounds rounds, medians.\n\n";

if (grep { /$only/ } qw(stream listen backlog stall))
{
	my $ledger = ledger('small', 10_000);
	latencies($ledger) if grep { /$only/ } qw(stream listen);
	catch_up($ledger) if 'backlog' =~ /$only/;
	stall($ledger) if 'stall' =~ /$only/;
}
full_sync() if 'sync' =~ /$only/;
$server->stop;
printf "\nThe host kept %.1f %% of the time for others.\n", stolen();
print $missed ? "$missed of the bars above are missed.\n" : "Every bar is met.\n";
exit($missed ? 1 : 0);

# ---- how soon ----

sub latencies
{
	my ($ledger) = @_;
	$ledger->{dbh}->do('CREATE TABLE bench.probe (i bigserial PRIMARY KEY, name text)');
	printf "%-44s %17s %17s %7s   %s\n", 'ms from COMMIT on', 'sessauth p50/p99', 'floor p50/p99', 'p99', 'bar';
	for my $kind (grep { /$only/ } qw(stream listen))
	{
		my $what = $kind eq 'stream' ? 'an entry at XREAD' : 'a notification at LISTEN';
		latency($ledger, $kind, "$what, idle", 0);
		latency($ledger, $kind, "$what, " . number(LOAD) . ' revocations/s', LOAD);
	}
	print "\n";
	return;
}

sub latency
{
	my ($ledger, $kind, $name, $rate) = @_;
	my (%p50, %p99, @reached);
	for my $round (1 .. $rounds)
	{
		for my $mode ($round % 2 ? ($kind, "floor-$kind") : ("floor-$kind", $kind))
		{
			my $load = $rate ? start_load($ledger, $rate, $seconds + 2) : undef;
			sleep 1 if $load;
			my ($count, $p50, $p99) = split ' ', run($program, $mode, $server->conninfo('postgres', $ledger->{name}),
				$ledger->{redis}->port, $seconds, $rate ? 1 : 4);
			push @{ $p50{$mode} }, $p50 / 1000;
			push @{ $p99{$mode} }, $p99 / 1000;
			push @reached, rate_of($load) if $load;
		}
	}
	my ($ours, $floor) = (median(@{ $p99{$kind} }), median(@{ $p99{"floor-$kind"} }));
	show($name, sprintf('%.2f / %.2f', median(@{ $p50{$kind} }), $ours), sprintf('%.2f / %.2f', median(@{ $p50{"floor-$kind"} }), $floor),
		$ours / $floor, 3, 'at most');
	printf "%44s (%s revocations a second were made)\n", '', number(median(@reached)) if $rate && median(@reached) < 0.97 * $rate;
	return;
}

# ---- after an outage ----

sub catch_up
{
	my ($ledger) = @_;
	my ($redis, $dbh) = @$ledger{qw(redis dbh)};

	# What is sent, and from where on.
	my $target  = outage($ledger);
	my $before  = snapshot($redis, "backlog");
	my $capture = "$dir/backlog.commands";
	recorded($ledger, $capture, sub { await_caught_up($ledger, $target) });

	my (@ours, @floor);
	for my $round (1 .. $rounds)
	{
		push @floor, $backlog / replay($before, $capture, sub { $_[0]->command('HGET', MIRROR, 'n') == $target->{n} });
		my $goal = outage($ledger);
		$redis->command('CONFIG', 'SET', 'port', $redis->port);
		poll_until('the worker to connect', sub { clients($redis) > 1 });
		my $start = now_ms();
		await_caught_up($ledger, $goal);
		push @ours, $backlog * 1000 / (now_ms() - $start);
	}
	my ($ours, $floor) = (median(@ours), median(@floor));
	heading('catching up, events a second');
	my $bar = $floor / 2 < 100_000 ? 0.5 : sprintf('%.2f', 100_000 / $floor);
	show('a backlog of ' . number($backlog) . '; floor: redis-cli --pipe', number($ours), number($floor), $ours / $floor, $bar, 'at least');
	return;
}

# Redis leaves its port, revocations are made, and the worker has given them numbers. Returns what is true then.
sub outage
{
	my ($ledger) = @_;
	my ($redis, $dbh) = @$ledger{qw(redis dbh)};
	hide($redis, 0);
	for (1 .. $backlog / 1000)
	{
		$dbh->do(q{SELECT count(sessauth.revoke_user('bench', 'user' || 1 + (i * 7919 + ?) % ?, 'benchmark', 'admin')) FROM generate_series(1, 1000) i},
			undef, int(rand USERS), USERS);
	}
	my $last = $dbh->selectrow_hashref('SELECT event_id, user_id, epoch FROM sessauth.event WHERE event_id = (SELECT max(event_id) FROM sessauth.event)');
	my $goal = { key => "user_epoch:{bench}:$last->{user_id}", epoch => $last->{epoch} };
	$goal->{n} = poll_until('the numbers', sub { $dbh->selectrow_array('SELECT n FROM sessauth.revocation_log WHERE event_id = ?', undef, $last->{event_id}) });
	return $goal;
}

sub await_caught_up
{
	my ($ledger, $goal) = @_;
	poll_until('the mirror to catch up', sub {
		($ledger->{redis}->command('HGET', MIRROR, 'n') // 0) == $goal->{n}
		  && ($ledger->{redis}->command('HGET', $goal->{key}, 'epoch') // 0) == $goal->{epoch};
	});
	return;
}

# ---- everything again ----

sub full_sync
{
	my $ledger = ledger('big', $sessions);
	my ($redis, $dbh) = @$ledger{qw(redis dbh)};
	my $keys = $redis->command('DBSIZE');
	forget_keys($redis);
	hide($redis, 0);
	my $before  = snapshot($redis, 'sync');
	my $capture = "$dir/sync.commands";
	recorded($ledger, $capture, sub {
		await_streaming($ledger);
		resync($ledger);
	});

	my (@ours, @floor, @from, @to);
	for my $round (1 .. max(1, min($rounds, int(5_000_000 / $sessions))))
	{
		push @floor, $sessions / replay($before, $capture, sub { $_[0]->command('DBSIZE') == $keys });
		forget_keys($redis);
		my ($took, $from, $to) = resync($ledger);
		push @ours, $sessions / $took;
		push @from, $from;
		push @to,   $to;
		die 'keys are missing' unless $redis->command('DBSIZE') == $keys;
	}
	my ($ours, $floor) = (median(@ours), median(@floor));
	heading('a full copy, sessions a second');
	show(number($sessions) . ' sessions; floor: redis-cli --pipe', number($ours), number($floor), $ours / $floor, 0.5, 'at least');
	my $grown = max(map { $to[$_] - $from[$_] } 0 .. $#to);
	show('memory of the worker meanwhile, MB', sprintf('%.1f', max(@to) / 1024), sprintf('%.1f', median(@from) / 1024), $grown / 1024, 16, 'grows by at most');
	return;
}

# Seconds, and the worker's own memory before and at most, in kB.
sub resync
{
	my ($ledger) = @_;
	my $dbh  = $ledger->{dbh};
	my ($pid) = $dbh->selectrow_array(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sessauth worker' AND datname = current_database()});
	my ($from, $to) = (memory($pid)) x 2;
	my $start = now_ms();
	my ($asked) = $dbh->selectrow_array('SELECT clock_timestamp() FROM sessauth.resync()');
	poll_until('the full copy', sub {
		$to = max($to, memory($pid));
		sleep 0.02;
		return $dbh->selectrow_array('SELECT synced_at >= ? FROM sessauth.mirror_state', undef, $asked);
	}, 3600);
	return ((now_ms() - $start) / 1000, $from, $to);
}

# Without what is shared.
sub memory
{
	my ($pid) = @_;
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m or die "no process $pid";
	return $kb;
}

# All but what says whose mirror it is and how far it has come.
sub forget_keys
{
	my ($redis) = @_;
	my @kept = map { [ $_, $redis->command('DUMP', $_) ] } MIRROR, STREAM;
	$redis->command('MULTI');
	$redis->command('FLUSHALL');
	$redis->command('RESTORE', $_->[0], 0, $_->[1]) for @kept;
	$redis->command('EXEC');
	return;
}

# ---- while Redis does nothing ----

sub stall
{
	my ($ledger) = @_;
	my %rate;
	my $script = script_file(<<"END_OF_SCRIPT");
\\set u random(1, @{[USERS]})
SELECT * FROM sessauth.issue_session('bench', 'user' || :u, 'device', '192.0.2.1');
SELECT sessauth.revoke_user('bench', 'user' || :u, 'benchmark', 'admin');
END_OF_SCRIPT
	for my $round (1 .. STALL_ROUNDS)
	{
		for my $stalled ($round % 2 ? (0, 1) : (1, 0))
		{
			$ledger->{redis}->pause if $stalled;
			my $load = start_pgbench($ledger, $script, $stall, CLIENTS);
			push @{ $rate{$stalled} }, 2 * rate_of($load);
			$ledger->{redis}->continue if $stalled;
			my ($n) = $ledger->{dbh}->selectrow_array('SELECT n FROM sessauth.ledger_state');
			poll_until('the mirror to catch up', sub { ($ledger->{redis}->command('HGET', MIRROR, 'n') // 0) >= $n });
		}
	}
	heading('calls a second, ' . CLIENTS . ' clients');
	my ($ours, $floor) = map { median(@{ $rate{$_} }) } 1, 0;
	show("Redis stalled for $stall s; floor: Redis healthy", number($ours), number($floor), $ours / $floor, 0.95, 'at least');
	return;
}

# ---- set-up ----

# A database with sessions, and a Redis of its own that has all of it.
sub ledger
{
	my ($name, $count) = @_;
	my $dbh    = new_database($server, $name, $count);
	my $redis  = Sessauth::Redis->start_server;
	my $ledger = { name => $name, dbh => $dbh, redis => $redis };
	$dbh->do('SELECT sessauth.add_mirror(?, ?)', undef, 'main', $redis->url);
	await_streaming($ledger);
	return $ledger;
}

sub await_streaming
{
	my ($ledger) = @_;
	poll_until('the mirror', sub { $ledger->{dbh}->selectrow_array(q{SELECT state = 'streaming' AND synced_at IS NOT NULL AND behind = 0 FROM sessauth.mirrors}) }, 3600);
	return;
}

# Redis leaves its port for another, or (0) for none; it can still be asked over its socket.
sub hide
{
	my ($redis, $port) = @_;
	$redis->command('CONFIG', 'SET', 'port', $port);
	$redis->command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
	return;
}

sub clients
{
	my ($redis) = @_;
	my $list = $redis->command('CLIENT', 'LIST', 'TYPE', 'normal');
	return scalar(() = $list =~ /^id=/mg);
}

# A directory with what Redis has now.
sub snapshot
{
	my ($redis, $name) = @_;
	$redis->command('SAVE');
	mkdir "$dir/$name" or die $!;
	copy($redis->dir . '/dump.rdb', "$dir/$name/dump.rdb") or die $!;
	return "$dir/$name";
}

# What the worker sends meanwhile, handshake included. Redis is hidden before, and is where it was afterwards.
sub recorded
{
	my ($ledger, $file, $what) = @_;
	my $redis = $ledger->{redis};
	my $inner = free_port();
	hide($redis, $inner);
	my $relay = Sessauth::Process->start('relay', [ $program, 'record', $redis->port, $inner, $file ]);
	$what->();
	my ($size, $same) = (-1, 0);
	poll_until('a pause of the worker', sub {
		my $now = -s $file;
		$same = $now == $size ? $same + 1 : 0;
		$size = $now;
		return $same > 10;
	});
	$relay->stop;
	hide($redis, $redis->port);
	await_streaming($ledger);
	return;
}

# Seconds that redis-cli takes for the same from the same state on.
sub replay
{
	my ($state, $file, $arrived) = @_;
	my $redis = Sessauth::Redis->start_server(config => [ '--dir', $state ]);
	my $start = now_ms();
	my $said  = `redis-cli -h 127.0.0.1 -p @{[$redis->port]} --pipe <'$file' 2>&1`;
	my $took  = (now_ms() - $start) / 1000;
	die "redis-cli said: $said" unless $said =~ /errors: 0,/;
	die 'the same commands did something else' unless $arrived->($redis);
	$redis->stop('KILL');
	return $took;
}

sub start_load
{
	my ($ledger, $rate, $duration) = @_;
	$ledger->{load} //= script_file("\\set u random(1, @{[USERS]})\nSELECT sessauth.revoke_user('bench', 'user' || :u, 'benchmark', 'admin');\n");
	return start_pgbench($ledger, $ledger->{load}, $duration, 4, '-R', $rate);
}

sub start_pgbench
{
	my ($ledger, $script, $duration, $clients, @options) = @_;
	my $pid = open(my $out, '-|') // die "fork: $!";
	if ($pid == 0)
	{
		open STDERR, '>&', \*STDOUT;
		exec 'pgbench', '-h', $server->dir, '-U', 'app', '-n', '-M', 'prepared', '-c', $clients, '-j', 1,
		  '-T', $duration, '-f', $script, @options, $ledger->{name};
	}
	return $out;
}

sub rate_of
{
	my ($out) = @_;
	my $text = do { local $/; <$out> };
	close $out;
	die "pgbench failed:\n", substr($text, -2000) if $? || $text =~ /aborted|error/i;
	my ($tps) = $text =~ /^tps = ([0-9.]+)/m or die "pgbench said:\n$text";
	return $tps;
}

sub run
{
	open my $out, '-|', @_ or die "$_[0]: $!";
	my $text = do { local $/; <$out> };
	close $out or die "$_[0] $_[1]: $?";
	return $text;
}

sub script_file
{
	my ($text) = @_;
	my $file = "$dir/script" . ++$scripts;
	open(my $out, '>', $file) or die "$file: $!";
	print $out $text;
	close $out or die "$file: $!";
	return $file;
}

sub heading
{
	my ($what) = @_;
	printf "%-44s %17s %17s %7s   %s\n", $what, 'sessauth', 'floor', 'ratio', 'bar';
	return;
}

sub show
{
	my ($name, $ours, $floor, $ratio, $bar, $relation) = @_;
	my $met = $relation eq 'at least' ? $ratio >= $bar : $ratio <= $bar;
	$missed++ unless $met;
	printf "%-44s %17s %17s %7.2f   %s %s%s\n", $name, $ours, $floor, $ratio, $relation, $bar, $met ? '' : '  MISSED';
	return;
}
