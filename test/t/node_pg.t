# node_pg.t
#		Nodes that follow PostgreSQL: alone, without any mirror; beside Redis, when either of them goes away; and through
#		everything that happens to a server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use IO::Socket::INET;
use Sessauth;
use Test::More;
use Worker;

use constant PATIENCE => 6000;	# max_staleness of the nodes whose servers are taken away; of the others it is 2 s

my ($ledger, $dba) = worker_ledger('sql', mirror => 0, config => "sessauth.max_lease = @{[PATIENCE]}ms\nmax_connections = 40\n", init => { allows_streaming => 1 });
my $app = $ledger->dbh('app');

sub revoke_user { return value($app, q{SELECT sessauth.revoke_user('acme', ?)}, $_[0]); }
# Without questions about single tokens, which would hide that there is no lease.
sub start_node { my ($redis, @more) = @_; return start_gate($ledger, $redis, @more, arguments => [ '--ask-connections', 0, '--admin-listen', '127.0.0.1:0' ]); }
sub why { my ($gate, $token) = @_; chomp(my $why = $gate->get('/auth', $token)->{content}); return $why; }

sub accepted
{
	my ($gate, $login, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$gate->wait_auth($login->{access_token}, 200);
	pass($what);
	return;
}

sub refused
{
	my ($gate, $login, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$gate->wait_auth($login->{access_token}, 401);
	is(why($gate, $login->{access_token}), 'revoked', $what);
	return;
}

# Asks until the condition holds and at least twice max_staleness has passed; counts the answers.
sub ask_meanwhile
{
	my ($gate, $token, $condition) = @_;
	my $begun = now_ms();
	my %answers;
	poll_until('the condition', sub {
		$answers{ $gate->auth($token) }++;
		return now_ms() - $begun > 4000 && $condition->() });
	return \%answers;
}

# Until when a node has a lease, at least: it said how much was left of it.
sub lease_held
{
	my ($gate) = @_;
	return poll_until('a fresh lease', sub {
		my $begun = now_ms();
		my $left  = 1000 * $gate->metric('sessauth_node_lease_left_seconds');
		return $left > 0.75 * PATIENCE && $begun + $left });
}

# Asks nodes until none can tell. For each: what it has said, how often, and when the first 503 had come.
sub ask_until_over
{
	my ($token, @gates) = @_;
	my %lost = map { $_->name => { said => { 200 => 0 } } } @gates;
	poll_until('the leases to be over', sub {
		for my $gate (@gates)
		{
			my $lost   = $lost{ $gate->name };
			my $status = $gate->auth($token);
			$lost->{said}{$status}++;
			$lost->{first} //= now_ms() if $status == 503;
		}
		return !grep { !$_->{first} } values %lost });
	return \%lost;
}

# ---- PostgreSQL alone ----

my $gate = start_node(undef, node => 'alone')->wait_ready;
pass('a gate with --pg alone gets ready');
my $live = login($dba, 'live');
accepted($gate, $live, 'it accepts a live token');
my $node = row($dba, q{SELECT * FROM sessauth.nodes WHERE name = 'alone'});
is($node->{mirror}, undef, 'the ledger knows it as a node over SQL');

my %login = map { $_ => login($dba, $_) } qw(session user others);
my $elsewhere = do { value($dba, q{SELECT sessauth.create_tenant('globex')}); login($dba, 'erin', 'globex') };
accepted($gate, $_, "a token of $_->{user} before") for map { +{ %{ $login{$_} }, user => $_ } } sort keys %login;
accepted($gate, $elsewhere, 'a token of another tenant before');
value($app, q{SELECT sessauth.revoke_session('acme', ?)}, $login{session}{session_id});
refused($gate, $login{session}, 'a session is revoked');
revoke_user('user');
refused($gate, $login{user}, 'a user');
is($gate->auth($login{others}{access_token}), 200, 'and nobody else');
value($app, q{SELECT sessauth.revoke_tenant('globex')});
refused($gate, $elsewhere, 'a tenant');
is($gate->auth($login{others}{access_token}), 200, 'and no other');
my ($old_kid) = $dba->selectrow_array('SELECT kid FROM sessauth.keys');
value($dba, 'SELECT sessauth.rotate_signing_key()');
my $newer = login($dba, 'newer');
accepted($gate, $newer, 'a token of a new key');
value($dba, 'SELECT sessauth.revoke_signing_key(?)', $old_kid);
refused($gate, $live, 'a key is revoked');
is($gate->auth($newer->{access_token}), 200, 'and no other');

# ---- commits ----

my $pending = login($dba, 'pending');
accepted($gate, $pending, 'a token before its revocation');
$app->begin_work;
revoke_user('pending');
{
	my $marker = login($dba, 'marker');
	accepted($gate, $marker, 'another one');
	value($dba, q{SELECT sessauth.revoke_user('acme', 'marker')});
	refused($gate, $marker, 'a revocation that is committed later but at once');
}
is($gate->auth($pending->{access_token}), 200, 'an open transaction revokes nothing');
$app->commit;
refused($gate, $pending, 'its commit does');
$app->begin_work;
my $undone = login($dba, 'undone');
revoke_user('undone');
$app->rollback;
{
	my $marker = login($dba, 'marker');
	value($dba, q{SELECT sessauth.revoke_user('acme', 'marker')});
	refused($gate, $marker, 'a revocation after a rollback');
}
is($gate->auth($undone->{access_token}), 200, 'which has revoked nobody');

# ---- without the worker ----

my $before = login($dba, 'numberless');
accepted($gate, $before, 'a token while the worker runs');
my $worker = pause_worker($dba);
{
	local $@;
	my $ok = eval {
		revoke_user('numberless');
		refused($gate, $before, 'while the worker stands still, a revocation counts all the same');
		my $late = start_node(undef, node => 'late')->wait_ready;
		refused($late, $before, 'also for a gate that joins now');
		accepted($late, $newer, 'which serves');
		$late->stop;
		my $answers = ask_meanwhile($gate, $newer->{access_token}, sub { 1 });
		is_deeply([ keys %$answers ], [200], 'and the leases go on');
		1 };
	my $error = $@;
	kill 'CONT', $worker;
	die $error unless $ok;
}
poll_until('the revocation to have a number', sub {
	value($dba, q{SELECT 1 FROM sessauth.revocation_log WHERE user_id = 'numberless'}) });
is($gate->auth($before->{access_token}), 401, 'with a number it is the same revocation');

# ---- receipts ----

my $told = revoke_user('told');
ok(value($app, q{SELECT sessauth.await_receipt(?, '60s')}, $told), 'the gate acknowledges: a receipt is confirmed');
my $receipt = row($app, 'SELECT * FROM sessauth.receipt(?) WHERE mirror IS NULL', $told);
is($receipt->{state}, 'confirmed', 'for the nodes over SQL');
cmp_ok($receipt->{acknowledged}, '>=', 1, 'of which one has acknowledged');

# ---- more than one page ----

my @bulk = map { login($dba, "bulk$_") } 1, 10500, 21000;
accepted($gate, $bulk[2], 'the last of many');
$gate->pause;
value($app, q{SELECT count(sessauth.revoke_user('acme', 'bulk' || i)) FROM generate_series(1, 21000) i});
poll_until('all of them to have numbers', sub { value($dba, q{SELECT 1 FROM sessauth.revocation_log WHERE user_id = 'bulk21000'}) });
my $joining = start_node(undef, node => 'joining')->wait_ready;
is($joining->auth($_->{access_token}), 401, 'a gate that joins knows all of 21000 before it is ready') for @bulk;
$gate->continue;
refused($gate, $_, 'one that was paused meanwhile catches up') for @bulk;
accepted($gate, $newer, 'and serves');
is($joining->stop, 0, 'the other one ends cleanly');
is(value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name = 'joining'}), 0, 'and is forgotten at once');

# ---- two transports ----

my $redis = Sessauth::Redis->start_server;
value($dba, q{SELECT sessauth.add_mirror('main', ?)}, $redis->url);
wait_streaming($dba);
my $both = start_node($redis, node => 'both')->wait_ready;
poll_until('the ledger to know it both ways', sub { value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name = 'both'}) == 2 });
my $alice = login($dba, 'alice');
accepted($both, $alice, 'a gate with Redis and PostgreSQL serves');

$redis->pause;
my $answers = ask_meanwhile($both, $alice->{access_token}, sub { $both->log_contents =~ /Redis: / });
is_deeply([ keys %$answers ], [200], 'losing Redis costs no request');
ok($both->is_ready, 'and the gate stays ready');
my $bob = login($dba, 'bob');
accepted($both, $bob, 'a new login meanwhile');
revoke_user('bob');
refused($both, $bob, 'and a revocation');
$redis->continue;
poll_until('Redis to be followed again', sub { $both->log_contents =~ /Redis: .*following Redis/s });

$dba->do('ALTER ROLE gate NOLOGIN');
$dba->do(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'});
$answers = ask_meanwhile($both, $alice->{access_token}, sub { $both->log_contents =~ /PostgreSQL: / });
is_deeply([ keys %$answers ], [200], 'nor does losing PostgreSQL while Redis and the worker are there');
my $carol = login($dba, 'carol');
accepted($both, $carol, 'a new login meanwhile');
revoke_user('carol');
refused($both, $carol, 'and a revocation');
$redis->pause;
my $alone = ask_until_over($alice->{access_token}, $both)->{ $both->name };
ok(!$alone->{said}{401}, 'without both it cannot tell, and never says 401');
poll_until('both to be named', sub { $both->get('/readyz')->{content} =~ /Redis: .*; PostgreSQL: / });
pass('and names both');
is($both->auth($carol->{access_token}), 401, 'what it knows to be revoked stays revoked');
$dba->do('ALTER ROLE gate LOGIN');
accepted($both, $alice, 'one of them is enough to serve again');
$redis->continue;

# ---- a server that goes away ----

my @patient = map { $_->wait_ready } start_node(undef, node => 'patient', max_staleness => PATIENCE . 'ms'), start_node($redis, node => 'patient2', max_staleness => PATIENCE . 'ms');
accepted($_, $alice, 'before, a node serves') for @patient;
my %logged = map { $_->name => length $_->log_contents } @patient;
my %held   = map { $_->name => lease_held($_) } @patient;
$redis->pause;
$ledger->stop('immediate');
my %lost = %{ ask_until_over($alice->{access_token}, @patient) };
for my $gate (@patient)
{
	my ($name, $lost) = ($gate->name, $lost{ $gate->name });
	cmp_ok($lost->{first}, '>=', $held{$name}, "$name: losing all servers costs no request until the lease is over");
	cmp_ok($lost->{said}{200}, '>', 0, "$name: it has served without them");
	is(join(' ', sort keys %{ $lost->{said} }), '200 503', "$name: then it cannot tell; it never says 401");
	like($gate->get('/readyz')->{content}, qr/the lease is over: .*PostgreSQL/, "$name: and why");
	is(scalar(() = substr($gate->log_contents, $logged{$name}) =~ /warning: PostgreSQL: /g), 1, "$name: which is logged once") or diag($gate->log_contents);
}
$ledger->start;
$redis->continue;
$_->disconnect for $dba, $app;
($dba, $app) = ($ledger->dbh, $ledger->dbh('app'));
for my $gate (@patient)
{
	accepted($gate, $newer, 'when they are back, the gate serves by itself');
	poll_until('it to say so', sub { substr($gate->log_contents, $logged{ $gate->name }) =~ /following PostgreSQL/ });
	pass('and says so');
}
revoke_user('newer');
refused($_, $newer, 'and hears of revocations') for @patient;

# ---- who may, and whom it believes ----

my $stranger = start_node(undef, node => 'stranger', pg => $ledger->conninfo('app'));
poll_until('the refusal to be said', sub { $stranger->log_contents =~ /PostgreSQL: .*permission denied|PostgreSQL: .*access/ });
is($stranger->auth($alice->{access_token}), 503, 'a role without access "node" gets no lease');
my $greedy = start_node(undef, node => 'greedy', max_staleness => '1min');
poll_until('the refusal to be said', sub { $greedy->log_contents =~ /PostgreSQL: .*max_staleness/ });
is($greedy->auth($alice->{access_token}), 503, 'nor one that asks for more than sessauth.max_lease');
is($both->stop, 0, 'a gate with both ends cleanly');
is(value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name = 'both' AND mirror IS NULL}), 0, 'and is forgotten');

$ledger->backup('base');
my $standby = Sessauth::Ledger->new('standby');
$standby->init_from_backup($ledger, 'base', has_streaming => 1);
$standby->start;
my $misled = start_gate($standby, undef, node => 'misled', arguments => [ '--ask-connections', 0 ]);
poll_until('the standby to be refused', sub { $misled->log_contents =~ /standby, which gives no leases/ });
is($misled->auth($alice->{access_token}), 503, 'a standby gives no lease');

# ---- several hosts ----

my $silent = IO::Socket::INET->new(Listen => 100, LocalAddr => '127.0.0.1') or die "listen: $@";
my %at = (silent => [ '127.0.0.1', $silent->sockport ], primary => [ $ledger->host, $ledger->port ], standby => [ $standby->host, $standby->port ]);
sub hosts
{
	my (@names) = @_;
	return join ' ', 'host=' . join(',', map { $at{$_}[0] } @names), 'port=' . join(',', map { $at{$_}[1] } @names),
		'user=gate dbname=postgres target_session_attrs=read-write';
}
for my $names ([qw(silent primary)], [qw(standby primary)], [qw(silent standby primary)])
{
	my $several = start_node(undef, pg => hosts(@$names));
	accepted($several, $alice, "of @$names the primary is found");
	$several->stop;
}
my $nowhere = start_node(undef, pg => hosts(qw(silent silent)));
poll_until('the reason', sub { $nowhere->log_contents =~ /PostgreSQL: timeout while connecting/ });
is($nowhere->stop, 0, 'a gate that waits for a host ends cleanly');

$ledger->stop('immediate');
$standby->promote;
accepted($misled, $alice, 'until it is promoted');

done_testing();
