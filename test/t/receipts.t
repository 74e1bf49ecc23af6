# receipts.t
#		A receipt must never be early. Everything here tries to get one that is:
#		by nodes that are stuck, paused, killed or deleted, a flushed Redis, a worker that is new.
#
# "Early" is measured on the ledger's record of when it was confirmed, against the moment before which some node
# could still say yes. However slow the machine is, that never fails for a receipt that is right.

use strict;
use warnings;

use FindBin;
use JSON::PP;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Time::HiRes ();
use Worker;

use constant LEASE => 2000;

my ($ledger, $dba, $redis) = worker_ledger('receipts', config => "sessauth.max_lease = @{[LEASE]}ms\nsessauth.heartbeat_interval = 50ms\nsessauth.propagation_target = 300ms\n");
my $key = link_key($dba);
my $serial = 0;

# As the ledger writes it, rounded down; now_ms() is another clock.
sub wall_ms { return int(Time::HiRes::time() * 1000); }

sub worker_row { return row($dba, q{SELECT pid, (extract(epoch FROM backend_start) * 1000)::bigint AS began FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = current_database()}); }
sub revoke { return value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, 'u' . $serial++); }
sub confirmed { return value($dba, 'SELECT sessauth.await_receipt(?, ?)', $_[0], $_[1] // '60s'); }
sub state_of { my %seen = map { $_->{state} => 1 } rows($dba, 'SELECT * FROM sessauth.receipt(?)', $_[0]); return join ' ', sort keys %seen; }

# Unix ms of the confirmation, once there is one.
sub confirmed_at
{
	my ($event) = @_;
	return poll_until("event $event to be confirmed", sub {
		confirmed($event) && value($dba, 'SELECT (extract(epoch FROM confirmed_at) * 1000)::bigint FROM sessauth.arrival WHERE event_id = ?', $event) });
}

sub not_early
{
	my ($event, $not_before, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $at = confirmed_at($event);
	cmp_ok($at, '>=', $not_before, $what);
	is(state_of($event), 'confirmed', "$what: the receipt says so");
	return;
}

# A node with a lease; "t0" is when its nonce was written. It acknowledges only what it is told to.
sub leased
{
	my (%options) = @_;
	my $node = new_node($redis, $key, max_staleness => LEASE, %options);
	lease_again($node);
	return $node;
}

sub lease_again
{
	my ($node) = @_;
	$node->{t0} = wall_ms();
	return $node->ask->wait_answer;
}

sub acknowledge
{
	my ($node) = @_;
	my $answer = lease_again($node);
	@$node{qw(g n)} = @$answer{qw(g n)};
	lease_again($node);
	return;
}

# ---- a worker that has just begun ----

my $event = revoke();
my $began = worker_row()->{began};
not_early($event, $began + LEASE, 'a worker that has just begun confirms nothing before the longest lease is over');
ok(confirmed($event = revoke()), 'then, without nodes, a revocation is known as soon as it has a number');
is_deeply([ map { [ @$_{qw(mirror nodes acknowledged fenced state)} ] } rows($dba, 'SELECT * FROM sessauth.receipt(?)', $event) ],
	[ [ 'main', 0, 0, 0, 'confirmed' ], [ undef, 0, 0, 0, 'confirmed' ] ], 'and the receipt has a row for the mirror, and one for nodes over SQL');

# ---- acknowledged ----

my $node = leased(name => 'diligent');
acknowledge($node);
my $asked = wall_ms();
lease_again($node);
$event = revoke();
my $acknowledged_at;
my $pid = fork // die;
if ($pid == 0) { $_->{InactiveDestroy} = 1 for $dba; require POSIX; select(undef, undef, undef, 0.3); acknowledge($node); POSIX::_exit(0); }
my $at = confirmed_at($event);
waitpid($pid, 0);
cmp_ok($at, '>=', $asked + 300, 'a revocation is confirmed when the node has acknowledged it, not before');
my $receipt = row($dba, 'SELECT * FROM sessauth.receipt(?) WHERE mirror = ?', $event, 'main');
is_deeply([ @$receipt{qw(nodes state)} ], [ 1, 'confirmed' ], 'the receipt counts it');
ok(defined $receipt->{latency}, 'and says how long it took');

# ---- fenced ----

for my $case (
	[ 'a node that falls silent', sub { } ],
	[ 'a node whose entry is deleted', sub { $redis->command('DEL', 'sessauth:nodes', 'sessauth:answers') } ],
	[ 'a node of a Redis that was flushed', sub { $redis->command('FLUSHALL') } ],
	[ 'a node of a Redis that stops', sub { $redis->pause } ],
	[ 'a node, deleted, of a worker that was ended', sub {
		$redis->command('DEL', 'sessauth:nodes', 'sessauth:answers');
		my $old = worker_row()->{pid};
		$dba->do('SELECT pg_terminate_backend(?)', undef, $old);
		poll_until('another worker', sub { my $new = worker_row(); $new && $new->{pid} != $old }) } ],
	[ 'a node, deleted, of a server that crashed', sub { $redis->command('DEL', 'sessauth:nodes', 'sessauth:answers'); $ledger->stop('immediate'); $ledger->start; $dba = $ledger->dbh } ],
	[ 'a node of a mirror that was removed', sub { value($dba, q{SELECT sessauth.remove_mirror('main')}) } ],
	[ 'a node of a mirror that was removed and added', sub {
		value($dba, q{SELECT sessauth.remove_mirror('main')});
		value($dba, q{SELECT sessauth.add_mirror('main', ?)}, $redis->url) } ],
	[ 'a node of a generation that ended', sub {
		my $g = generation($dba);
		$redis->pause;
		# More than is sent before the first answer.
		my $hole = value($dba, q{SELECT max(sessauth.revoke_user('acme', 'many' || i)) FROM generate_series(1, 3000) i});
		poll_until('its number', sub { value($dba, 'SELECT 1 FROM sessauth.revocation_log WHERE event_id = ?', $hole) });
		revoke();
		$dba->do('DELETE FROM sessauth.revocation_log WHERE event_id = ?', undef, $hole);
		$redis->continue;
		revoke();
		poll_until('another generation', sub { generation($dba) ne $g }) } ])
{
	my ($what, $break) = @$case;
	my $silent = leased(name => 'silent');
	my $known = revoke();
	acknowledge($silent);
	confirmed_at($known);
	lease_again($silent);
	$break->();
	my $event = revoke();
	not_early($event, $silent->{t0} + LEASE, "$what is waited for until its lease is over");
	is(state_of($known), 'confirmed', "$what: what was known before is known") unless $what =~ /generation|removed/;
	$redis->continue if $what =~ /stops/;
	value($dba, q{SELECT sessauth.add_mirror('main', ?)}, $redis->url) if $what =~ /removed$/;
	wait_streaming($dba);
}

# Stuck: it asks, is answered, and applies nothing.
my $stuck = leased(name => 'stuck');
acknowledge($stuck);
my $last = $stuck->{t0};
$event = revoke();
my $seen = poll_until('the stuck node to be fenced', sub { lease_again($stuck); confirmed($event, '0') });
not_early($event, $last + LEASE, 'a node that is answered but stuck is waited for until its lease from before is over');
is(row($dba, q{SELECT fenced FROM sessauth.receipt(?) WHERE mirror = 'main'}, $event)->{fenced} >= 1, 1, 'and counts as fenced');

# A new node has to apply all of it first.
$event = revoke();
confirmed_at($event);
my $late = leased(name => 'late');
my $n = value($dba, 'SELECT n FROM sessauth.revocation_log WHERE event_id = ?', $event);
cmp_ok($late->wait_answer->{n}, '>=', $n, 'a node that joins after the receipt is obliged to know the revocation');

# ---- real nodes ----

my $gate = start_gate($ledger, $redis, max_staleness => '1500ms')->wait_ready;
for my $round (1 .. 3)
{
	my $login = login($dba, "gated-$round");
	poll_until('the gate to accept it', sub { $gate->auth($login->{access_token}) == 200 });
	$gate->pause if $round == 2;
	my $event = value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "gated-$round");
	ok(confirmed($event), "round $round: confirmed" . ($round == 2 ? ' although a node is paused' : ''));
	$gate->continue if $round == 2;
	isnt($gate->auth($login->{access_token}), 200, "round $round: and from then on nobody gets in");
}

# ---- own transactions, snapshots, other tenants, nonsense ----

$dba->begin_work;
$event = revoke();
is(error_of($dba, 'SELECT sessauth.await_receipt(?)', $event)->{sqlstate}, '55000', 'awaiting an event of the own transaction is refused at once');
$dba->rollback;
$dba->begin_work;
$dba->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
value($dba, 'SELECT count(*) FROM sessauth.event');
{
	my $other = $ledger->dbh;
	$event = value($other, q{SELECT sessauth.revoke_user('acme', 'elsewhere')});
	$other->disconnect;
}
ok(confirmed($event), 'a transaction with an old snapshot sees the receipt of what came after it');
$dba->commit;
is(value($dba, 'SELECT sessauth.await_receipt(0)'), 0, 'an event that does not exist is not awaited');
is(value($dba, 'SELECT count(*) FROM sessauth.receipt(0)'), 0, 'and has no receipt');
is(error_of($dba, q{SELECT sessauth.await_receipt(1, '-1s')})->{sqlstate}, '22023', 'a negative timeout is refused');
value($dba, q{SELECT sessauth.create_tenant('other')});
$dba->do('CREATE ROLE chief LOGIN');
value($dba, q{SELECT sessauth.grant_access('chief', 'tenant_admin', 'other')});
my $chief = $ledger->dbh('chief');
is(value($chief, 'SELECT count(*) FROM sessauth.receipt(?)', $event), 0, 'a revocation of another tenant has no receipt');
is(value($chief, 'SELECT sessauth.await_receipt(?)', $event), 0, 'and cannot be awaited');
my $own = value($chief, q{SELECT sessauth.revoke_user('other', 'x')});
ok(value($chief, q{SELECT sessauth.await_receipt(?, '60s')}, $own), 'one of the own tenant can');

# ---- what is recorded ----

is(value($dba, 'SELECT count(*) FROM sessauth.revocations WHERE event_id = ? AND everywhere_after IS NOT NULL', $own), 1, 'the view revocations says how long it took');
is(value($chief, 'SELECT count(*) FROM sessauth.revocations WHERE everywhere_after IS NOT NULL'), 1, 'to an administrator for the own tenant');
is(value($chief, 'SELECT count(*) FROM sessauth.arrival WHERE tenant_id = ?', 'acme'), 0, 'who learns nothing of another');
my %way = map { $_->{way} => $_ } rows($dba, 'SELECT *, p50 <= p90 AND p90 <= p99 AND p99 <= max AS ordered FROM sessauth.propagation');
is_deeply([ sort keys %way ], [ 'to every mirror', 'to every node' ], 'the view propagation knows both ways');
ok($way{'to every node'}{ordered} && $way{'to every node'}{breaches} > 0 && $way{'to every node'}{target} eq '00:00:00.3', 'with percentiles, and breaches of the target');
is(value($dba, q{SELECT sum(revocations) FROM sessauth.propagation_histogram WHERE way = 'to every node'}), $way{'to every node'}{revocations}, 'the histogram has each of them');
is(value($dba, 'SELECT count(*) FROM sessauth.arrival WHERE confirmed_at < committed_after OR published_at < committed_after'), 0, 'nothing has arrived before it was committed');

# ---- for those who listen ----

my $g = generation($dba);
my @all = rows($dba, 'SELECT * FROM sessauth.revocations_since(NULL, 0)');
is_deeply([ map { $_->{number} } @all ], [ map { $_->{n} } log_rows($dba) ], 'revocations_since gives what is in the log');
is(value($dba, 'SELECT count(*) FROM sessauth.revocations_since(?, ?)', $g, $all[-1]{number} - 2), 2, 'after a number');
is(value($dba, 'SELECT count(*) FROM sessauth.revocations_since(gen_random_uuid(), 1000000)'), scalar @all, 'and all of it for another generation');
is_deeply([ map { $_->{tenant_id} } rows($chief, 'SELECT * FROM sessauth.revocations_since(NULL, 0)') ], ['other'], 'a role of a tenant sees that tenant');
is(value($ledger->dbh('gate'), 'SELECT count(*) FROM sessauth.revocations_since(NULL, 0)'), scalar @all, 'a node sees all');
my $listener = $ledger->dbh('chief');
$listener->do('LISTEN sessauth_revocation');
revoke();
my $hint = poll_until('a notification', sub { $listener->pg_notifies });
is_deeply([ sort keys %{ decode_json($hint->[2]) } ], [ 'g', 'n' ], 'a notification says nothing of a tenant');
$ledger->append_conf('postgresql.conf', 'sessauth.notify_detail = on');
$ledger->reload;
my $detail = poll_until('a notification with its fields', sub {
	value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, q{quo"te\\} . $serial++);
	my $got = poll_until('a notification', sub { $listener->pg_notifies });
	my $fields = decode_json($got->[2]);
	exists $fields->{uid} && $fields });
like("$detail->{k} $detail->{tid} $detail->{uid}", qr/^user acme quo"te\\\d+$/, 'unless sessauth.notify_detail says so');
done_testing;
