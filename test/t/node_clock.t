# node_clock.t
#		A node whose wall clock is wrong, or is set while it runs, decides as all others do: time is the ledger's. Over Redis, and
#		over PostgreSQL. That the clock is wrong is seen in what the node tells HTTP clients.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Publisher;
use Test::More;
use Time::HiRes ();
use Time::Piece ();
use Worker;

my $ledger = Sessauth::Publisher->new(redis => Sessauth::Redis->start_server);
my $dir    = private_dir();
my $clock  = "$dir/wall_clock";
my %wrong  = (environment => { LD_PRELOAD => ($ENV{TESTDIR} // '.') . '/build/tools/wall_clock.so', WALL_CLOCK => $clock });
my %clocks = (slow => -600, fast => 600, 'years behind' => -100_000_000, 'years ahead' => 100_000_000);
my $token  = $ledger->token(user => 'alice', exp => $ledger->now_s + 3600);

for my $how (sort keys %clocks)
{
	set_clock($clocks{$how});
	my $gate = $ledger->start_gate(max_staleness => '2s', %wrong);
	poll_until('the gate', sub { $ledger->work; $gate->is_ready });
	goes_by($gate, $clocks{$how}, $how);
	decides($gate, $how);

	# Stepped back and forth; between nonces and answers, and while it waits for either.
	my %said;
	for my $step (0, -600, 600, -100_000_000, 100_000_000, 0)
	{
		set_clock($step);
		goes_by($gate, $step, "$how, then set to $step s");
		for (1 .. 5) { $ledger->work; $said{ $gate->auth($token) }++ }
		decides($gate, "$how, then set to $step s");
	}
	is_deeply([ keys %said ], [200], "$how: no step cost a request");

	# A lease that is over is over, whatever the clock says.
	set_clock(-600);
	poll_until('the lease to be over', sub { !$gate->is_ready });
	set_clock($_), is($gate->auth($token), 503, "$how: no clock brings the lease back") for -100_000_000, 100_000_000;
	is($gate->stop, 0, "$how: it ends cleanly");
}

# ---- PostgreSQL alone ----

my ($server, $dba) = worker_ledger('clock', mirror => 0);
value($dba, q{SELECT sessauth.create_tenant('brief', '{"access_ttl": "1s"}')});
set_clock(-100_000_000);
my $gate = start_gate($server, undef, arguments => [ '--ask-connections', 0 ], %wrong)->wait_ready;
my $live = login($dba, 'live')->{access_token};
my %said;
for my $step (-100_000_000, 100_000_000)
{
	set_clock($step);
	goes_by($gate, $step, "PostgreSQL, $step s");
	my $revoked = login($dba, "user$step")->{access_token};
	$gate->wait_auth($revoked, 200);
	value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "user$step");
	$gate->wait_auth($revoked, 401);
	$said{ $gate->auth($live) }++;
	my $brief = login($dba, "user$step", 'brief')->{access_token};
	poll_until('it to expire', sub { $said{ $gate->auth($live) }++; $gate->get('/auth', $brief)->{content} eq "expired\n" });
	is($gate->auth($revoked), 401, "PostgreSQL, $step s: tokens are revoked, expire and stay so");
}
is_deeply([ keys %said ], [200], 'PostgreSQL: no step cost a request');
$server->stop('immediate');
poll_until('the lease to be over', sub { !$gate->is_ready });
set_clock($_), is($gate->auth($live), 503, 'PostgreSQL: no clock brings the lease back') for -100_000_000, 100_000_000;

done_testing;

# One token that has just expired by the ledger's time, one that has not, one of its future, and one that was revoked.
sub decides
{
	my ($gate, $when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $now     = $ledger->now_s;
	my %expires = (200 => $ledger->token(iat => $now - 60, exp => $now + 60), 401 => $ledger->token(iat => $now - 60, exp => $now - 2));
	my $user    = 'user' . $ledger->{n};
	my $revoked = $ledger->token(user => $user);
	$ledger->revoke(user => 'acme', $user, 2);
	poll_until('the revocation', sub { $ledger->work; $gate->auth($revoked) == 401 });
	is(join(' ', map { $gate->auth($expires{$_}) } 200, 401), '200 401', "$when: tokens expire by the ledger's time");
	is($gate->auth($ledger->token(iat => $now + 300, exp => $now + 600)), 503, "$when: and begin by it");
	return;
}

# That its wall clock is so many seconds ahead.
sub goes_by
{
	my ($gate, $ahead, $when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = int(Time::HiRes::time() + $ahead);
	my $shown  = Time::Piece->strptime($gate->get('/healthz')->{headers}{date}, '%a, %d %b %Y %H:%M:%S GMT')->epoch;
	my $after  = int(Time::HiRes::time() + $ahead);
	ok($before <= $shown && $shown <= $after, "$when: the wall clock is wrong") or diag("$before <= $shown <= $after");
	return;
}

# In seconds ahead; in place, because the gate has mapped it.
sub set_clock
{
	my ($ahead) = @_;
	open my $file, (-e $clock ? '+<' : '>'), $clock or die "$clock: $!";
	syswrite($file, pack('q', $ahead * 1_000_000)) == 8 or die "$clock: $!";
	close $file;
	return;
}
