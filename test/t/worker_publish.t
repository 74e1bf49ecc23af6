# worker_publish.t
#		Every committed change reaches the mirror, once as news, in an order that
#		does not change, whatever transactions do to each other.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Time::HiRes qw(sleep);
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('publish', config => "max_prepared_transactions = 5\nsessauth.max_lease = 1s\n");
my $key = link_key($dba);

# ---- what is written ----

my $session = login($dba, 'alice');
my $session_key = "session:{acme}:$session->{session_id}";
poll_until('the session in the mirror', sub { $redis->command('EXISTS', $session_key) });
my $hash = $redis->hash($session_key);
is_deeply([ @$hash{qw(uid state v)} ], [ 'alice', 'active', '1' ], 'a login is a session key');
is($hash->{m}, mac($key, 'sessauth/1/session', $session_key, @$hash{qw(uid epoch tepoch exp state v)}), 'the session key is authentic');
is($redis->command('PEXPIRETIME', $session_key), ($hash->{exp} + 60) * 1000, 'the session key expires a minute after the session');
for my $epoch ([ 'user_epoch:{acme}:alice', $hash->{epoch} ], [ 'tenant_epoch:{acme}', $hash->{tepoch} ])
{
	my $got = $redis->hash($epoch->[0]);
	is($got->{epoch}, $epoch->[1], "$epoch->[0] says the epoch");
	is($got->{m}, mac($key, 'sessauth/1/epoch', @$epoch), "$epoch->[0] is authentic");
}
is($redis->command('PTTL', 'tenant_epoch:{acme}'), -1, 'the epoch of a tenant does not expire');

my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'alice', 'lost phone')});
my $entry = wait_revocation($redis, $event);
is_deeply([ @$entry{qw(k tid uid sid kid)} ], [ 'user', 'acme', 'alice', '', '' ], 'a forced logout is an entry of the stream');
is($entry->{epoch}, value($dba, q{SELECT epoch FROM sessauth.tenant_user}), 'with the new epoch');
cmp_ok($entry->{until} - $entry->{at}, '>=', 300_000, 'that matters for as long as an access token lives');
poll_until('the new epoch in the mirror', sub { $redis->hash('user_epoch:{acme}:alice')->{epoch} == $entry->{epoch} });
cmp_ok($redis->command('PEXPIRETIME', 'user_epoch:{acme}:alice'), '>=', ($hash->{exp} + 60) * 1000, 'a revocation does not shorten the life of the epoch key');

$session = login($dba, 'bob');
$event = value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $session->{session_id});
$entry = wait_revocation($redis, $event);
is_deeply([ @$entry{qw(k tid uid sid epoch)} ], [ 'session', 'acme', 'bob', $session->{session_id}, 0 ], 'the logout of a device is an entry');
poll_until('the session key to say revoked', sub { $redis->hash("session:{acme}:$session->{session_id}")->{state} eq 'revoked' });

$event = value($dba, q{SELECT sessauth.revoke_tenant('acme')});
$entry = wait_revocation($redis, $event);
is_deeply([ @$entry{qw(k tid uid sid)} ], [ 'tenant', 'acme', '', '' ], 'the logout of a tenant is an entry');
is($entry->{epoch}, value($dba, 'SELECT epoch FROM sessauth.tenant'), 'with the new epoch of the tenant');

my $kid = value($dba, 'SELECT sessauth.create_signing_key()');
$dba->do('UPDATE sessauth.signing_key SET revoked_at = now() WHERE kid = ?', undef, $kid);
poll_until('the revoked key in the stream', sub { grep { $_->{kid} eq $kid && $_->{k} eq 'key' } revocations($redis) });
pass('a revoked signing key is an entry, also by plain SQL');

$session = login($dba, 'carol');
$dba->do(q{DELETE FROM sessauth.session WHERE session_id = ?}, undef, $session->{session_id});
poll_until('the deleted session in the stream', sub { grep { $_->{sid} eq $session->{session_id} } revocations($redis) });
pass('a DBA who deletes a session ends it on every node');

# ---- transactions ----

# A writer that is left open, before and while others commit.
my $slow = $ledger->dbh;
$slow->begin_work;
my $slow_event = value($slow, q{SELECT sessauth.revoke_user('acme', 'slow')});
my $fast_event = value($dba, q{SELECT sessauth.revoke_user('acme', 'fast')});
cmp_ok($slow_event, '<', $fast_event, 'a writer that is left open has the smaller event id');
my $fast = wait_revocation($redis, $fast_event);
pass('a writer left open does not delay others');
my $later = wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'later')}));
is(scalar(grep { $_->{eid} == $slow_event } revocations($redis)), 0, 'what has not committed is not published');
$slow->commit;
my $slow_entry = wait_revocation($redis, $slow_event);
cmp_ok($slow_entry->{n}, '>', $later->{n}, 'its own event arrives when it commits, with the next number');
cmp_ok($slow_entry->{until} - $slow_entry->{at}, '>', $fast->{until} - $fast->{at}, 'and matters longer, by as long as it was open');

$slow->begin_work;
my $rolled_back = value($slow, q{SELECT sessauth.revoke_user('acme', 'never')});
$slow->rollback;
$slow->begin_work;
my $kept = value($slow, q{SELECT sessauth.revoke_user('acme', 'kept')});
$slow->do('SAVEPOINT a');
my $undone = value($slow, q{SELECT sessauth.revoke_user('acme', 'undone')});
$slow->do('ROLLBACK TO a');
my $after = value($slow, q{SELECT sessauth.revoke_user('acme', 'after')});
$slow->do('RELEASE a');
$slow->commit;
wait_revocation($redis, $_) for $kept, $after;
is(scalar(grep { $_->{eid} == $rolled_back || $_->{eid} == $undone } revocations($redis)), 0,
	'what was rolled back, wholly or to a savepoint, is not published');

$slow->begin_work;
my $prepared = value($slow, q{SELECT sessauth.revoke_user('acme', 'prepared')});
$slow->do(q{PREPARE TRANSACTION 'logout'});
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'other')}));
is(scalar(grep { $_->{eid} == $prepared } revocations($redis)), 0, 'a prepared transaction is not published');
$dba->do(q{COMMIT PREPARED 'logout'});
wait_revocation($redis, $prepared);
pass('it is published when COMMIT PREPARED has committed it');

# Eight writers at once, each with transactions of different length and fate.
my @writers;
for my $w (1 .. 8)
{
	open my $psql, '|-', 'psql', '-XqAt', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $ledger->connstr('postgres') or die "psql: $!";
	print $psql map {
		my $end = $_ % 5 == 0 ? 'ROLLBACK' : 'COMMIT';
		"BEGIN; SELECT count(sessauth.revoke_user('acme', 'u$w-$_-' || i)) FROM generate_series(1, $_ % 3 + 1) i; $end;\n"
	} 1 .. 40;
	push @writers, $psql;
}
is(scalar(grep { !close $_ } @writers), 0, 'eight writers have written');
wait_published($dba, $redis);
check_log($dba, 'eight concurrent writers');
check_stream($dba, $redis, 'eight concurrent writers');

# ---- hand-written history ----

# Events are made by triggers; a superuser can write anything. It must not stop what follows.
$dba->do(q{INSERT INTO sessauth.event (kind, revokes) VALUES ('nonsense', 'user'), ('nonsense', 'key'), ('nonsense', 'session')});
$dba->do(q{INSERT INTO sessauth.event (kind, revokes, tenant_id, user_id, epoch) VALUES ('nonsense', 'user', repeat('t', 5000), repeat('u', 5000), 5)});
$dba->do(q{INSERT INTO sessauth.session (session_id, tenant_id, user_id, epoch, tenant_epoch, expires_at, idle_expires_at, access_expires_at)
	VALUES (gen_random_uuid(), repeat('t', 5000), repeat('u', 5000), 1, 1, now() + '1 day', now() + '1 day', now() + '1 day')});
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'dave')}));
pass('events and sessions that no protocol can say do not stop those that follow');

# ---- the hint ----

my $listener = $ledger->dbh;
$listener->do('LISTEN sessauth_revocation');
$event = value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
my $hint = poll_until('a notification', sub { $listener->pg_notifies });
my ($n) = $hint->[2] =~ /^\{"g":"[0-9a-f-]{36}","n":(\d+)\}$/;
is($n, value($dba, 'SELECT n FROM sessauth.revocation_log WHERE event_id = ?', $event), 'a listener is told the number of the revocation, and nothing else');

# ---- a long history ----

# How many pages of this month's index by transaction were looked at, and how often.
sub index_pages
{
	return row($dba, q{SELECT s.idx_blks_hit + s.idx_blks_read AS pages, u.idx_scan AS scans
		FROM pg_statio_user_indexes s JOIN pg_stat_user_indexes u USING (indexrelid)
		WHERE pg_get_indexdef(indexrelid) ~ 'sessauth.event.*\(xid, event_id\)' ORDER BY 1 DESC LIMIT 1});
}
# Every process hands in what it has counted at least once a second, the worker with its beats.
sub wait_statistics
{
	my $from = value($dba, 'SELECT clock_timestamp()');
	poll_until('the statistics', sub { value($dba, q{SELECT clock_timestamp() - last_beat_age > ?::timestamptz + '3 s' FROM sessauth.mirrors}, $from) });
	return index_pages();
}
$ledger->dbh->do(q{SELECT count(sessauth.revoke_user('acme', 'user' || i % 100)) FROM generate_series(1, 20000) i});
wait_published($dba, $redis);
my $before = wait_statistics();
for (1 .. 20)
{
	$dba->do(q{SELECT sessauth.revoke_user('acme', 'after')});
	wait_published($dba, $redis);
}
my $counted = wait_statistics();
my $each = ($counted->{pages} - $before->{pages}) / ($counted->{scans} - $before->{scans});
cmp_ok($each, '<', 10, 'what is new is found without walking through what is old');

# ---- more for a pipeline that is under way ----

# A transaction that fails after it has added something: receipts are decided last. What it has added must not be sent,
# because the number that it gave goes to another revocation then: to one that was written before, and commits only now.
poll_until('receipts', sub { $dba->do(q{SELECT sessauth.revoke_user('acme', 'any')}); value($dba, 'SELECT count(*) FROM sessauth.arrival') });
$ledger->append_conf('postgresql.conf', 'sessauth.heartbeat_interval = 10s');	# a beat that is due ends what is under way
$ledger->reload;
poll_until('a pause between beats', sub { value($dba, q{SELECT last_beat_age > '2 s' FROM sessauth.mirrors}) });
my $log_from = -s $ledger->logfile;
$redis->pause;
my @added = map {
	my $revocation = value($dba, q{SELECT sessauth.revoke_user('acme', 'one more')});
	poll_until('its number', sub { value($dba, 'SELECT 1 FROM sessauth.revocation_log WHERE event_id = ?', $revocation) });
	$revocation
} 1 .. 3;
sleep 0.1;
my $locker = $ledger->dbh;
$slow->begin_work;
my $before_it = value($slow, q{SELECT sessauth.revoke_user('acme', 'not yet')});
$locker->begin_work;
$locker->do('LOCK TABLE sessauth.receipt_state IN SHARE MODE');
my $too_many = value($dba, q{SELECT sessauth.revoke_user('acme', 'one too many')});
poll_until('the worker to wait for it', sub { value($dba, q{SELECT 1 FROM pg_locks WHERE relation = 'sessauth.receipt_state'::regclass AND NOT granted}) });
$slow->commit;		# after the snapshot of what fails, and before that of the next try
wait_log($ledger, qr/could not look at the ledger/, $log_from);
$locker->rollback;
poll_until('its number', sub { value($dba, 'SELECT 1 FROM sessauth.revocation_log WHERE event_id = ?', $too_many) });
$redis->continue;
wait_revocation($redis, $_) for @added, $before_it, $too_many;
is_deeply([ sort { $a <=> $b } grep { $_ == $before_it || $_ == $too_many } map { $_->{event_id} } log_rows($dba) ], [ $before_it, $too_many ], 'both have a number');
my %logged = map { $_->{n} => $_->{event_id} } log_rows($dba);
is(scalar(grep { ($logged{ $_->{n} } // 0) != $_->{eid} } grep { $_->{g} eq generation($dba) } revocations($redis)), 0, 'every number means in the stream what it means in the log');
check_stream($dba, $redis, 'after a transaction that failed');
unlike(substr(slurp_file($ledger->logfile), $log_from), qr/not as it was left/, 'nothing of a transaction that failed was sent');

done_testing;
