# node_ask_bounds.t
#		A crowd of tokens that a node cannot decide alone, while PostgreSQL does not answer: it is asked about few at
#		a time, a bounded number waits, and the others are told at once that nobody can tell.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use IO::Select;
use Sessauth;
use Test::More;
use Worker;

# As src/node/ask.h and the gate's default have them.
use constant { WAITING => 256, CONNECTIONS => 4, CROWD => 300 };

my ($ledger, $dba) = worker_ledger('main', mirror => 0);

# Questions about tokens only: nobody gets a lease, so nothing is decided by a node alone.
$dba->do('REVOKE EXECUTE ON FUNCTION sessauth.lease FROM gate');
my @token = map { login($dba, "user$_")->{access_token} } 0 .. CROWD + 1;
my $gate  = start_gate($ledger, undef, admin => 1, arguments => [ '--ask-timeout', '60s' ]);
$gate->wait_auth($token[0], 200);
my $refused = $gate->metric('sessauth_node_asks_refused_total');
my $asked   = $gate->metric('sessauth_node_asked_postgres_total');

my $blocker = $ledger->dbh;
$blocker->begin_work;
$blocker->do('LOCK TABLE sessauth.session IN ACCESS EXCLUSIVE MODE');
my $most  = 0;
my @crowd = map { request($_) } 1 .. CONNECTIONS;
poll_until('the connections to be in use', sub { look() == CONNECTIONS });
push @crowd, map { request($_) } CONNECTIONS + 1 .. CROWD;
poll_until('those who find no room to be answered', sub { look(); answered() >= CROWD - WAITING - CONNECTIONS });
my @at_once = grep { defined $_->{answer} } @crowd;
my @waiting = grep { !defined $_->{answer} } @crowd;
is(scalar @at_once, CROWD - WAITING - CONNECTIONS, 'who finds no room to wait is answered while PostgreSQL is silent');
is(scalar(grep { $_->{answer} =~ m{^HTTP/1\.1 503 .*^Retry-After: 1\r$}ms } @at_once), scalar @at_once, 'that nobody can tell');

# Who asks what is being waited for already takes no room.
my $same  = request($waiting[-1]{user});
my $other = request(CROWD + 1);
poll_until('another one to be refused', sub { look(); defined read_answer($other) });
like($other->{answer}, qr{^HTTP/1\.1 503 }, 'another one is refused, too');
ok(!defined read_answer($same), 'but not another request with a token that somebody waits for');
is(answered(), scalar @at_once, 'the others go on waiting');

$blocker->rollback;
poll_until('everybody to be answered', sub { look(); read_answer($same); answered() == CROWD && defined $same->{answer} });
is(scalar(grep { $_->{answer} =~ m{^HTTP/1\.1 200 .*^X-Sessauth-User: user$_->{user}\r$}ms } @waiting, $same), @waiting + 1,
	'when PostgreSQL answers, all who have waited are let in, each as who he is');
is($gate->metric('sessauth_node_asked_postgres_total') - $asked, scalar @waiting, 'after one question each');
is($gate->metric('sessauth_node_asks_refused_total') - $refused, @at_once + 1, 'those that were not asked are counted');
is($most, CONNECTIONS, 'there were never more at a time than there may be connections');
is($gate->auth($token[ $at_once[0]{user} ]), 200, 'who was refused may come again');
is($gate->stop, 0, 'the gate ends cleanly');

done_testing();

# ---- helpers ----

# The request of a user, on its way.
sub request
{
	my ($user) = @_;
	my $socket = $gate->connect_socket;
	print $socket "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $token[$user]\r\n\r\n";
	return { user => $user, socket => $socket };
}

# Its answer, as far as there is one.
sub read_answer
{
	my ($request) = @_;
	sysread($request->{socket}, $request->{answer}, 4096) if !defined $request->{answer} && IO::Select->new($request->{socket})->can_read(0);
	return $request->{answer};
}

sub answered { return scalar grep { defined read_answer($_) } @crowd; }

# How many the server is being asked about at this moment.
sub asking
{
	return value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'gate' AND state = 'active' AND query LIKE '%sessauth.verify%'});
}

# The same, and remembers the most that there ever were.
sub look { my $now = asking(); $most = $now if $now > $most; return $now; }
