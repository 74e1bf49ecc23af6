# worker_losses.t
#		Redis loses something and says nothing: a failover to an older or an empty copy,
#		eviction, a stream that goes and then the rest. All of it is noticed, and made good.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('losses');
my %user = map { $_ => login($dba, $_) } qw(alice bob);
my %of   = map { $_ => "session:{acme}:$user{$_}{session_id}" } keys %user;
value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "early-$_") for 1 .. 3;
drained($redis);

# ---- a failover to a replica that was behind ----

my $replica = Sessauth::Redis->start_server(config => [ '--replicaof', '127.0.0.1', $redis->port ]);
poll_until('the replica to have a copy', sub { $replica->command('EXISTS', 'sessauth:mirror', values %of) == 3 });
$replica->command('REPLICAOF', 'NO', 'ONE');
value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $user{alice}{session_id});
my @late = map { value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "late-$_") } 1 .. 3;
wait_published($dba, $redis);
my $generation = generation($dba);
my @entries = map { "$_->{n} $_->{m}" } revocations($redis);
is($replica->hash($of{alice})->{state}, 'active', 'the replica is older');
$dba->do('UPDATE sessauth.mirror SET url = ?', undef, $replica->url);
wait_published($dba, $replica);
is_deeply([ map { "$_->{n} $_->{m}" } revocations($replica) ], \@entries, 'an older replica gets what it misses, under the same numbers');
is(generation($dba), $generation, 'in the same generation');
poll_until('the session to be revoked there', sub { $replica->hash($of{alice})->{state} eq 'revoked' });
pass('and its keys are brought up to date');
check_stream($dba, $replica, 'after a failover to an older replica');

# ---- the mirror is made a replica, of an empty server, while the worker streams ----

my $empty = Sessauth::Redis->start_server;
$replica->command('REPLICAOF', '127.0.0.1', $empty->port);
my $missed = value($dba, q{SELECT sessauth.revoke_user('acme', 'missed')});
like(poll_until('the replica to be noticed', sub { my $r = mirror_row($dba); $r->{state} eq 'down' && $r })->{last_error},
	qr/replica|READONLY/, 'a mirror that has become a read-only replica is reported');
poll_until('it to be empty', sub { !@{ $replica->command('KEYS', '*') } });
$replica->command('REPLICAOF', 'NO', 'ONE');
wait_revocation($replica, $missed);
poll_until('every session', sub { $replica->command('EXISTS', values %of) == 2 });
pass('a failover to an empty replica is made good');
is($replica->hash($of{alice})->{state}, 'revoked', 'with what had ended');
wait_published($dba, $replica);
check_stream($dba, $replica, 'after a failover to an empty replica');
$dba->do('UPDATE sessauth.mirror SET url = ?', undef, $redis->url);
wait_streaming($dba);
drained($redis);

# ---- the stream goes, and before the worker is back, the rest ----

$redis->command('MULTI');
$redis->command('DEL', 'sessauth:revocations');
$redis->command('HSET', 'sessauth:mirror', 'id', '1-1');
$redis->command('EXEC');
poll_until('it to be noticed', sub { (mirror_row($dba)->{last_error} // '') =~ /not as it was left/ });
$redis->command('FLUSHALL');
drained($redis);
poll_until('every session', sub { $redis->command('EXISTS', values %of) == 2 });
pass('a flush behind a lost stream brings everything');
wait_published($dba, $redis);
check_stream($dba, $redis, 'after both');

# ---- eviction ----

my $evicting = Sessauth::Redis->start_server(config => [ '--maxmemory-policy', 'volatile-random' ]);
my $from = -s $ledger->logfile;
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'evicting', $evicting->url);
like(wait_streaming($dba, 'evicting')->{warning}, qr/maxmemory-policy is not noeviction/, 'a policy that evicts is a warning in the view');
wait_log($ledger, qr/mirror "evicting".*maxmemory-policy/, $from);
pass('and in the log');
$dba->do(q{SELECT count(*) FROM generate_series(1, 500) i, LATERAL sessauth.issue_session('acme', 'many' || i)});
drained($evicting);
my $whole = $evicting->command('DBSIZE');
$evicting->command('CONFIG', 'SET', 'maxmemory', '1200kb');
$evicting->command('CONFIG', 'SET', 'maxmemory', '1mb') for 1 .. 3;
poll_until('keys to be evicted', sub { eval { $evicting->command('SET', 'push', 'x' x 1000, 'EX', 1000) }; $evicting->command('DBSIZE') < $whole - 50 });
$evicting->command('CONFIG', 'SET', 'maxmemory', '0');
wait_streaming($dba, 'evicting');
value($dba, 'SELECT sessauth.reconcile(?)', 'evicting');
my @names = map { "session:{acme}:$_->{session_id}" } rows($dba, 'SELECT session_id FROM sessauth.session');
poll_until('what was evicted to be back', sub { $evicting->command('EXISTS', @names) == @names });
pass('what was evicted is brought back');
for my $policy ('noeviction', 'allkeys-lru')
{
	$evicting->command('CONFIG', 'SET', 'maxmemory-policy', $policy);
	value($dba, 'SELECT sessauth.reconcile(?)', 'evicting');
	poll_until('it to be noticed', sub { ($policy eq 'noeviction') == !defined mirror_row($dba, 'evicting')->{warning} });
	pass("a policy that becomes $policy while it is connected is noticed");
}

# ---- one place, two names ----

$from = -s $ledger->logfile;
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'twin', $redis->unix_url);
wait_log($ledger, qr/mirror "twin" is down: it is the same server, database and prefix as mirror "main"/, $from);
pass('a mirror that is another one under a second name is refused');
wait_streaming($dba, 'main');
unlike(substr(slurp_file($ledger->logfile), $from), qr/mirror "main" is down/, 'and leaves that one alone');
value($dba, 'SELECT sessauth.remove_mirror(?)', 'twin');
is(value($dba, q{SELECT count(*) FROM sessauth.event WHERE kind = 'revocation_adopted'}), 0, 'none of this has changed the ledger');
done_testing;

# Everything that has committed is in the keys of this Redis.
sub drained
{
	my ($server) = @_;
	my $last = login($dba, 'drain' . value($dba, 'SELECT count(*) FROM sessauth.session'));
	poll_until('the keys', sub { eval { $server->command('EXISTS', "session:{acme}:$last->{session_id}") } });
	return;
}
