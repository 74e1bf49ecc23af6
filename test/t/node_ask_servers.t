# node_ask_servers.t
#		Which server a node's questions about tokens may be answered by, and the connections for them: a standby
#		says nothing, whatever it believes; the primary is found among several hosts; connections come and go.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba) = worker_ledger('main', mirror => 0, config => "max_connections = 40\n", init => { allows_streaming => 1 });
my $app = $ledger->dbh('app');

# Questions about tokens only: nobody gets a lease, so nothing is decided by a node alone.
$dba->do('REVOKE EXECUTE ON FUNCTION sessauth.lease(text, interval, uuid, bigint, bigint) FROM gate');
my %token = map { $_ => login($dba, $_)->{access_token} } qw(alice bob carol);
revoke_user('bob');

$ledger->backup('base');
my $standby = Sessauth::Ledger->new('standby');
$standby->init_from_backup($ledger, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'sessauth.standby_verify = on');
$standby->start;
$ledger->wait_for_catchup($standby, 'replay', $ledger->lsn('insert'));
# No node takes keys from a standby, and without keys it does not ask.
my @pinned = Sessauth::Gate::pinned_keys($dba);
my %at = (primary => $ledger, standby => $standby);

my $kept = start_node('primary');
poll_until('the keys', sub { $kept->auth($token{alice}) == 200 });

subtest 'a standby' => sub {
	is(value($standby->dbh('gate'), 'SELECT outcome FROM sessauth.verify(?)', $token{alice}), 'active', 'its administrator lets it answer');
	is(value($standby->dbh('gate'), 'SELECT outcome FROM sessauth.verify(?)', $token{bob}), 'revoked', 'from what it has replayed');
	my $gate = start_node('standby');
	poll_until('it to have been asked', sub { is_untold($gate, $_) for qw(alice bob carol); metric($gate, 'sessauth_node_ask_failures_total') > 2 });
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	revoke_user('carol');
	is(value($standby->dbh('gate'), 'SELECT outcome FROM sessauth.verify(?)', $token{carol}), 'active', 'it says yes to what the primary has revoked');
	my $failures = metric($gate, 'sessauth_node_ask_failures_total');
	poll_until('it to have been asked again', sub { is_untold($gate, 'carol'); metric($gate, 'sessauth_node_ask_failures_total') > $failures });
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	is_deeply([ map { my $decision = $_; grep { $_ } map { metric($gate, qq{sessauth_gate_requests_total{decision="$decision",source="$_"}}) } qw(local cache postgres) } qw(active revoked) ],
		[], 'the node says neither yes nor no by it');
	like($gate->log_contents, qr/questions about tokens: PostgreSQL: it cannot tell; name the primary/, 'and tells the administrator what to do');
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'a standby and the primary' => sub {
	my $gate = start_node('standby', 'primary');
	poll_until('the primary to answer', sub { answer($gate, 'alice') == 200 });
	is(answer($gate, $_), 401, "$_ is refused by it") for qw(bob carol);
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'connections for questions' => sub {
	my $failures = metric($kept, 'sessauth_node_ask_failures_total');
	is(answer($kept, 'alice'), 200, 'one is open');
	my @open = asking();
	cmp_ok(scalar @open, '>=', 1, 'the server knows it');
	cmp_ok(scalar @open, '<=', 4, 'and not more than there may be');
	value($dba, 'SELECT pg_terminate_backend(?)', $_) for @open;
	poll_until('them to have ended', sub { my %pid = map { $_ => 1 } asking(); !grep { $pid{$_} } @open });
	is(answer($kept, 'alice'), 200, 'one that the server has ended is replaced') for 1 .. 8;
	is(metric($kept, 'sessauth_node_ask_failures_total'), $failures, 'which is no failure');
	cmp_ok(scalar(asking()), '>=', 1, 'there are connections again');
	poll_until('them to be closed when nobody asks', sub { !asking() });
	pass('without questions there are none');
	is(answer($kept, 'alice'), 200, 'and the next question brings one back');
	is(answer($kept, 'carol'), 401, 'which knows what was revoked');
};

$ledger->stop('immediate');
my $promoted = start_node('primary', 'standby');
$standby->promote;
poll_until('the new primary to answer', sub { answer($promoted, 'alice') == 200 });
is(answer($promoted, 'bob'), 401, 'after a failover the new primary answers');

done_testing();

# ---- helpers ----

sub revoke_user { return value($app, q{SELECT sessauth.revoke_user('acme', ?)}, $_[0]); }

sub start_node
{
	my (@names) = @_;
	my $conninfo = join ' ', 'host=' . join(',', map { $at{$_}->host } @names), 'port=' . join(',', map { $at{$_}->port } @names),
		'user=gate dbname=postgres', @names > 1 ? 'target_session_attrs=read-write' : ();
	return start_gate($ledger, undef, pg => $conninfo, arguments => [ '--admin-listen', '127.0.0.1:0', @pinned ]);
}

sub answer { my ($gate, $user) = @_; return $gate->auth($token{$user}); }

# Dies at the first answer that is one.
sub is_untold
{
	my ($gate, $user) = @_;
	my $status = answer($gate, $user);
	die "a standby has decided about $user: $status" if $status != 503;
	return;
}

# The processes of the server that have answered questions about tokens.
sub asking
{
	return map { $_->{pid} } rows($dba, q{SELECT pid FROM pg_stat_activity WHERE usename = 'gate' AND query LIKE '%sessauth.verify%'});
}

sub metric { my ($gate, $name) = @_; return $gate->metric($name); }
