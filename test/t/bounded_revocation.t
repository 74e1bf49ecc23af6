# bounded_revocation.t
#		Guarantee G1 with its number: once a revocation has committed, no node accepts the token after max_staleness, whatever
#		fails meanwhile; nor at any time after its receipt; and no live token is refused for it.
#
# What counts is when a request began: before the bound it may have been accepted, however late its answer comes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Proxy;
use Test::More;
use Worker;

use constant STALENESS => 1000;

my ($ledger, $dba, $redis) = worker_ledger('bounded', config => "sessauth.max_lease = @{[STALENESS]}ms\n");
my $app   = $ledger->dbh('app');
my $proxy = Sessauth::Proxy->start_proxy($ledger->host . '/.s.PGSQL.' . $ledger->port);
my %over_postgres = (pg => 'host=127.0.0.1 port=' . $proxy->port . ' user=gate dbname=postgres', arguments => [ '--ask-connections', 0 ]);
my @gates = (
	start_node('Redis', $redis, redis_alone => 1),
	start_node('PostgreSQL', undef, %over_postgres),
	start_node('both', $redis, %over_postgres));
my $live = login($dba, 'live')->{access_token};
my $worker;

# What is done before the revocation, what once the bound has passed, and what when no node has accepted the token for long.
my @faults = (
	[ 'nothing fails', sub { }, sub { }, sub { } ],
	[ 'Redis stands still', sub { $redis->pause }, sub { }, sub { $redis->continue } ],
	[ 'the worker stands still', sub { $worker = pause_worker($dba) }, sub { }, sub { kill 'CONT', $worker } ],
	[ 'answers of PostgreSQL come late', \&hold_calls, sub { $proxy->hold }, sub { $proxy->release } ],
	[ 'Redis stands still, and answers of PostgreSQL come late', sub { $redis->pause; hold_calls() }, sub { $proxy->hold }, \&let_through ],
	[ 'the nodes stand still, and then hear nothing', sub { $_->pause for @gates, $redis, $proxy }, sub { $_->continue for @gates }, sub { $proxy->continue; let_through() } ]);

for my $fault (@faults)
{
	my ($what, $begin, $late, $end) = @$fault;
	my $token = login($dba, $what)->{access_token};
	$_->wait_auth($token, 200) for @gates;
	my %seen = (accepted => {}, said => {}, after_receipt => 0);

	$begin->();
	my $event = value($app, q{SELECT sessauth.revoke_user('acme', ?)}, $what);
	my $committed = now_ms();
	my $bound = $committed + STALENESS;
	ask(\%seen, $token, $event, sub { now_ms() > $bound });
	$late->();
	ask(\%seen, $token, $event, sub { now_ms() > $bound + STALENESS / 2 && !said(\%seen, 200) });
	$end->();
	ask(\%seen, $token, $event, sub { $seen{confirmed} && said(\%seen, 401) == @gates && said(\%seen, 200, 'live') == @gates });

	for my $gate (map { $_->name } @gates)
	{
		my $accepted = ($seen{accepted}{$gate} // $committed) - $committed;
		cmp_ok($accepted, '<', STALENESS, "$what: $gate accepts nothing that is asked later than max_staleness after the commit");
	}
	is($seen{after_receipt}, 0, "$what: nor does any node after the receipt");
	is(join(' ', grep { !/^(?:200|503)$/ } keys %{ $seen{said} }), '', "$what: a live token is never refused");
}

done_testing();

# Each without questions about single tokens, which would hide that there is no lease.
sub start_node
{
	my ($name, $redis, %options) = @_;
	return start_gate($ledger, $redis, node => $name, max_staleness => STALENESS . 'ms', %options)->wait_ready;
}

# Asks all nodes that run about both tokens, without a pause, until the condition holds.
sub ask
{
	my ($seen, $token, $event, $condition) = @_;
	my $given_up = now_ms() + 1000 * $Sessauth::Process::deadline;
	until ($condition->())
	{
		die 'gave up waiting' if now_ms() > $given_up;
		for my $gate (grep { !$_->{paused} } @gates)
		{
			my $begun  = now_ms();
			my $status = $gate->auth($token);
			$seen->{accepted}{ $gate->name } = $begun if $status == 200;
			$seen->{after_receipt}++ if $status == 200 && $seen->{confirmed};
			my $live_status = $gate->auth($live);
			$seen->{said}{$live_status}++;
			$seen->{last}{ $gate->name } = { revoked => $status, live => $live_status };
		}
		$seen->{confirmed} ||= value($app, q{SELECT sessauth.await_receipt(?, '0')}, $event);
	}
	return;
}

# How many nodes said so the last time.
sub said
{
	my ($seen, $status, $token) = @_;
	return scalar grep { $_->{ $token // 'revoked' } == $status } values %{ $seen->{last} };
}

# Returns when both nodes have asked PostgreSQL, and it has answered, but not yet to them.
sub hold_calls
{
	poll_until('the calls', sub {
		$proxy->hold;
		my $now   = value($dba, 'SELECT clock_timestamp()');
		my $calls = sub { value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'gate' AND query ~ 'sessauth\.lease' AND state = 'idle' AND query_start > ?}, $now) };
		return 1 if eval { poll_until('one of each', sub { $calls->() == 2 }, 1) };
		$proxy->release;	# an answer was on its way, and whoever waits for it does not ask again
		return 0 });
	return;
}

sub let_through { $redis->continue; $proxy->release; return; }
