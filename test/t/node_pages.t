# node_pages.t
#		A node that lacks many revocations reads them by the page, and believes no page more than the stream.
#
# There is no PostgreSQL here: the test is the worker (Sessauth::Publisher), and it works only when told to.

use strict;
use warnings;

use Sessauth::Process qw(poll_until);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis = Sessauth::Redis->start_server;
my $count = 0;

# All of it: the stream, and what it still has when everything in pages is gone.
my $ledger = ledger();
fill($ledger, 2100);
my $whole = $redis->command('DUMP', $ledger->{revocations_key});
trim($ledger);
my $trimmed = $redis->command('DUMP', $ledger->{revocations_key});

subtest 'what only pages have is known' => sub {
	my $gate = ready($ledger);
	refused_of($ledger, $gate, 1, 1000, 1001, 2000, 2001, 2100);
	is($gate->auth($ledger->token), 200, 'and nobody else is refused');

	$ledger->revoke(user => 'acme', 'late', 2);
	poll_until('a later one to be refused', sub { $ledger->work; $gate->auth($ledger->token(user => 'late')) == 401 });
	pass('the stream is read on behind them');
	$ledger->{n}--;
};

subtest 'each kind of revocation comes by the page' => sub {
	my $ledger = ledger();
	my $kid    = $ledger->kid('second');
	my $sid    = '11111111-0000-4000-8000-000000000001';
	my @ids = map { $ledger->add($ledger->number(@$_)) } [ session => 'acme', 'alice', $sid ], [ user => 'a:b}{', '%', 9 ], [ tenant => 'globex', 3 ], [ key => $kid ];
	fill($ledger, 2100 - @ids);
	trim($ledger);
	my $gate = ready($ledger);
	is($gate->auth($ledger->token(user => 'alice', sid => $sid)),                       401, 'of a session');
	is($gate->auth($ledger->token(user => 'alice')),                                    200, 'and of no other one');
	is($gate->auth($ledger->token(tenant => 'a:b}{', user => '%', epoch => 8)),         401, 'of a user');
	is($gate->auth($ledger->token(tenant => 'a:b}{', user => '%', epoch => 9)),         200, 'up to the epoch');
	is($gate->auth($ledger->token(tenant => 'globex', tepoch => 2)),                    401, 'of a tenant');
	is($gate->auth($ledger->token(key => 'second')),                                    401, 'of a key');
};

# ---- what somebody who writes to Redis can do ----

my %wrong = (
	'is missing'                    => sub { $redis->command('DEL', page($ledger, 1001)) },
	'is of another type'            => sub { $redis->command('DEL', page($ledger, 1001)); $redis->command('SET', page($ledger, 1001), 'x') },
	'has no MAC of the link key'    => sub { $ledger->put_page(1001, mac => 'A' x 43) },
	'has no MAC'                    => sub { $redis->command('HDEL', page($ledger, 1001), 'm') },
	'has no id'                     => sub { $ledger->put_page(1001, id => 'nonsense') },
	'lies in the place of another'  => sub { $ledger->put_page(1, key => page($ledger, 1001)) },
	'is short'                      => sub { $ledger->put_page(1001, body => body($ledger, 1001, 999)) },
	'says what cannot be'           => sub { $ledger->put_page(1001, body => pack('(N/a*)9', 'user', '', ('') x 3, (1) x 4) . body($ledger, 1002, 999)) },
	'is cut off within an entry'    => sub { $ledger->put_page(1001, body => substr(body($ledger, 1001, 1000), 0, -1)) },
	'is nothing but a length'       => sub { $ledger->put_page(1001, body => "\xff\xff\xff\xff") });
for my $how (sort keys %wrong)
{
	subtest "a page that $how" => sub {
		restore($trimmed);
		$ledger->put_page(1001);
		$wrong{$how}->();
		my $gate = $ledger->start_gate;
		poll_until('some nonces', sub { answered($ledger, $gate) > 2 });
		isnt($gate->get('/readyz')->{status}, 200, 'does not stand for what the stream has lost');

		# Back in its place, but before what the node has read: it has to begin anew.
		restore($whole);
		poll_until('the node', sub { $ledger->work; $gate->is_ready });
		refused_of($ledger, $gate, 1, 1001, 2000, 2100);
	};
}

for my $id ('18446744073709551615-18446744073709551615', '0-1')
{
	subtest "a page that leads to $id" => sub {
		restore($trimmed);
		$redis->command('DEL', page($ledger, 1001));
		$ledger->put_page($_, id => $id) for 1, 1001;
		my $gate = ready($ledger);
		$ledger->revoke(user => 'acme', 'late', 2);
		poll_until('what comes then to be refused', sub { $ledger->work; $gate->auth($ledger->token(user => 'late')) == 401 });
		poll_until('the node', sub { $ledger->work; $gate->is_ready });
		refused_of($ledger, $gate, 1, 1500, 2100);
		$ledger->{n}--;
	};
}

subtest 'a node that may not read pages reads the stream' => sub {
	restore($whole);
	$redis->command('ACL', 'SETUSER', 'reader', 'on', '>secret', '~*', '+@all', '-hmget');
	my $password = "$ledger->{dir}/password";
	open my $file, '>', $password or die $!;
	chmod 0600, $password;
	print $file "secret\n";
	close $file;
	my $gate = ready($ledger, redis => $ledger->url =~ s{//}{//reader@}r, arguments => [ '--redis-password-file', $password ]);
	refused_of($ledger, $gate, 1, 2100);
};

subtest 'a page of another generation is not read' => sub {
	my $old = page($ledger, 1);
	$ledger->change_generation;
	fill($ledger, 2100);
	trim($ledger);
	$redis->command('COPY', $old, page($ledger, 1), 'REPLACE');
	my $gate = $ledger->start_gate;
	poll_until('some nonces', sub { answered($ledger, $gate) > 2 });
	isnt($gate->get('/readyz')->{status}, 200, 'in the place of one of this');
};

done_testing;

# ---- helpers ----

sub ledger { return Sessauth::Publisher->new(redis => $redis, prefix => 't' . ++$count . ':'); }

sub fill
{
	my ($ledger, $n) = @_;
	for (1 .. $n)
	{
		$ledger->revoke(user => 'acme', 'user' . ($ledger->{n} + 1), 2);
		$ledger->put_page($ledger->{n} - 999) if $ledger->{n} % 1000 == 0;
	}
	return;
}

sub trim
{
	my ($ledger) = @_;
	$redis->command('XTRIM', $ledger->{revocations_key}, 'MAXLEN', $ledger->{n} % 1000);
	return;
}

sub restore { return $redis->command('RESTORE', $ledger->{revocations_key}, 0, $_[0], 'REPLACE'); }

sub page { my ($ledger, $first) = @_; return "$ledger->{prefix}sessauth:page:$ledger->{g}:$first"; }

sub body
{
	my ($ledger, $first, $entries) = @_;
	return join '', map { my %field = @{ $ledger->{entries}{ $ledger->{g} }{$_} }; pack '(N/a*)9', @field{qw(k tid uid sid kid epoch eid at until)} }
		$first .. $first + $entries - 1;
}

sub ready
{
	my ($ledger, %options) = @_;
	my $gate = $ledger->start_gate(jwks => [qw(main second)], %options);
	poll_until('the gate to be ready', sub { $ledger->work; $gate->is_ready });
	return $gate;
}

# Works, and returns how many nonces of this node were answered until now.
sub answered
{
	my ($ledger, $gate) = @_;
	$ledger->work;
	$gate->{nonces}{$_} = 1 for grep { $_ } map { $_->{nonce} } values %{ $ledger->nodes };
	return scalar keys %{ $gate->{nonces} };
}

sub refused_of
{
	my ($ledger, $gate, @numbers) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join(' ', map { $gate->auth($ledger->token(user => "user$_")) } @numbers), join(' ', (401) x @numbers), 'everybody is refused who was revoked');
	return;
}
