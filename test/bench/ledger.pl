# ledger.pl
#		What the ledger's calls cost, beside what plain SQL costs that writes the same
#		rows: `make bench-ledger`.
#
# Product and floor take turns on one server, in rounds; what is shown is the median of the rounds. The floor of a call is one
# prepared statement (a CTE) on tables with the same columns and indexes, without triggers, checks of rights,
# reading of epochs or policies; it makes the same signature and hashes (floor.c) and calls itself done.
#
# Settings by environment: BENCH_SECONDS (4) of each measurement, BENCH_ROUNDS (5), BENCH_SESSIONS (10000000; 0 leaves
# the comparison of sizes out), BENCH_ONLY (a pattern of measurements).

use strict;
use warnings;

use List::Util qw(min);
use Sessauth::Bench qw(median new_database number stolen TOKENS USERS);
use Sessauth::Postgres qw(connect_to);
use Sessauth::Process qw(private_dir);

my $seconds  = $ENV{BENCH_SECONDS}  // 4;
my $rounds   = $ENV{BENCH_ROUNDS}   // 5;
my $sessions = $ENV{BENCH_SESSIONS} // 10_000_000;
my $only     = $ENV{BENCH_ONLY}     // '.';

$| = 1;
my $dir = private_dir();
my ($missed, $scripts) = (0, 0);

my $server = Sessauth::Postgres->start_server(config => <<'END');
shared_buffers = 8GB
max_wal_size = 32GB
checkpoint_timeout = 1h
max_connections = 50
autovacuum_naptime = 1h
sessauth.access_ttl = 86400
END
my $version = connect_to($server->conninfo)->selectrow_array('SHOW server_version');
print "PostgreSQL $version, fsync on, ", `nproc` =~ s/\s//gr, " cores; $rounds rounds of $seconds s, medians.\n",
  "The floor: one prepared statement in plain SQL that writes the same rows with the same indexes, and signs and hashes the same.\n\n";

my $dba = new_database($server, 'small', 10_000);
make_floor($dba);
compare_with_floors();
if ($sessions)
{
	my $big = new_database($server, 'big', $sessions);
	compare_sizes($dba, $big);
	compare_tenants($big);
}
$server->stop;
printf "\nThe host kept %.1f %% of the time for others.\n", stolen();
print $missed ? "$missed of the bars above are missed.\n" : "Every bar is met.\n";
exit($missed ? 1 : 0);

# ---- measurements ----

sub compare_with_floors
{
	printf "%-34s %10s %10s %7s   %s\n", 'calls a second', 'sessauth', 'floor', 'ratio', 'bar';
	for my $clients (1, 8)
	{
		my $c = $clients == 1 ? '1 client' : '8 clients';
		versus("issue_session, $c", $clients, 0.8, issue(), floor_issue());
		versus("refresh_session, $c", $clients, 0.8, refresh(), floor_refresh());
		versus("revoke_user, $c", $clients, 0.9, revoke(), floor_revoke(''));
		versus("revoke_user, $c, floor notifies", $clients, 3, revoke(), floor_revoke('notify')) if $clients == 8;
		versus("verify, $c, 1,000 tokens", $clients, 0.7, verify($dba, 'small'), floor_verify());
	}
	return;
}

# Costs with few and with many sessions, alternating between two databases of one server.
sub compare_sizes
{
	my ($small, $big) = @_;
	printf "\n%-34s %10s %10s %7s   %s\n", 'calls a second, 8 clients', number($sessions), number(10_000), 'cost', 'bar';
	for my $call (
		[ issue_session => issue('user', $sessions / 10), issue('user', 1_000) ],
		[ refresh_session => refresh_anywhere(), refresh_anywhere() ],
		[ verify => verify($big, 'big'), verify($small, 'small') ],
		[ revoke_user => revoke(1_000, $sessions / 10_000), revoke(1_000, 10) ])
	{
		my ($name, $many, $few) = @$call;
		next unless "size $name" =~ /$only/;
		$many->{database} = 'big';
		my ($a, $b) = alternate(8, $many, $few);
		show($name, $a, $b, $b / $a, 1.3, 'at most');
	}
	return;
}

# revoke_tenant writes no session rows: a tenant of one session and one of nearly all.
sub compare_tenants
{
	my ($big) = @_;
	return unless 'size revoke_tenant' =~ /$only/;
	$big->do(q{SELECT sessauth.create_tenant('single')});
	$big->do(q{SELECT sessauth.issue_session('single', 'alone')});
	my @scripts = map {
		{ database => 'big', script => "SELECT sessauth.revoke_tenant('$_');\n" }
	} 'bench', 'single';
	my ($a, $b) = alternate(1, @scripts);
	show('revoke_tenant: ' . number($sessions) . ' sessions, 1', $a, $b, $b / $a, 1.3, 'at most');
	return;
}

sub versus
{
	my ($name, $clients, $bar, $ours, $floor) = @_;
	return unless $name =~ /$only/;
	my ($a, $b) = alternate($clients, $ours, $floor);
	return show($name, $a, $b, $a / $b, $bar, 'at least');
}

sub show
{
	my ($name, $a, $b, $ratio, $bar, $relation) = @_;
	my $met = $relation eq 'at least' ? $ratio >= $bar : $ratio <= $bar;
	$missed++ unless $met;
	printf "%-34s %10s %10s %7.2f   %s %s%s\n", $name, number($a), number($b), $ratio, $relation, $bar, $met ? '' : '  MISSED';
	return;
}

# The medians of both, measured in turns; each begins every other round.
sub alternate
{
	my ($clients, @scripts) = @_;
	my @results = ([], []);
	$_->{file} //= script_file($_->{script}) for @scripts;
	pgbench($clients, 1, $_) for @scripts;
	for my $round (1 .. $rounds)
	{
		for my $i ($round % 2 ? (0, 1) : (1, 0))
		{
			push @{ $results[$i] }, pgbench($clients, $seconds, $scripts[$i]);
		}
	}
	return map { median(@$_) } @results;
}

sub pgbench
{
	my ($clients, $duration, $script) = @_;
	my $database = $script->{database} // 'small';
	my @define = map { ('-D', "$_=$script->{define}{$_}") } sort keys %{ $script->{define} // {} };
	my $pid = open(my $out, '-|') // die "fork: $!";
	if ($pid == 0)
	{
		open STDERR, '>&', \*STDOUT;
		exec 'pgbench', '-h', $server->dir, '-U', 'app', '-n', '-M', 'prepared', '-c', $clients, '-j', min($clients, 2),
		  '-T', $duration, '-f', $script->{file}, @define, $database;
	}
	my $text = do { local $/; <$out> };
	close $out;
	die "pgbench failed:\n", substr($text, -2000) if $? || $text =~ /aborted|error/i;
	my ($tps) = $text =~ /^tps = ([0-9.]+)/m or die "pgbench said:\n$text";
	return $tps * ($script->{calls} // 1);
}

# ---- scripts: ours ----

sub issue
{
	my ($prefix, $users) = ('user', $_[1] // USERS);
	return { script => <<"END" };
\\set u random(1, $users)
SELECT * FROM sessauth.issue_session('bench', 'user' || :u, 'device', '192.0.2.1');
END
}

# Each client keeps one session, and a new one after every hundred refreshes.
sub refresh
{
	return { define => { left => 0, rt => '-' }, script => <<'END' };
\if :left > 0
SELECT refresh_token AS rt FROM sessauth.refresh_session(:rt) \gset
\else
SELECT refresh_token AS rt FROM sessauth.issue_session('bench', 'refresher') \gset
\endif
\set left (:left + 100) % 101
END
}

# Refreshes of sessions that lie anywhere among all; each client has some of its own. Their tokens are kept in a small table.
sub refresh_anywhere
{
	my $share = TOKENS / 8;
	return { script => <<"END" };
\\set i $share * :client_id + random(1, $share)
UPDATE bench.token SET refresh_token = (SELECT r.refresh_token FROM sessauth.refresh_session(token.refresh_token) r) WHERE i = :i;
END
}

# So many users, anywhere among all.
sub revoke
{
	my $users = $_[0] // USERS;
	my $step  = $_[1] // 1;
	return { script => <<"END" };
\\set u $step * random(1, $users)
SELECT sessauth.revoke_user('bench', 'user' || :u, 'benchmark', 'admin');
END
}

sub verify
{
	my ($dbh, $database) = @_;
	my @tokens = map { $_->[0] } @{ $dbh->selectall_arrayref('SELECT access_token FROM bench.token ORDER BY i') };
	return many($database, 'SELECT * FROM sessauth.verify(:%s);', @tokens);
}

# ---- scripts: floors ----

sub floor_issue
{
	return { script => <<"END" };
\\set u random(1, @{[USERS]})
WITH t AS MATERIALIZED (SELECT * FROM floor.mint('bench', 'user' || :u, 1, 1, NULL)), s AS (INSERT INTO floor.session (session_id, tenant_id, user_id, epoch, tenant_epoch, created_at, refreshed_at, expires_at, idle_expires_at, access_expires_at, refresh_counter, refresh_hash, device, ip) SELECT session_id, 'bench', 'user' || :u, 1, 1, now(), now(), now() + '30 d', now() + '7 d', now() + '5 min', 1, refresh_hash, 'device', '192.0.2.1' FROM t RETURNING *), e AS (INSERT INTO floor.event (kind, tenant_id, user_id, session_id, epoch, tenant_epoch, version, live, expires_at, until, ip) SELECT 'session_issued', tenant_id, user_id, session_id, epoch, tenant_epoch, version, true, idle_expires_at, access_expires_at, ip FROM s) SELECT 'ok' AS outcome, session_id, access_token, now() + '5 min' AS access_expires_at, refresh_token, now() + '7 d' AS refresh_expires_at, 1 AS epoch, NULL::uuid[] AS evicted FROM t;
END
}

sub floor_refresh
{
	return { define => { left => 0, rt => '-' }, script => <<'END' };
\if :left > 0
WITH t AS MATERIALIZED (SELECT * FROM floor.mint('bench', 'refresher', 1, 1, :rt)), s AS (UPDATE floor.session x SET refresh_counter = refresh_counter + 1, version = version + 1, parent_hash = x.refresh_hash, refresh_hash = t.refresh_hash, refresh_salt = t.salt, refreshed_at = now(), idle_expires_at = now() + '7 d', access_expires_at = now() + '5 min' FROM t WHERE x.session_id = t.session_id RETURNING x.*), e AS (INSERT INTO floor.event (kind, tenant_id, user_id, session_id, epoch, tenant_epoch, version, live, expires_at, until, ip) SELECT 'session_refreshed', tenant_id, user_id, session_id, epoch, tenant_epoch, version, true, idle_expires_at, access_expires_at, ip FROM s) SELECT refresh_token AS rt FROM t \gset
\else
WITH t AS MATERIALIZED (SELECT * FROM floor.mint('bench', 'refresher', 1, 1, NULL)), s AS (INSERT INTO floor.session (session_id, tenant_id, user_id, epoch, tenant_epoch, created_at, refreshed_at, expires_at, idle_expires_at, access_expires_at, refresh_counter, refresh_hash) SELECT session_id, 'bench', 'refresher', 1, 1, now(), now(), now() + '30 d', now() + '7 d', now() + '5 min', 1, refresh_hash FROM t RETURNING *), e AS (INSERT INTO floor.event (kind, tenant_id, user_id, session_id, epoch, tenant_epoch, version, live, expires_at, until, ip) SELECT 'session_issued', tenant_id, user_id, session_id, epoch, tenant_epoch, version, true, idle_expires_at, access_expires_at, ip FROM s) SELECT refresh_token AS rt FROM t \gset
\endif
\set left (:left + 100) % 101
END
}

sub floor_revoke
{
	my ($notify) = @_;
	my $hint = $notify ? q{, pg_notify('floor', '{"user": "user' || :u || '"}')} : '';
	return { script => <<"END" };
\\set u random(1, @{[USERS]})
WITH x AS (UPDATE floor.tenant_user SET epoch = nextval('floor.epoch_seq') WHERE tenant_id = 'bench' AND user_id = 'user' || :u RETURNING *), e AS (INSERT INTO floor.event (kind, revokes, tenant_id, user_id, epoch, until, actor, reason, detail) SELECT 'user_revoked', 'user', tenant_id, user_id, epoch, now() + '5 min', 'admin', 'benchmark', jsonb_build_object('before', jsonb_build_object('epoch', epoch - 1), 'after', jsonb_build_object('epoch', epoch)) FROM x RETURNING event_id) SELECT event_id$hint FROM e;
END
}

sub floor_verify
{
	my @ids = map { $_->[0] } @{ $dba->selectall_arrayref('SELECT session_id FROM bench.token ORDER BY i') };
	return many('small', q{SELECT 'active' AS outcome, tenant_id, user_id, session_id, epoch, access_expires_at, client_claims FROM floor.session WHERE session_id = :%s;}, @ids);
}

# A script with one statement for each value, which it gets as a bound parameter.
sub many
{
	my ($database, $statement, @values) = @_;
	my %define = map { ("v$_" => $values[$_]) } 0 .. $#values;
	my $script = join '', map { sprintf("$statement\n", "v$_") } 0 .. $#values;
	return { database => $database, define => \%define, calls => scalar @values, script => $script };
}

# ---- set-up ----

# The same tables and indexes without anything behind them.
sub make_floor
{
	my ($dbh) = @_;
	$dbh->do(q{
		CREATE SCHEMA floor;
		CREATE SEQUENCE floor.epoch_seq;
		CREATE TABLE floor.tenant_user (LIKE sessauth.tenant_user INCLUDING ALL);
		CREATE TABLE floor.session (LIKE sessauth.session INCLUDING ALL);
		CREATE TABLE floor.event (LIKE sessauth.event INCLUDING ALL) PARTITION BY RANGE (at);
		INSERT INTO floor.tenant_user SELECT * FROM sessauth.tenant_user;
		INSERT INTO floor.session SELECT * FROM sessauth.session;
		CREATE FUNCTION floor.mint(text, text, bigint, bigint, text, OUT session_id uuid, OUT access_token text, OUT refresh_token text,
			OUT refresh_hash bytea, OUT salt bytea) LANGUAGE C VOLATILE AS '} . "$ENV{TESTDIR}/build/bench/sessauth_floor.so" . q{', 'floor_mint';
		GRANT USAGE ON SCHEMA floor TO app;
		GRANT ALL ON ALL TABLES IN SCHEMA floor TO app;
		GRANT ALL ON ALL SEQUENCES IN SCHEMA floor TO app;
		GRANT ALL ON SEQUENCE sessauth.event_seq, sessauth.epoch_seq TO app;
		GRANT USAGE ON SCHEMA sessauth TO app;
		GRANT EXECUTE ON FUNCTION sessauth.valid_id(text, integer) TO app});
	for my $partition (@{ $dbh->selectall_arrayref(q{
		SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'sessauth.event'::regclass}) })
	{
		my ($table, $bound) = @$partition;
		$dbh->do("CREATE TABLE floor.$table (LIKE sessauth.$table INCLUDING ALL); ALTER TABLE floor.event ATTACH PARTITION floor.$table $bound");
	}
	$dbh->do('GRANT ALL ON ALL TABLES IN SCHEMA floor TO app');
	$dbh->do("VACUUM ANALYZE floor.$_") for qw(tenant_user session event);
	return;
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
