# lease_sql.t
#		The lease over SQL, without a node of ours: what the call tells, to whom, with and without the worker,
#		and what receipts make of it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Time::HiRes ();
use Worker;

use constant { LEASE => 2000, NODES => 40 };

my ($ledger, $dba, $redis) = worker_ledger('lease', config => "sessauth.max_lease = @{[LEASE]}ms\nsessauth.heartbeat_interval = 50ms\nwal_writer_delay = 10s\nautovacuum = off\ncheckpoint_timeout = 1h\nsessauth.max_nodes = @{[NODES]}\n");
my $app  = $ledger->dbh;	# revokes beside $dba's transactions
my $gate = $ledger->dbh('gate');
my $serial = 0;

sub node_id { return $_[0] . '/' . random_hex(16); }
sub wall_ms { return int(Time::HiRes::time() * 1000); }
sub revoke { return value($_[0] // $app, q{SELECT sessauth.revoke_user('acme', ?)}, 'u' . $serial++); }
sub log_n { return value($dba, 'SELECT n FROM sessauth.ledger_state'); }
sub wait_number { my ($event) = @_; return poll_until("event $event to have a number", sub { value($dba, q{SELECT 1 FROM sessauth.revocation_log WHERE event_id = ?}, $event) }); }
sub confirmed { return value($app, 'SELECT sessauth.await_receipt(?, ?)', $_[0], $_[1] // '60s'); }
sub worker_pid { return value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = current_database()}); }

# All rows of a call, and the lease, which must be the last.
sub ask
{
	my ($dbh, $node, $g, $n, $staleness) = @_;
	my @rows = rows($dbh, 'SELECT *, extract(epoch FROM until - at) AS lives FROM sessauth.lease(?, ?, ?, ?)', $node, $staleness // LEASE . ' ms', $g, $n // 0);
	my $lease = @rows && $rows[-1]{kind} eq 'lease' ? pop @rows : undef;
	die 'a lease that is not the last' if grep { $_->{kind} eq 'lease' } @rows;
	return ($lease, @rows);
}

sub users { return join ' ', map { $_->{user_id} // '-' } @_; }

# Only while it does not run is it certain that nothing gets a number.
sub without_worker
{
	my ($code) = @_;
	my $pid = pause_worker($dba);
	my $ok = eval { $code->(); 1 };
	my $error = $@;
	kill 'CONT', $pid;
	die $error unless $ok;
	return;
}

# ---- what it tells ----

my $numbered = revoke();
wait_number($numbered);
my $id = node_id('reader');
my ($lease, @told) = ask($gate, $id);
ok($lease, 'a node that knows nothing gets a lease with all that matters') or BAIL_OUT('no lease');
is($lease->{g}, generation($dba), 'of the generation');
is($lease->{number}, log_n(), 'with the last number');
is_deeply([ map { $_->{number} } @told ], [ map { $_->{n} } log_rows($dba) ], 'and every entry of the log');
is($told[-1]{event_id}, $numbered, 'the newest last');
($lease, @told) = ask($gate, $id, $lease->{g}, $lease->{number});
ok($lease && !@told, 'who is up to date is told nothing, and that this is all');
(undef, @told) = ask($gate, $id, random_uuid(), 1_000_000);
is(scalar @told, scalar log_rows($dba), 'who was up to date in another generation is told everything');

sub random_uuid { return value($dba, 'SELECT gen_random_uuid()'); }

my $session = row($dba, q{SELECT * FROM sessauth.issue_session('acme', 'kinds')});
value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $session->{session_id});
value($dba, q{SELECT sessauth.revoke_tenant('acme')});
my $kid = value($dba, q{SELECT sessauth.rotate_signing_key()});
value($dba, q{SELECT sessauth.revoke_signing_key(kid) FROM sessauth.keys WHERE kid <> ?}, $kid);
wait_number(value($dba, 'SELECT max(event_id) FROM sessauth.event WHERE revokes IS NOT NULL'));
(undef, @told) = ask($gate, $id, $lease->{g}, $lease->{number});
is_deeply([ map { join ' ', map { $_ // '-' } @$_{qw(kind tenant_id user_id)} } @told ], [ 'session acme kinds', 'tenant acme -', 'key - -' ], 'every kind is told, in order');
is($told[0]{session_id}, $session->{session_id}, 'a session by its id');
ok(defined $told[1]{epoch} && !defined $told[0]{epoch} && !defined $told[2]{epoch}, 'an epoch where there is one');
is($told[2]{kid} eq $kid, '', 'a key by its kid');
is(scalar(grep { $_->{lives} < 60 } @told), 0, 'and for how long it matters');

# ---- without the worker ----

without_worker(sub {
	my $node = node_id('alone');
	my ($before) = ask($gate, $node);
	my $lsn = value($dba, 'SELECT pg_current_wal_insert_lsn()');
	ask($gate, $node, @$before{qw(g number)}) for 1 .. 5;
	is(value($dba, 'SELECT pg_current_wal_insert_lsn()'), $lsn, 'calls that have nothing to tell write no WAL');
	revoke();
	my ($lease, @rows) = ask($gate, $node, @$before{qw(g number)});
	ok($lease, 'while the worker stands still there are leases');
	is(users(@rows), 'u' . ($serial - 1), 'with what is committed and has no number');
	ok(!defined $rows[0]{g} && !defined $rows[0]{number}, 'which says so');
	is($lease->{number}, $before->{number}, 'the lease speaks of numbers that exist');
	is(users((ask($gate, $node, @$lease{qw(g number)}))[ 1 .. 1 ]), 'u' . ($serial - 1), 'it is told again until it has one');

	$dba->begin_work;
	revoke($dba);
	my $open = 'u' . ($serial - 1);
	($lease, @rows) = ask($gate, $node, @$before{qw(g number)});
	unlike(users(@rows), qr/\b$open\b/, 'what is not committed is not told');
	$gate->begin_work;
	$gate->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
	value($gate, 'SELECT count(*) FROM pg_class');
	$dba->commit;
	($lease, @rows) = ask($gate, $node, @$before{qw(g number)});
	like(users(@rows), qr/\b$open\b/, 'what is committed is, to a transaction with an older snapshot as well');
	$gate->commit;

	$dba->begin_work;
	my $login = row($dba, q{SELECT * FROM sessauth.issue_session('acme', 'rolled')});
	$dba->rollback;
	($lease, @rows) = ask($gate, $node, @$before{qw(g number)});
	is_deeply([ map { $_->{session_id} } grep { ($_->{user_id} // '') eq 'rolled' } @rows ], [ $login->{session_id} ], 'a session whose login was rolled back is told as ended');
});

# ---- nothing that a crash could undo ----

without_worker(sub {
	$app->do('SET synchronous_commit = off');
	my $event = revoke();
	$app->do('RESET synchronous_commit');
	my $user = 'u' . ($serial - 1);
	my (undef, @rows) = ask($gate, node_id('crash'));
	like(users(@rows), qr/\b$user\b/, 'a revocation that was committed asynchronously is told');
	$ledger->stop('immediate');
	$ledger->start;
	($dba, $app, $gate) = ($ledger->dbh, $ledger->dbh, $ledger->dbh('gate'));
	is(value($dba, 'SELECT count(*) FROM sessauth.event WHERE event_id = ?', $event), 1, 'and is still there when the server has crashed');
});

# ---- receipts ----

# Its successor waits for the leases of before.
poll_until('receipts', sub { confirmed(revoke(), '1s') });

sub not_early
{
	my ($event, $not_before, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(confirmed($event), "$what: confirmed in the end");
	my $at = poll_until('the record', sub { value($dba, 'SELECT (extract(epoch FROM confirmed_at) * 1000)::bigint FROM sessauth.arrival WHERE event_id = ?', $event) });
	cmp_ok($at, '>=', $not_before, "$what: not early");
	return;
}

sub known
{
	my ($node) = @_;
	my ($lease) = ask($gate, $node);
	ask($gate, $node, @$lease{qw(g number)});
	return $lease;
}

my $slow = node_id('slow');
known($slow);
my $t0 = wall_ms();
ask($gate, $slow);
my $event = revoke();
ok(!confirmed($event, '0.3s') || wall_ms() >= $t0 + LEASE, 'a node with a lease over SQL holds a receipt back');
my %row = map { ($_->{mirror} // 'sql') => $_ } rows($dba, 'SELECT * FROM sessauth.receipt(?)', $event);
is_deeply([ sort keys %row ], [ 'main', 'sql' ], 'the receipt has a row for the mirror, and one for SQL');
is_deeply([ @{ $row{sql} }{qw(nodes acknowledged)} ], [ 1, 0 ], 'which counts the node');
ok(($row{sql}{state} eq 'pending' && $row{sql}{fenced} == 0) || wall_ms() >= $t0 + LEASE, 'and waits for it');
my $shown = row($dba, q{SELECT * FROM sessauth.nodes WHERE name = 'slow'});
is_deeply([ @$shown{qw(mirror refused max_staleness)} ], [ undef, 0, '00:00:02' ], 'the view nodes shows it');
not_early($event, $t0 + LEASE, 'a node that falls silent');
is(row($dba, 'SELECT * FROM sessauth.receipt(?) WHERE mirror IS NULL', $event)->{fenced}, 1, 'it counts as fenced');
is(value($dba, q{SELECT m.latency < s.latency FROM sessauth.receipt($1) m, sessauth.receipt($1) s WHERE m.mirror = 'main' AND s.mirror IS NULL}, $event), 1,
	'each row has its own latency: the mirror has no node and was not waited for');

my $quick = node_id('quick');
known($quick);
$event = revoke();
wait_number($event);
known($quick);
ok(confirmed($event), 'one that has acknowledged holds nothing back');
is(row($dba, 'SELECT * FROM sessauth.receipt(?) WHERE mirror IS NULL', $event)->{acknowledged}, 1, 'and counts as one that has');

my $stuck = node_id('stuck');
known($stuck);
my $last = wall_ms();
my ($old) = ask($gate, $stuck);
$event = revoke();
wait_number($event);
poll_until('the stuck node to be fenced', sub { ask($gate, $stuck, @$old{qw(g number)}); confirmed($event, '0') });
not_early($event, $last + LEASE, 'a node that is told and never acknowledges');

my $leaver = node_id('leaver');
known($leaver);
$event = revoke();
wait_number($event);
ok(value($gate, 'SELECT sessauth.end_lease(?)', $leaver), 'a node that stops says so');
ok(!value($gate, 'SELECT sessauth.end_lease(?)', $leaver), 'once');
is(value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name = 'leaver'}), 0, 'and is forgotten');

# The call is held up behind its snapshot, while a revocation commits, gets its number, and is decided about.
for my $round (1 .. 3)
{
	my $held = node_id('held');
	$dba->begin_work;
	$dba->do('LOCK TABLE sessauth.revocation_log');
	my $began = wall_ms();
	my $caller = fork // die;
	if ($caller == 0)
	{
		$_->{InactiveDestroy} = 1 for $dba, $app, $gate;
		ask($ledger->dbh('gate'), $held);
		require POSIX;
		POSIX::_exit(0);
	}
	poll_until('the call to wait', sub { value($app, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%sessauth.lease(%' AND pid <> pg_backend_pid()}) });
	my $event = revoke();
	$dba->commit;
	waitpid($caller, 0);
	not_early($event, $began + LEASE, "round $round: a revocation that a lease under way lacks");
}

# ---- a new worker, and a server that crashed ----

for my $case (
	[ 'a worker that was ended', sub {
		my $pid = worker_pid();
		value($dba, 'SELECT pg_terminate_backend(?)', $pid);
		poll_until('another worker', sub { my $new = worker_pid(); $new && $new != $pid }) } ],
	[ 'a server that crashed', sub {
		$ledger->stop('immediate');
		$ledger->start;
		($dba, $app, $gate) = ($ledger->dbh, $ledger->dbh, $ledger->dbh('gate')) } ])
{
	my ($what, $break) = @$case;
	my $node = node_id('survivor');
	known($node);
	my $t0 = wall_ms();
	ask($gate, $node);
	$break->();
	not_early(revoke(), $t0 + LEASE, "a lease of before, $what");
}

# ---- many ----

without_worker(sub {
	value($app, q{SELECT count(sessauth.revoke_user('acme', 'many' || i)) FROM generate_series(1, 10500) i});
	my ($lease, @rows) = ask($gate, node_id('flooded'));
	ok(!$lease, 'more than 10000 without a number: no lease');
	is(scalar(grep { !defined $_->{number} } @rows), 0, 'and none of them');
});
wait_number(value($dba, 'SELECT max(event_id) FROM sessauth.event'));
my $pager = node_id('pager');
my ($first, @page) = ask($gate, $pager);
is(scalar @page, 10_000, 'with numbers they come 10000 at a time');
ok(!$first, 'with no lease before the last');
my ($second, @rest) = ask($gate, $pager, @{ $page[-1] }{qw(g number)});
is($rest[0]{number}, $page[-1]{number} + 1, 'the next call goes on');
ok($second && $second->{number} == $rest[-1]{number}, 'and gives the lease');

# How many rows of the log a statement looks at, in a server that has never counted them (autovacuum is off).
sub looked_at
{
	my ($sql, @values) = @_;
	my $looked = q{SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_xact_all_tables WHERE relid = 'sessauth.revocation_log'::regclass};
	$gate->begin_work;
	my $before = value($gate, $looked);
	rows($gate, $sql, @values);
	my $count = value($gate, $looked) - $before;
	$gate->commit;
	return $count;
}
$dba->do(q{SELECT count(sessauth.revoke_user('acme', 'more' || i)) FROM generate_series(1, 20000) i});
wait_number(value($dba, 'SELECT max(event_id) FROM sessauth.event'));
my @all = (generation($dba), log_n() - 30_000);
cmp_ok(looked_at('SELECT * FROM sessauth.lease(?, ?, ?, ?)', node_id('few'), LEASE . ' ms', $all[0], $all[1] + 29_900), '<', 200, 'a call that lacks a hundred reads no more of the log');
cmp_ok(looked_at('SELECT * FROM sessauth.lease(?, ?, ?, ?)', node_id('many'), LEASE . ' ms', @all), '<', 10_100, 'nor one that lacks many more than it is told at once');
cmp_ok(looked_at('SELECT * FROM sessauth.revocations_since(?, ?)', @all), '<', 10_100, 'nor revocations_since()');

# ---- for nodes that join ----

# Pages as doc/protocol.md has them.
sub unpacked
{
	my ($last, $bytes) = @_;
	my @entries;
	while (length $bytes)
	{
		push @entries, { map { my $len = unpack 'N', substr($bytes, 0, 4, ''); $_ => substr($bytes, 0, $len, '') } qw(kind tenant_id user_id session_id kid epoch event_id at until) };
	}
	$entries[-$_]{number} = $last + 1 - $_ for 1 .. @entries;
	return @entries;
}
value($app, q{SELECT sessauth.revoke_session('acme', ?)}, login($dba, 'packed')->{session_id});
wait_number(value($app, q{SELECT sessauth.revoke_tenant('acme')}));
my @columns = qw(number kind tenant_id user_id session_id kid epoch event_id at until);
my @plain = map { my $row = $_; +{ map { $_ => $row->{$_} } @columns } }
  rows($dba, q{SELECT n AS number, kind, tenant_id, user_id, coalesce(session_id::text, '') AS session_id, kid, epoch, event_id,
	floor(extract(epoch FROM at) * 1000)::bigint AS at, ceil(extract(epoch FROM until) * 1000)::bigint AS until
	FROM sessauth.revocation_log WHERE n > ? ORDER BY n}, log_n() - 500);
my $packed = row($gate, 'SELECT * FROM sessauth.revocations_packed(?, ?)', $all[0], log_n() - 500);
is($packed->{last}, log_n(), 'packed they come to the last');
is_deeply([ unpacked(@$packed{qw(last packed)}) ], \@plain, 'and are what the log has');
$packed = row($gate, 'SELECT * FROM sessauth.revocations_packed(?, ?)', @all);
is($packed->{last}, $all[1] + 10_000, 'ten thousand at a time');
is(scalar(my @ten_thousand = unpacked(@$packed{qw(last packed)})), 10_000, 'which are so many');
is_deeply([ @{ row($gate, 'SELECT * FROM sessauth.revocations_packed(?, ?)', @$_[0, 1]) }{qw(last packed)} ], [ $_->[1], '' ], $_->[2])
  for [ $all[0], log_n(), 'none behind the last' ], [ '00000000-0000-4000-8000-000000000000', 7, 'none of another generation' ];
is(error_of($ledger->dbh('app'), 'SELECT sessauth.revocations_packed(?, ?)', @all)->{sqlstate}, '42501', 'and none for service access');

$dba->do('ALTER ROLE gate SET track_functions = "all"');
my $joins = start_gate($ledger, undef, node => 'joins')->wait_ready;
like($joins->get('/readyz')->{content}, qr/^ready/, 'a node that lacks tens of thousands joins');
is($joins->auth(login($dba, 'joined')->{access_token}), 200, 'and decides');
my %calls = map { $_->{funcname} => $_->{calls} } @{ poll_until('its calls to be counted', sub {
	my @calls = rows($dba, q{SELECT funcname, calls FROM pg_stat_user_functions WHERE funcname IN ('lease', 'revocations_packed') AND calls > 0});
	@calls == 2 && \@calls }) };
cmp_ok($calls{revocations_packed}, '>=', 2, 'by the ten thousand');

# ---- refused ----

is(error_of($gate, 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', 'nameless', '1s')->{sqlstate}, '22023', 'a node without an incarnation is refused');
my $error = error_of($gate, 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', $id, '2001 ms');
is($error->{sqlstate}, '22023', 'a max_staleness beyond sessauth.max_lease is refused');
like($error->{message}, qr/DETAIL:.*2000 ms.*HINT:/s, 'with the limit and a hint');
is(error_of($gate, 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', $id, '0')->{sqlstate}, '22023', 'one of nothing, too');
is(error_of($gate, 'SELECT * FROM sessauth.lease(NULL, ?, NULL, 0)', '1s')->{sqlstate}, '22004', 'null is no node');
is(error_of($ledger->dbh('app'), 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', $id, '1s')->{sqlstate}, '42501', 'service access gives no leases');
is(error_of($ledger->dbh('app'), 'SELECT sessauth.end_lease(?)', $id)->{sqlstate}, '42501', 'and ends none');
$dba->do('CREATE DATABASE silent');
{
	my $silent = $ledger->dbh(undef, 'silent');
	$silent->do('CREATE EXTENSION sessauth');
	$error = error_of($silent, 'SELECT * FROM sessauth.lease(?, ?, NULL, 0)', $id, '1s');
	is($error->{sqlstate}, '55000', 'a ledger that was never written to gives no lease');
	like($error->{message}, qr/HINT:/, 'with a hint');
	is(value($silent, 'SELECT count(*) FROM sessauth.nodes'), 0, 'nodes of another database are not shown');
}
my $crowd = 0;
my $refused;
my @here = (generation($dba), log_n());
$crowd++ until $crowd > NODES || ($refused = error_of($gate, 'SELECT * FROM sessauth.lease(?, ?, ?, ?)', node_id("crowd-$crowd"), '2s', @here));
is($refused && $refused->{sqlstate}, '53400', 'beyond sessauth.max_nodes a new one is refused');
ok((ask($gate, $pager, @here))[0], 'one that is known is not');
done_testing;
