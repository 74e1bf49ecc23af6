# pgbouncer.t
#		authenticate() behind the real pgbouncer in transaction pooling, where one
#		server connection serves many clients in turn: nobody ever meets the identity, and so the
#		rows, of another, whatever way the transaction before has ended.

use strict;
use warnings;

use DBD::Pg ();
use IO::Handle;
use POSIX ();
use Sessauth;
use Sessauth::Storm qw(storm);
use Test::More;

my $rows = 5;	# of each tenant in the application's table
my @tenants = map { "tenant$_" } 1 .. 6;

my $ledger = new_ledger('pooled');
my $dba    = $ledger->dbh;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', $_) for @tenants;
$dba->do('CREATE TABLE note (tenant_id text NOT NULL, body text)');
$dba->do('INSERT INTO note SELECT t, n FROM unnest(?::text[]) t, generate_series(1, ?::int) n', undef, \@tenants, $rows);
$dba->do('ALTER TABLE note ENABLE ROW LEVEL SECURITY');
$dba->do('CREATE POLICY own ON note USING (tenant_id = (SELECT sessauth.current_tenant()))');
$dba->do('GRANT SELECT, INSERT, UPDATE ON note TO app');
# Keeps its plan for the life of the server connection, whoever calls.
$dba->do(q{CREATE FUNCTION seen() RETURNS TABLE (whose text, how_many bigint) LANGUAGE plpgsql AS
	'BEGIN RETURN QUERY SELECT string_agg(DISTINCT tenant_id, '' ''), count(*) FROM note; END'});

my %login = map { $_ => row($dba, 'SELECT * FROM sessauth.issue_session(?, ?)', $_, "user of $_") } @tenants;
my ($acme, $globex) = @tenants;

# ---- one server connection, two clients ----

my $single = start_pgbouncer(1);
my ($alice, $bob) = (pooled($single), pooled($single));
my $pid = backend($alice);
is(backend($bob), $pid, 'both clients are served by one server connection');

ends_with('a commit', sub { $_[0]->commit });
ends_with('a rollback', sub { $_[0]->rollback });
ends_with('an error', sub {
	is(error_of($_[0], 'SELECT 1/0')->{sqlstate}, '22012', 'an error');
	is(error_of($_[0], 'SELECT * FROM seen()')->{sqlstate}, '25P02', 'in whose transaction nothing is shown any more');
	$_[0]->rollback;
});
ends_with('a statement timeout', sub {
	$_[0]->do(q{SET LOCAL statement_timeout = '20ms'});
	is(error_of($_[0], 'SELECT pg_sleep(600)')->{sqlstate}, '57014', 'a statement runs out of time');
	$_[0]->rollback;
});
ends_with('a cancelled query', sub {
	$_[0]->do('SELECT pg_sleep(600)', { pg_async => DBD::Pg::PG_ASYNC() });

	# What is cancelled before it runs is not: the request finds nothing to cancel.
	poll_until('the query to run', sub { value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}) });
	ok($_[0]->pg_cancel, 'the client cancels its query');
	$_[0]->rollback;
});
ends_with('a savepoint that is rolled back', sub {
	$_[0]->pg_savepoint('s');
	error_of($_[0], 'SELECT 1/0');
	$_[0]->pg_rollback_to('s');
	sees($_[0], $acme, 'the identity of before the savepoint is still there');
	$_[0]->commit;
});
ends_with('a token that is refused', sub {
	is(error_of($_[0], 'SELECT sessauth.authenticate(?)', 'x')->{sqlstate}, '28000', 'another token is refused');
	$_[0]->rollback;
});
ends_with('RESET ALL and DISCARD', sub {
	$_[0]->do($_) for 'RESET ALL', 'DISCARD PLANS', 'DISCARD SEQUENCES';
	$_[0]->commit;
	$_[0]->do('DISCARD ALL');
});
ends_with('another user in the same transaction', sub {
	value($_[0], 'SELECT sessauth.authenticate(?)', $login{$globex}{access_token});
	sees($_[0], $globex, 'the second token is bound instead');
	$_[0]->commit;
});

$alice->begin_work;
$alice->pg_savepoint('s');
value($alice, 'SELECT sessauth.authenticate(?)', $login{$acme}{access_token});
$alice->pg_rollback_to('s');
sees($alice, undef, 'an identity ends with the savepoint in which it was bound');
$alice->commit;

value($alice, 'SELECT sessauth.authenticate(?)', $login{$acme}{access_token});
sees($alice, undef, 'without a transaction it ends with its own statement');
sees($bob, undef, 'for the other client, too');

is(backend($_), $pid, 'all that happened on the one server connection') for $alice, $bob;

# A prepared statement stays with the server connection, and any client can run it: it must show each the own rows.
$alice->begin_work;
value($alice, 'SELECT sessauth.authenticate(?)', $login{$acme}{access_token});
$alice->do('PREPARE mine AS SELECT sessauth.current_tenant(), sessauth.current_user_id(), (SELECT count(*) FROM note), (SELECT min(tenant_id) FROM note)');
is_deeply($alice->selectall_arrayref('EXECUTE mine'), [ [ $acme, "user of $acme", $rows, $acme ] ], 'a prepared statement, its run ' . $_) for 1 .. 7;
$alice->commit;
is_deeply($bob->selectall_arrayref('EXECUTE mine'), [ [ undef, undef, 0, undef ] ], 'shows nothing to the next client');
$bob->begin_work;
value($bob, 'SELECT sessauth.authenticate(?)', $login{$globex}{access_token});
is_deeply($bob->selectall_arrayref('EXECUTE mine'), [ [ $globex, "user of $globex", $rows, $globex ] ], 'and the own rows once that has authenticated');
$bob->commit;
$bob->do('DEALLOCATE mine');

# ---- a client that is gone in the middle of its transaction ----

my ($vanished) = storm(
	count   => 1,
	connect => sub { return pooled($single) },
	run     => sub {
		my ($dbh) = @_;
		$dbh->begin_work;
		value($dbh, 'SELECT sessauth.authenticate(?)', $login{$acme}{access_token});
		my $login = row($dbh, 'SELECT * FROM sessauth.issue_session(?, ?)', $acme, 'late');
		return { token => $login->{access_token}, pid => backend($dbh), rows => value($dbh, 'SELECT how_many FROM seen()'), vanish => 1 };
	});
is($vanished->{pid}, $pid, 'a client with an identity and a login vanishes from the server connection');
is($vanished->{rows}, $rows, 'which has shown it its rows');
sees($bob, undef, 'the next client meets nobody');
is(value($bob, 'SELECT outcome FROM sessauth.verify(?)', $vanished->{token}), 'revoked', 'the token of the login is worth nothing');
poll_until('the lost login to be recorded', sub {
	value($dba, q{SELECT 1 FROM sessauth.history WHERE kind = 'session_rolled_back' AND user_id = 'late'}) });
pass('and that is recorded');
$_->disconnect for $alice, $bob;

# ---- three server connections, 24 clients ----

my $shared = start_pgbouncer(3);
my @kinds = qw(commit rollback error savepoint timeout discard anonymous reconnect);
my @clients = storm(count => 24, connect => sub { return pooled($shared) }, run => \&play);
is_deeply([ map { $_->{died} // @{ $_->{wrong} } } @clients ], [], 'no client has ever seen a row or an identity that was not its own');
for my $kind (@kinds)
{
	my $count = 0;
	$count += $_->{done}{$kind} // 0 for @clients;
	cmp_ok($count, '>', 0, "transactions that ended with $kind: $count");
}
my %users_of;
for my $i (0 .. $#clients)
{
	$users_of{$_}{$i} = 1 for keys %{ $clients[$i]{pids} };
}
my ($most) = sort { $b <=> $a } map { scalar keys %$_ } values %users_of;
cmp_ok($most, '>=', 12, "one server connection has served $most clients");

done_testing;

# ---- helpers ----

# A pgbouncer before the ledger with that many server connections; returns its conninfo.
sub start_pgbouncer
{
	my ($pool_size) = @_;
	my $dir  = private_dir();
	my $port = 6432;
	open(my $users, '>', "$dir/users") or die "users: $!";
	print $users qq{"app" ""\n};
	close $users or die "users: $!";
	open(my $config, '>', "$dir/ini") or die "ini: $!";
	print $config <<"END";
[databases]
* = host=@{[ $ledger->host ]} port=@{[ $ledger->port ]}
[pgbouncer]
listen_addr =
listen_port = $port
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
pool_mode = transaction
default_pool_size = $pool_size
max_client_conn = 100
END
	close $config or die "ini: $!";
	local $ENV{PATH} = "$ENV{PATH}:/usr/sbin";
	my $process = Sessauth::Process->start("pgbouncer$pool_size", [ 'pgbouncer', "$dir/ini" ]);
	my $pool = { conninfo => "host=$dir port=$port user=app dbname=postgres", dir => $dir };
	poll_until('pgbouncer to serve', sub {
		die 'pgbouncer does not start: ' . $process->log_contents if defined $process->ended;
		return eval { pooled($pool)->disconnect };
	});
	return $pool;
}

# Statements that the server keeps would be the next client's, too: so an application must not use them here, but for those by name.
sub pooled
{
	my ($pool) = @_;
	my $dbh = connect_to($pool->{conninfo});
	$dbh->{pg_server_prepare} = 0;
	return $dbh;
}

sub backend { return value($_[0], 'SELECT pg_backend_pid()'); }

# What this client sees, as one line.
sub view_of
{
	my ($dbh) = @_;
	my @identity = $dbh->selectrow_array('SELECT sessauth.current_tenant(), sessauth.current_user_id(), sessauth.current_session_id()');
	my @planned  = $dbh->selectrow_array('SELECT whose, how_many FROM seen()');
	my @direct   = $dbh->selectrow_array(q{SELECT string_agg(DISTINCT tenant_id, ' '), count(*) FROM note});
	return join ', ', map { $_ // 'nobody' } @identity, @planned, @direct;
}

sub view_for
{
	my ($tenant) = @_;
	return join ', ', 'nobody', 'nobody', 'nobody', 'nobody', 0, 'nobody', 0 unless defined $tenant;
	return join ', ', $tenant, "user of $tenant", $login{$tenant}{session_id}, $tenant, $rows, $tenant, $rows;
}

sub sees
{
	my ($dbh, $tenant, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(view_of($dbh), view_for($tenant), $what);
}

# Alice authenticates, her transaction ends in some way, and then Bob comes.
sub ends_with
{
	my ($what, $end) = @_;
	subtest "after $what" => sub {
		sees($alice, undef, 'nobody at first');
		$alice->begin_work;
		value($alice, 'SELECT sessauth.authenticate(?)', $login{$acme}{access_token});
		sees($alice, $acme, 'one client is somebody, and sees the own rows');
		$end->($alice);
		sees($bob, undef, 'the next one is nobody, and sees nothing');
		sees($alice, undef, 'neither does the first');
		is(backend($bob), $pid, 'on the same server connection');
	};
	return;
}

# One of many clients: transactions that end in every way, each looked at before and after it authenticates.
sub play
{
	my ($dbh, $i) = @_;
	my $tenant = $tenants[ $i % @tenants ];
	my (@wrong, %pids, %done);
	for my $n (1 .. 40)
	{
		my $kind = $kinds[ int rand @kinds ];
		$dbh->begin_work;
		$pids{ backend($dbh) } = 1;
		my $before = view_of($dbh);
		push @wrong, "before $kind: $before" if $before ne view_for(undef);
		value($dbh, 'SELECT sessauth.authenticate(?)', $login{$tenant}{access_token}) if $kind ne 'anonymous';
		my $after = view_of($dbh);
		push @wrong, "in $kind: $after" if $after ne view_for($kind eq 'anonymous' ? undef : $tenant);
		push @wrong, "$kind: wrote for another tenant"
		  if $kind eq 'error' && !error_of($dbh, 'INSERT INTO note VALUES (?, ?)', $tenants[ ($i + 1) % @tenants ], 'x');
		if ($kind eq 'savepoint')
		{
			$dbh->pg_savepoint('s');
			error_of($dbh, 'SELECT sessauth.authenticate(?)', 'x');
			$dbh->pg_rollback_to('s');
		}
		if ($kind eq 'timeout')
		{
			$dbh->do(q{SET LOCAL statement_timeout = '5ms'});
			error_of($dbh, 'SELECT pg_sleep(600)');
		}
		if ($kind eq 'reconnect')
		{
			$dbh->{InactiveDestroy} = 1;	# no goodbye: the socket is just closed
			POSIX::close($dbh->{pg_socket});
			$dbh = pooled($shared);
		}
		elsif ($kind =~ /^(commit|anonymous|discard|savepoint)$/) { $dbh->commit; }
		else                                                      { $dbh->rollback; }
		$dbh->do('DISCARD ALL') if $kind eq 'discard';
		$done{$kind}++;
	}
	return { wrong => \@wrong, pids => \%pids, done => \%done };
}
