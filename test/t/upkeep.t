# upkeep.t
#		What the worker does now and then: the months of the history come and go,
#		dead sessions and old salts are removed; and nobody waits for it, nor does it wait for anybody.

use strict;
use warnings;

use DBD::Pg qw(:async);
use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('upkeep', config => "sessauth.upkeep_interval = 50ms\nlog_statement = none\n");

sub worker_pid { return value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = 'postgres'}); }
sub exists_table { return value($dba, 'SELECT to_regclass(?) IS NOT NULL', "sessauth.$_[0]"); }
sub partitions
{
	return map { $_->{t} } rows($dba, q{SELECT c.relname t FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
		WHERE inhparent = 'sessauth.event'::regclass AND c.relname <> 'event_default' ORDER BY 1});
}

# Many turns of every duty have begun and ended: sessions that it removes, one after the other, tell.
sub turns
{
	for (1 .. 3)
	{
		my $id = dead_session(days => 30);
		poll_until('a turn of the upkeep', sub { !value($dba, 'SELECT 1 FROM sessauth.session WHERE session_id = ?', $id) });
	}
	return;
}

# A session of the past, as a superuser may insert it. Ids of the past sort in front.
sub dead_session
{
	my (%was) = @_;
	return value($dba, q{
		INSERT INTO sessauth.session (session_id, tenant_id, user_id, epoch, tenant_epoch, created_at, refreshed_at,
			expires_at, idle_expires_at, access_expires_at, ended_at, refresh_salt)
		SELECT (CASE WHEN random() < 0.5 THEN '0' ELSE 'f' END || substr(gen_random_uuid()::text, 2))::uuid, 'acme', 'ghost', 1, epoch, t, t, t + ?::interval, t + ?::interval, t, ?, 'salt'
		FROM sessauth.tenant, (SELECT now() - make_interval(days => ?)) v(t) WHERE tenant_id = 'acme' RETURNING session_id},
		$was{lifetime} // '1 hour', $was{lifetime} // '1 hour', $was{ended}, $was{days});
}

# ---- months to come ----

my @months = map { $_->{t} } rows($dba, q{SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + i * interval '1 month', '"event_"YYYY_MM') t FROM generate_series(0, 2) i});
poll_until('the months to come', sub { "@{[ partitions() ]}" eq "@months" });
pass('there are partitions for this month and the next two');
is(value($dba, q{SELECT count(*) FROM (SELECT count(*) FROM pg_indexes WHERE schemaname = 'sessauth' AND tablename ~ '^event_'
	GROUP BY tablename) c(n) GROUP BY n}), 4, 'all with the same indexes as the default one');
is(value($dba, q{SELECT count(*) FROM pg_class WHERE oid = ANY (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass) AND NOT (relrowsecurity AND relforcerowsecurity)}), 0, 'and row security');
is(error_of($dba, "TRUNCATE sessauth.$months[2]")->{sqlstate}, '0A000', 'and the guard against TRUNCATE');

# The month has begun, and nobody was there to make its partition.
sub back_to_default
{
	$dba->begin_work;
	$dba->do('LOCK TABLE sessauth.event');
	$dba->do("ALTER TABLE sessauth.event DETACH PARTITION sessauth.$months[0]");
	$dba->do("INSERT INTO sessauth.event SELECT * FROM sessauth.$months[0]");
	$dba->do("DROP TABLE sessauth.$months[0]");
	$dba->commit;
	return;
}

my $open = $ledger->dbh('app');
my @apps = map { $ledger->dbh('app') } 1 .. 3;
$_->do(q{SET lock_timeout = '20s'}) for @apps, $dba;
for my $round (1 .. 3)
{
	back_to_default();
	$open->begin_work;
	my $idle = login($open, "idle-$round");
	is($idle->{outcome}, 'ok', "round $round: a login goes to the default partition, and stays open");
	my %events;
	for my $i (1 .. 60)
	{
		my $app = $apps[ $i % @apps ];
		die 'a login failed' unless login($app, "user-$round-$i")->{outcome} eq 'ok';
		$events{ value($app, q{SELECT sessauth.revoke_user('acme', ?)}, "user-$round-$i") } = 1;
	}
	ok(!exists_table($months[0]), "round $round: the month waits for the open login, and nobody else for either");
	$open->commit;
	poll_until('the month', sub {
		my $i = random_hex(4);
		login($apps[0], "late-$i");
		$events{ value($apps[0], q{SELECT sessauth.revoke_user('acme', ?)}, "late-$i") } = 1;
		exists_table($months[0]) });
	is(value($dba, 'SELECT count(*) FROM sessauth.event_default'), 0, "round $round: then its events are in it");
	is(value($dba, 'SELECT count(*) FROM sessauth.event WHERE kind = ? AND session_id = ?', 'session_issued', $idle->{session_id}), 1, "round $round: that of the open login too");
	is(value($dba, q{SELECT count(*) - count(DISTINCT event_id) FROM sessauth.event}), 0, "round $round: none twice");
	wait_published($dba, $redis);
	is_deeply([ sort map { $_->{eid} } grep { $events{ $_->{eid} } } revocations($redis) ], [ sort keys %events ], "round $round: the mirror has heard of each, once");
	check_log($dba, "round $round");
}
check_stream($dba, $redis, 'after months were made late');

# A writer that has chosen the default partition, and waits for its lock while the month is attached, must choose again.
{
	my $other = $ledger->dbh;
	$dba->do(q{INSERT INTO sessauth.mirror (name, url) VALUES ('parked', 'unix:///nowhere')});	# a mirror that waits for activate(): no upkeep
	poll_until('the last step to end', sub { value($dba, q{SELECT state FROM pg_stat_activity WHERE pid = ?}, worker_pid()) eq 'idle' });
	back_to_default();
	$other->begin_work;
	$other->do('LOCK TABLE ONLY sessauth.event_default');
	$apps[0]->do(q{SELECT * FROM sessauth.issue_session('acme', 'chooser')}, { pg_async => PG_ASYNC });
	poll_until('the login to wait', sub { value($dba, 'SELECT count(*) FROM pg_locks WHERE pid = ? AND NOT granted', $apps[0]{pg_pid}) });
	my ($from, $to) = @{ row($dba, q{SELECT to_char(m, 'YYYY-MM-DD') f, to_char(m + interval '1 month', 'YYYY-MM-DD') t FROM date_trunc('month', now() AT TIME ZONE 'UTC') m}) }{qw(f t)};
	$other->do("CREATE TABLE sessauth.$months[0] (LIKE sessauth.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)");
	$other->do(q{SELECT sessauth.prepare_partition(?)}, undef, "sessauth.$months[0]");
	$other->do("WITH moved AS (DELETE FROM sessauth.event_default RETURNING *) INSERT INTO sessauth.$months[0] SELECT * FROM moved");
	$other->do("ALTER TABLE sessauth.event ATTACH PARTITION sessauth.$months[0] FOR VALUES FROM ('$from 00:00:00Z') TO ('$to 00:00:00Z')");
	$other->commit;
	$apps[0]->pg_result;
	is(value($dba, 'SELECT count(*) FROM sessauth.event_default'), 0, 'a login that waited for the default partition writes into the month that has come');
	is(value($dba, "SELECT count(*) FROM sessauth.$months[0] WHERE user_id = 'chooser' AND kind = 'session_issued'"), 1, 'once');
	$other->disconnect;
	$dba->do(q{DELETE FROM sessauth.mirror WHERE name = 'parked'});
}

# ---- months that go ----

sub old_month
{
	my ($name, $from, $to, $count, $rows) = @_;
	$dba->begin_work;
	$dba->do("CREATE TABLE sessauth.$name (LIKE sessauth.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)");
	$dba->do(q{SELECT sessauth.prepare_partition(?)}, undef, "sessauth.$name");
	$dba->do("ALTER TABLE sessauth.event ATTACH PARTITION sessauth.$name FOR VALUES FROM ('$from') TO ('$to')");
	$dba->do($rows // q{INSERT INTO sessauth.event (at, kind, tenant_id, user_id, epoch, xid, event_id)
		SELECT ?::timestamptz + interval '1 hour', 'user_changed', 'acme', 'x', 1, '3', -nextval('sessauth.event_seq') FROM generate_series(1, ?)}, undef, $rows ? () : ($from, $count));
	$dba->commit;
	return;
}
$dba->do(q{SET DateStyle = 'ISO'});
my ($kept_from, $kept_to) = @{ row($dba, q{SELECT m - interval '3 months' f, m - interval '2 months' t FROM date_trunc('month', now()) m}) }{qw(f t)};
old_month('event_kept', $kept_from, $kept_to, 10);
old_month('event_2019_07', '2019-07-01Z', '2019-08-01Z', 10);
$dba->do(q{INSERT INTO sessauth.event (at, kind, xid, event_id) SELECT '2018-01-01', 'user_changed', '3', -nextval('sessauth.event_seq') FROM generate_series(1, 1200)});
poll_until('the old month to go', sub { !exists_table('event_2019_07') });
poll_until('old rows of the default partition to go', sub { value($dba, 'SELECT count(*) FROM sessauth.event_default') == 0 });
$dba->do(q{INSERT INTO sessauth.arrival (event_id, committed_after, confirmed_at) SELECT -i, '2018-01-01', '2018-01-01' FROM generate_series(1, 1200) i});
poll_until('what is told of old revocations to go', sub { !value($dba, 'SELECT 1 FROM sessauth.arrival WHERE event_id < 0 LIMIT 1') });
pass('what is older than sessauth.history_retention goes, month by month and row by row');
is(value($dba, 'SELECT count(*) FROM sessauth.event_kept'), 10, 'what is younger stays');

# Not before everybody has read it.
$redis->pause;
poll_until('the stall in the view', sub { mirror_row($dba)->{state} ne 'streaming' });
old_month('event_2019_08', '2019-08-01Z', '2019-09-01Z', 0, q{INSERT INTO sessauth.event (at, kind, tenant_id, user_id, epoch)
	VALUES ('2019-08-05', 'user_changed', 'acme', 'behind', 77), ('2018-08-05', 'user_changed', 'acme', 'behind', 77)});
turns();
ok(exists_table('event_2019_08'), 'a month that a mirror has not read stays');
is(value($dba, q{SELECT count(*) FROM sessauth.event_default}), 1, 'and so does a row of the default partition');
$redis->continue;
poll_until('both to go', sub { !exists_table('event_2019_08') && value($dba, 'SELECT count(*) FROM sessauth.event_default') == 0 });
is($redis->command('HGET', 'user_epoch:{acme}:behind', 'epoch'), 77, 'until it has');

# An open transaction that has written history.
$open->begin_work;
login($open, 'holder');
old_month('event_2019_09', '2019-09-01Z', '2019-10-01Z', 10);
turns();
for my $i (1 .. 60)
{
	die 'a login failed' unless login($apps[ $i % @apps ], "meanwhile-$i")->{outcome} eq 'ok';
	value($apps[ $i % @apps ], q{SELECT sessauth.revoke_user('acme', ?)}, "meanwhile-$i");
}
ok(exists_table('event_2019_09'), 'an open login keeps an old month from being dropped, and nobody from logging in or being revoked');
$open->commit;
poll_until('the month to go', sub { !exists_table('event_2019_09') });
pass('afterwards it goes');
$dba->do(q{ALTER SYSTEM SET sessauth.history_retention = 0});
$ledger->reload;
poll_until('the setting', sub { $ledger->dbh->selectrow_array('SHOW sessauth.history_retention') eq '0' });
turns();
old_month('event_2019_10', '2019-10-01Z', '2019-11-01Z', 1);
turns();
ok(exists_table('event_2019_10'), 'with sessauth.history_retention = 0 the history is kept for ever');

# ---- dead sessions ----

my $live  = login($dba, 'alice');
my $ended = login($dba, 'alice');
$dba->do(q{SELECT sessauth.revoke_session('acme', ?)}, undef, $ended->{session_id});
my $recent = dead_session(days => 3);
my $over   = dead_session(days => 20, lifetime => '100 days', ended => value($dba, q{SELECT now() - interval '8 days'}));
my $locked = dead_session(days => 20);
my $holder = $ledger->dbh;
$holder->begin_work;
$holder->do('SELECT 1 FROM sessauth.session WHERE session_id = ? FOR UPDATE', undef, $locked) if value($dba, 'SELECT 1 FROM sessauth.session WHERE session_id = ?', $locked);
$holder->rollback unless value($dba, 'SELECT 1 FROM sessauth.session WHERE session_id = ?', $locked);
my $expired = dead_session(days => 20);
my $events = value($dba, 'SELECT count(*) FROM sessauth.event WHERE session_id = ANY (?)', [ $over, $expired ]);
poll_until('dead sessions to go', sub { value($dba, 'SELECT count(*) FROM sessauth.session WHERE session_id = ANY (?)', [ $over, $expired ]) == 0 });
pass('sessions that ended or expired long ago are removed');
is(value($dba, 'SELECT count(*) FROM sessauth.session WHERE session_id = ANY (?)', [ $live->{session_id}, $ended->{session_id}, $recent ]), 3, 'live ones, and those that are over since lately, stay');
is(value($dba, 'SELECT count(*) FROM sessauth.event WHERE session_id = ANY (?)', [ $over, $expired ]), 2, 'it is no news: their history is what it was');
is(value($dba, q{SELECT count(*) FROM sessauth.event WHERE session_id = ? AND kind <> 'session_issued'}, $expired), 0, 'and no revocation');
$holder->rollback;
poll_until('the locked one to go', sub { value($dba, 'SELECT count(*) FROM sessauth.session WHERE session_id = ?', $locked) == 0 });

# ---- salts ----

my $old = login($dba, 'salty');
my $new = login($dba, 'salty');
$_ = row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $_->{refresh_token}) for $old, $new;
$holder->begin_work;
$holder->do('SELECT 1 FROM sessauth.session WHERE session_id = ? FOR UPDATE', undef, $new->{session_id});
$dba->do(q{UPDATE sessauth.session SET refreshed_at = refreshed_at - interval '2 hours' WHERE session_id = ?}, undef, $old->{session_id});
my $before = row($dba, 'SELECT version, xmin, (SELECT max(event_id) FROM sessauth.event e WHERE e.session_id = s.session_id) event FROM sessauth.session s WHERE session_id = ?', $old->{session_id});
poll_until('the salt to go', sub { !defined value($dba, 'SELECT refresh_salt FROM sessauth.session WHERE session_id = ?', $old->{session_id}) });
is_deeply(row($dba, 'SELECT version, (SELECT max(event_id) FROM sessauth.event e WHERE e.session_id = s.session_id) event FROM sessauth.session s WHERE session_id = ?', $old->{session_id}),
	{ version => $before->{version}, event => $before->{event} }, 'an old salt is erased, with no new version and no event');
ok(defined value($dba, 'SELECT refresh_salt FROM sessauth.session WHERE session_id = ?', $new->{session_id}), 'a new one is not');
$holder->rollback;
is(row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $old->{refresh_token})->{outcome}, 'ok', 'a session without a salt is refreshed as ever');
is(error_of($apps[0], q{SELECT sessauth.sweep_sessions('00000000-0000-0000-0000-000000000000', 1)})->{sqlstate}, '42501', 'only the owner may sweep');
is(error_of($dba, q{SELECT sessauth.sweep_sessions('00000000-0000-0000-0000-000000000000', 0)})->{sqlstate}, '22023', 'and not nothing at a time');

# ---- killed in between, dormant, copied ----

$dba->do(q{ALTER SYSTEM RESET sessauth.history_retention});
$ledger->reload;
old_month("event_2020_0$_", "2020-0$_-01Z", '2020-0' . ($_ + 1) . '-01Z', 50) for 1 .. 8;
my @dead = map { dead_session(days => 20) } 1 .. 50;
back_to_default();
for (1 .. 6)
{
	my $pid = worker_pid() // next;
	login($apps[ $_ % @apps ], "killed-$_");
	value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "killed-$_");
	$dba->do('SELECT pg_terminate_backend(?)', undef, $pid);
	poll_until('another worker', sub { my $new = worker_pid(); $new && $new != $pid });
}
poll_until('everything to be as it should be', sub {
	exists_table($months[0]) && !(grep { /^event_20(19|20)_/ } partitions()) &&
	  value($dba, 'SELECT count(*) FROM sessauth.session WHERE session_id = ANY (?)', \@dead) == 0 });
is(value($dba, 'SELECT count(*) FROM sessauth.event_default'), 0, 'a worker that is killed again and again gets it done');
wait_published($dba, $redis);
check_log($dba, 'after kills');
is(value($dba, q{SELECT count(*) FROM pg_class WHERE relnamespace = 'sessauth'::regnamespace AND relname ~ '^event_' AND relkind = 'r' AND NOT relispartition}), 0, 'nothing half made is left');

$dba->do('CREATE DATABASE dormant');
my $ddba = $ledger->dbh(undef, 'dormant');
$ddba->do('CREATE EXTENSION sessauth');
poll_until('its worker', sub { value($dba, q{SELECT 1 FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = 'dormant'}) });
turns();
is(value($ddba, q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass}), 1, 'in a dormant ledger nothing is made');

$ledger->append_conf('postgresql.conf', 'sessauth.history_retention = 0');
$ledger->reload;
poll_until('the setting', sub { $ledger->dbh->selectrow_array('SHOW sessauth.history_retention') eq '0' });
turns();
old_month('event_2021_01', '2021-01-01Z', '2021-02-01Z', 5);
$_->disconnect for $open, $holder, @apps, $dba;
$ddba->do('CREATE DATABASE copy TEMPLATE postgres');
$dba = $ledger->dbh;
my $cdba = $ledger->dbh(undef, 'copy');
poll_until('the copy to know that it is one', sub { value($cdba, 'SELECT ledger_id FROM sessauth.ledger_state') ne value($dba, 'SELECT ledger_id FROM sessauth.ledger_state') });
$ledger->append_conf('postgresql.conf', 'sessauth.history_retention = 400');
$ledger->reload;
poll_until('the original to lose it', sub { !exists_table('event_2021_01') });
turns();
ok(value($cdba, q{SELECT to_regclass('sessauth.event_2021_01') IS NOT NULL}), 'a copy that was not activated keeps what it has');
$cdba->do('SELECT sessauth.activate()');
poll_until('the copy to lose it', sub { !value($cdba, q{SELECT to_regclass('sessauth.event_2021_01') IS NOT NULL}) });
pass('until it is');
unlike(slurp_file($ledger->logfile), qr/PANIC|TRAP|signal 11|could not (make a partition|remove old)/, 'nothing of it was an error');
done_testing;
