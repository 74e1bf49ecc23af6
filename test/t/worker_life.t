# worker_life.t
#		The worker comes and goes by itself, and stands in nobody's way.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('life', config => "max_worker_processes = 10\nrestart_after_crash = on\n");
my $key = link_key($dba);

sub worker_pid
{
	my ($database) = @_;
	return value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = ?}, $database // 'postgres');
}

sub wait_worker { my ($database) = @_; return poll_until('a worker in ' . ($database // 'postgres'), sub { worker_pid($database) }); }
sub wait_no_worker { my ($database) = @_; return poll_until("no worker in $database", sub { !worker_pid($database) }); }

sub arrives
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $event = value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, random_hex(4));
	ok(wait_revocation($redis, $event), $what);
	return;
}

# Of a process, 100 a second.
sub cpu_ticks
{
	my ($pid) = @_;
	my @fields = split ' ', slurp_file("/proc/$pid/stat") =~ s/^.*\) //r;
	return $fields[11] + $fields[12];
}

sub does
{
	my ($statement, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(eval { $dba->do($statement) }, $what) or diag($@);
	return;
}

# ---- idle ----

is(value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^sessauth'}), 2, 'there is a launcher and one worker');
# The view reads a process's state and then its xmin; only if the state has not changed until the next look do they belong together.
ok(poll_until('its activity', sub { value($dba, q{SELECT query = 'mirrors: 1 streaming, 0 syncing, 0 not connected' FROM pg_stat_activity WHERE backend_type = 'sessauth worker'}) }),
	'which says what it does');
my $quiet = poll_until('a stretch of beats without WAL', sub {
	my $beat = (reverse beats($redis))[0]{b};
	my $lsn  = value($dba, 'SELECT pg_current_wal_insert_lsn()');
	my $last = { state_change => '' };
	poll_until('five beats', sub {
		my $now = row($dba, q{SELECT state, state_change, backend_xmin, xact_start FROM pg_stat_activity WHERE backend_type = 'sessauth worker'});
		die 'an idle worker is in a transaction' if $now->{state} eq 'idle' && defined $now->{xact_start};
		die 'an idle worker holds a snapshot' if $now->{state_change} eq $last->{state_change} && $last->{state} eq 'idle' && defined $last->{backend_xmin};
		$last = $now;
		return (reverse beats($redis))[0]{b} >= $beat + 5;
	});
	return $lsn eq value($dba, 'SELECT pg_current_wal_insert_lsn()');
});
ok($quiet, 'an idle worker beats without writing WAL, and holds no snapshot between beats');

# ---- nothing to be done for a while ----

# What only a round can send must not keep the worker busy until there may be one.
$dba->do(q{UPDATE pg_extension SET extversion = '0.0' WHERE extname = 'sessauth'});
wait_log($ledger, qr/worker waits: its library and its SQL are of different versions/);
my $ticks = cpu_ticks(worker_pid());
my $since = now_ms();
poll_until('some time to pass', sub { now_ms() > $since + 1000 });
my $share = 10 * (cpu_ticks(worker_pid()) - $ticks) / (now_ms() - $since);
cmp_ok($share, '<', 0.2, 'a worker that waits uses no processor');
$dba->do(q{UPDATE pg_extension SET extversion = ? WHERE extname = 'sessauth'}, undef, value($dba, 'SELECT sessauth.library_version()'));
arrives('and goes on');

{
	my $holder = $ledger->dbh;
	$holder->begin_work;
	$holder->do('LOCK TABLE sessauth.revocation_log');
	wait_log($ledger, qr/the worker could not look at the ledger, and will try again: canceling statement due to lock timeout/);
	$holder->rollback;
	$holder->disconnect;
	arrives('a worker that could not get a lock goes on when it can');
}

# ---- killed, cancelled, reloaded ----

my $pid = worker_pid();
my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
$dba->do('SELECT pg_terminate_backend(?)', undef, $pid);
poll_until('another worker', sub { my $new = worker_pid(); $new && $new != $pid });
wait_revocation($redis, $event);
arrives('a worker that was terminated comes back, and nothing is lost');
check_log($dba, 'after a terminated worker');
check_stream($dba, $redis, 'after a terminated worker');
is(value($dba, 'SELECT synced_at IS NOT NULL FROM sessauth.mirror_state'), 1, 'it goes on from where the last one was');

$pid = worker_pid();
for (1 .. 200) { $dba->do('SELECT pg_cancel_backend(?)', undef, $pid); }
arrives('cancelling the worker does no harm');
is(worker_pid(), $pid, 'and does not end it');

# Whatever a database or a role is set to is not meant for the worker.
$dba->do("ALTER DATABASE postgres SET $_") for 'statement_timeout = 1', 'default_transaction_read_only = on', 'lock_timeout = 1',
	'search_path = nonsense', 'session_replication_role = replica', "DateStyle = 'German'", "bytea_output = 'escape'", 'row_security = off';
$dba->do('SELECT pg_terminate_backend(?)', undef, worker_pid());
poll_until('another worker', sub { my $new = worker_pid(); $new && $new != $pid });
{
	local $ENV{PGOPTIONS} = '-c statement_timeout=0';
	my $session = $ledger->dbh;
	$session->do("SET $_") for 'default_transaction_read_only = off', 'lock_timeout = 0', "search_path = 'public'", 'session_replication_role = origin';
	my $revoked = value($session, q{SELECT sessauth.revoke_user('acme', 'alice')});
	ok(wait_revocation($redis, $revoked), 'settings of the database do not reach the worker');
}
$dba->do('ALTER DATABASE postgres RESET ALL');

# ---- locks that others hold ----

my $other = $ledger->dbh;
$other->begin_work;
$other->do('UPDATE sessauth.tenant SET policy = policy');
$ledger->append_conf('postgresql.conf', 'sessauth.access_ttl = 600');
$ledger->reload;
my $before = scalar beats($redis);
is(value($dba, q{SELECT count(sessauth.revoke_user('acme', 'u' || i)) FROM generate_series(1, 3) i}), 3, 'a tenant is locked by an idle transaction, and the settings change');
wait_published($dba, $redis);
pass('revocations of users do not wait for it');
$other->rollback;

$other->begin_work;
value($other, q{SELECT sessauth.remove_mirror('main')});
arrives('an administrator who leaves remove_mirror() open holds up nothing');
$other->rollback;

$other->begin_work;
$other->do('LOCK TABLE sessauth.mirror_state, sessauth.session IN ACCESS EXCLUSIVE MODE');
my $listener = $ledger->dbh;
my $log = -s $ledger->logfile;
wait_log($ledger, qr/lock timeout/, $log);
pass('a table that somebody locks is a line in the log');
$other->rollback;
arrives('and the worker goes on when it is free');

# ---- DROP and CREATE EXTENSION ----

$dba->do('CREATE DATABASE other');
my $odba = $ledger->dbh(undef, 'other');
my $oredis = Sessauth::Redis->start_server;
wait_no_worker('other');
for my $round (1 .. 3)
{
	my $started = now_ms();
	$odba->do('CREATE EXTENSION sessauth');
	wait_worker('other');
	$odba->do('SELECT sessauth.create_signing_key()');
	$odba->do(q{SELECT sessauth.create_tenant('acme')});
	$odba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $oredis->url);
	$oredis->command('FLUSHALL');
	wait_streaming($odba);
	ok(wait_revocation($oredis, value($odba, q{SELECT sessauth.revoke_user('acme', 'alice')})), "round $round: the worker starts with CREATE EXTENSION");
	$odba->do(q{SELECT sessauth.revoke_user('acme', 'u' || i) FROM generate_series(1, 500) i});
	$odba->do('DROP EXTENSION sessauth CASCADE');
	wait_no_worker('other');
	pass("round $round: and leaves with DROP EXTENSION");
}
$odba->do('BEGIN');
$odba->do('CREATE EXTENSION sessauth');
$odba->do('ROLLBACK');
$odba->do('CREATE EXTENSION sessauth');
wait_worker('other');
$odba->do('BEGIN');
$odba->do('DROP EXTENSION sessauth');
$odba->do('ROLLBACK');
$odba->do('SELECT sessauth.create_signing_key()');
$odba->do(q{SELECT sessauth.create_tenant('acme')});
$odba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $oredis->url);
$oredis->command('FLUSHALL');
wait_streaming($odba);
ok(wait_revocation($oredis, value($odba, q{SELECT sessauth.revoke_user('acme', 'alice')})), 'a DROP EXTENSION that is rolled back changes nothing');
$odba->disconnect;

# ---- databases that are needed ----

$dba->do('CREATE ROLE nobody LOGIN');
$pid = wait_worker('other');
my $nobody = $ledger->dbh('nobody');
for my $statement ('DROP DATABASE other', 'ALTER DATABASE other RENAME TO mine', 'CREATE DATABASE mine TEMPLATE other')
{
	ok(!eval { $nobody->do($statement) } && $nobody->state eq '42501', "$statement is refused to a stranger");
}
is(worker_pid('other'), $pid, 'who cannot stop the worker by trying');

does('ALTER DATABASE other RENAME TO another', 'the worker does not block RENAME');
wait_worker('another');
pass('and is there again under the new name');

# The copy is another ledger: it must not write to the mirror of the original.
does('CREATE DATABASE copy TEMPLATE another', 'the worker does not block the use of its database as a template');
wait_worker('another');
wait_worker('copy');
my $cdba = $ledger->dbh(undef, 'copy');
my $adba = $ledger->dbh(undef, 'another');
poll_until('the copy to know that it is one', sub { value($cdba, 'SELECT ledger_id FROM sessauth.ledger_state') ne value($adba, 'SELECT ledger_id FROM sessauth.ledger_state') });
is(mirror_row($cdba)->{state}, 'disabled', 'a worker starts in the copy too, and its mirrors are disabled');
wait_revocation($oredis, value($adba, q{SELECT sessauth.revoke_user('acme', 'bob')}));
pass('the original goes on');
is($oredis->command('HGET', 'sessauth:mirror', 'owner'), value($adba, 'SELECT ledger_id FROM sessauth.ledger_state'), 'and still owns its mirror');
$_->disconnect for $cdba, $adba;

mkdir $ledger->basedir . '/space';
$dba->do(q{CREATE TABLESPACE space LOCATION '} . $ledger->basedir . q{/space'});
does('ALTER DATABASE another SET TABLESPACE space', 'the worker does not block SET TABLESPACE');
wait_worker('another');

# A statement that fails, or is rolled back, brings the worker back.
$dba->do('CREATE DATABASE taken');
ok(!eval { $dba->do('ALTER DATABASE another RENAME TO taken') }, 'a RENAME that fails');
wait_worker('another');
$dba->begin_work;
$dba->do('ALTER DATABASE another RENAME TO elsewhere');
$dba->rollback;
wait_worker('another');
pass('and one that is rolled back leave a worker behind');

does("DROP DATABASE $_", "the worker does not block DROP DATABASE $_") for 'copy', 'another', 'taken';
unlike(slurp_file($ledger->logfile), qr/database \d+ does not exist|cache lookup failed/, 'no worker was left without a database');

# Workers in databases that become templates leave them.
$dba->do('CREATE DATABASE house');
{
	my $hdba = $ledger->dbh(undef, 'house');
	$hdba->do('CREATE EXTENSION sessauth');
	$hdba->disconnect;
}
wait_worker('house');
$dba->do('ALTER DATABASE house IS_TEMPLATE true');
wait_no_worker('house');
pass('a database that becomes a template loses its worker');
$dba->do('ALTER DATABASE house IS_TEMPLATE false');
wait_worker('house');
pass('and gets one when it is none any more');
$dba->do('DROP DATABASE house');

# ---- crash and shutdown ----

# Asynchronous commits are visible before they are durable; what the mirror has heard must survive.
for my $round (1 .. 5)
{
	my $session = $ledger->dbh;
	$session->do('SET synchronous_commit = off');
	$session->do(q{SELECT sessauth.revoke_user('acme', ?)}, undef, "async-$round-$_") for 1 .. 20;
	poll_until('some of it to be published', sub { grep { $_->{uid} =~ /^async-$round-/ } revocations($redis) });
	$ledger->stop('immediate');
	$ledger->start;
	$dba = $ledger->dbh;
	my %have = map { $_->{event_id} => 1 } rows($dba, 'SELECT event_id FROM sessauth.event');
	is(scalar(grep { !$have{ $_->{eid} } } revocations($redis)), 0, "immediate shutdown $round: nothing that was published is undone");
	wait_streaming($dba);
}
wait_published($dba, $redis);
check_log($dba, 'after immediate shutdowns');
check_stream($dba, $redis, 'after immediate shutdowns');

$pid = wait_worker();
my $victim = $ledger->dbh;
my $victim_pid = $victim->{pg_pid};
kill 'KILL', $victim_pid;
poll_until('another worker', sub { $dba = eval { $ledger->dbh } or return; my $new = eval { worker_pid() }; $new && $new != $pid });
wait_streaming($dba);
arrives('the worker is back after the crash of a backend');

$redis->pause;
poll_until('the stall in the view', sub { mirror_row($dba)->{state} ne 'streaming' });
my $started = now_ms();
$ledger->stop('fast');
note(sprintf 'a fast shutdown with Redis stalled took %d ms', now_ms() - $started);
pass('a fast shutdown does not wait for a stalled Redis');
$redis->continue;

# ---- too few slots ----

$ledger->append_conf('postgresql.conf', "max_worker_processes = 2\nlog_min_messages = debug1");
$log = -s $ledger->logfile;
$ledger->start;
like(wait_log($ledger, qr/could not start a worker/, $log), qr/max_worker_processes/, 'too few worker slots are a line in the log with a hint');
$dba = $ledger->dbh;
$event = value($dba, q{SELECT sessauth.revoke_user('acme', 'nobody')});
pass('and logins and revocations go on');
wait_log($ledger, qr/DEBUG:  sessauth could not start a worker/, $log);
is(scalar(() = substr(slurp_file($ledger->logfile), $log) =~ /LOG:  sessauth could not start a worker/g), 1, 'each of which looks for a worker, without another line');
$ledger->append_conf('postgresql.conf', "max_worker_processes = 10\nlog_min_messages = warning");
$ledger->restart;
$dba = $ledger->dbh;
wait_revocation($redis, $event);
pass('they arrive when there is a worker');

unlike(slurp_file($ledger->logfile), qr/PANIC|TRAP|signal 11|stuck spinlock/, 'nothing has crashed that was not meant to');
done_testing;
