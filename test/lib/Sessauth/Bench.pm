# Bench.pm
#		What the benchmarks share: a database full of sessions, medians, numbers to read, and how much of the machine there was.

package Sessauth::Bench;

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(max sum);
use Sessauth::Postgres qw(connect_to);
use Sessauth::Process qw(now_ms slurp_file);

our @EXPORT_OK = qw(median new_database number processors stolen TOKENS USERS);

use constant USERS  => 10_000;
use constant TOKENS => 1_000;

# A database with a tenant, a tenth as many users as sessions (at least USERS), sessions, and TOKENS tokens of sessions that lie anywhere among them.
sub new_database
{
	my ($server, $name, $count) = @_;
	my $start = now_ms();
	connect_to($server->conninfo)->do("CREATE DATABASE $name");
	my $dbh = connect_to($server->conninfo('postgres', $name));
	$dbh->do('SET client_min_messages = warning; SET synchronous_commit = off');
	$dbh->do('CREATE EXTENSION sessauth; CREATE EXTENSION pg_prewarm; CREATE SCHEMA bench');
	$dbh->do('CREATE ROLE app LOGIN') unless $dbh->selectrow_array(q{SELECT 1 FROM pg_roles WHERE rolname = 'app'});
	$dbh->do(q{SELECT sessauth.grant_access('app', 'service')});
	$dbh->do(q{SELECT sessauth.create_signing_key()});
	$dbh->do(q{SELECT sessauth.create_tenant('bench')});

	# Rows that have been there for long: no history of their own, and no statement that has to be recorded.
	my $users = max(USERS, $count / 10);
	$dbh->do("ALTER TABLE sessauth.$_ DISABLE TRIGGER USER") for qw(tenant_user session);
	$dbh->do("INSERT INTO sessauth.tenant_user (tenant_id, user_id) SELECT 'bench', 'user' || i FROM generate_series(1, $users) i");
	$dbh->do(q{
		CREATE FUNCTION bench.fill(count bigint, users bigint) RETURNS void LANGUAGE sql BEGIN ATOMIC
		INSERT INTO sessauth.session (session_id, tenant_id, user_id, epoch, tenant_epoch, created_at, refreshed_at, expires_at,
			idle_expires_at, access_expires_at, refresh_counter, refresh_hash, device, ip)
		SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(r, 14, 3) || '8' || substr(r, 18))::uuid,
			'bench', u.user_id, u.epoch, 1, now(), now(), now() + '30 d', now() + '7 d', now() + '1 d', 1, sha256(r::bytea), 'device', '192.0.2.1'
		FROM generate_series(1, count) i, LATERAL (SELECT md5(i::text || random()::text) AS r) r,
			LATERAL (SELECT 'user' || 1 + mod(hashint8(i)::bigint + 2147483648, users) AS user_id, i * 0 + 1 AS epoch) u;
		END});
	my $index = $dbh->selectrow_array(q{SELECT pg_get_indexdef('sessauth.session_of_user'::regclass)});
	$dbh->do('DROP INDEX sessauth.session_of_user');
	$dbh->do('CREATE TABLE bench.token (i bigserial PRIMARY KEY, session_id uuid, access_token text, refresh_token text)');
	my $slice = $count / TOKENS;
	for my $i (1 .. TOKENS)
	{
		$dbh->do('SELECT bench.fill(?, ?)', undef, $slice - 1, $users);
		$dbh->do('INSERT INTO bench.token (session_id, access_token, refresh_token)'
			. q{ SELECT session_id, access_token, refresh_token FROM sessauth.issue_session('bench', ?, 'device', '192.0.2.1')},
			undef, "keeper$i");
	}
	$dbh->do($index);
	for my $table (qw(tenant_user session))
	{
		$dbh->do("ALTER TABLE sessauth.$table ENABLE ALWAYS TRIGGER $_->[0]")
		  for @{ $dbh->selectall_arrayref("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'sessauth.$table'::regclass") };
	}
	$dbh->do('GRANT USAGE ON SCHEMA bench TO app; GRANT SELECT, UPDATE ON bench.token TO app');
	$dbh->do("VACUUM ANALYZE sessauth.$_") for qw(tenant_user session event);
	$dbh->do(q{SELECT pg_prewarm(oid) FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'i')});
	$dbh->do('CHECKPOINT');
	printf "(database \"%s\" with %s sessions of %s users made in %.0f s)\n\n", $name, number($count), number($users), (now_ms() - $start) / 1000;
	return $dbh;
}

# What part of the machine's time its host has kept for others since the start, in percent.
my $start = mark();

sub stolen
{
	my $now = mark();
	return $now->{total} > $start->{total} ? 100 * ($now->{stolen} - $start->{stolen}) / ($now->{total} - $start->{total}) : 0;
}

sub mark
{
	open my $file, '<', '/proc/stat' or return { stolen => 0, total => 0 };
	my (undef, @ticks) = split ' ', scalar <$file>;
	return { stolen => $ticks[7], total => sum(@ticks[ 0 .. 7 ]) };
}

# The numbers of those that we may run on.
sub processors
{
	my ($list) = slurp_file('/proc/self/status') =~ /^Cpus_allowed_list:\s*(\S+)/m;
	return map { my ($from, $to) = split /-/; $from .. $to // $from } split /,/, $list;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub number
{
	my ($n) = @_;
	my $text = sprintf '%.0f', $n;
	1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;
	return $text;
}

1;
