# node_reconnect.t
#		The connections of a node: over a unix socket, made again when they are cut, and not again and again at once
#		to a server that takes them and hangs up.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use IO::Select;
use IO::Socket::INET;
use Sessauth;
use Sessauth::Publisher;
use Test::More;
use Worker;

my ($ledger, $dba) = worker_ledger('main', mirror => 0);
my $redis = Sessauth::Redis->start_server;
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->unix_url);
wait_streaming($dba);

subtest 'Redis at a unix socket' => sub {
	my $gate  = start_gate($ledger, undef, redis => $redis->unix_url, redis_alone => 1)->wait_ready;
	my %login = map { $_ => login($dba, $_)->{access_token} } qw(alice bob);
	$gate->wait_auth($login{$_}, 200) for sort keys %login;
	value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
	is($gate->wait_auth($login{alice}, 401), 401, 'a revocation arrives');
	is($gate->auth($login{bob}), 200, 'and no other');
	$redis->stop;
	poll_until('the node to be sure no more', sub { $gate->auth($login{bob}) == 503 });
	like($gate->get('/readyz')->{content}, qr/Redis: could not connect: /, 'without Redis it says what is wrong');
	$redis->restart;
	is($gate->wait_auth($login{bob}, 200), 200, 'when Redis is back, so is the node');
	value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')});
	is($gate->wait_auth($login{bob}, 401), 401, 'and revocations arrive again');
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'connections that are cut' => sub {
	my $gate = start_gate($ledger, undef, redis => $redis->unix_url, admin => 1, arguments => [ '--ask-connections', 0 ])->wait_ready;
	my ($of_redis, $of_postgres) = map { "sessauth_node_${_}_connects_total" } qw(redis postgres);
	poll_until('all connections', sub { $gate->metric($of_redis) == 2 && $gate->metric($of_postgres) == 1 });
	pass('two to Redis and one for leases are made at the start');
	$redis->command('CLIENT', 'KILL', 'TYPE', 'normal');
	poll_until('two new ones to Redis', sub { $gate->metric($of_redis) == 4 });
	is($gate->metric($of_postgres), 1, 'both to Redis are replaced, and nothing else');
	$dba->do(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'});
	poll_until('a new one for leases', sub { $gate->metric($of_postgres) == 2 });
	is($gate->metric($of_redis), 4, 'so is the one for leases');
	my $token = login($dba, 'carol')->{access_token};
	is($gate->wait_auth($token, 200), 200, 'the node is well');
	value($dba, q{SELECT sessauth.revoke_user('acme', 'carol')});
	is($gate->wait_auth($token, 401), 401, 'and hears of revocations');
	is($gate->stop, 0, 'it ends cleanly');
};

# The pauses double from 50 ms to 2 s and are shortened by half at most, by chance; so these are the shortest that there can be
# between the first connection and the seventh.
use constant SHORTEST_MS => 25 + 50 + 100 + 200 + 400 + 800;

subtest 'servers that hang up' => sub {
	my $publisher = Sessauth::Publisher->new(redis => $redis);
	my %listener  = map { $_ => IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 50) // die "listen: $@" } qw(at_once after_login postgres);
	my %at        = map { $_ => '127.0.0.1:' . $listener{$_}->sockport } keys %listener;
	my @keys      = ('--jwks', $publisher->write_jwks, '--link-key-file', $publisher->write_link_key);
	my $begun     = now_ms();
	my @gates     = (
		Sessauth::Gate->start_gate(redis => "redis://$at{at_once}", arguments => \@keys,
			pg => 'host=127.0.0.1 port=' . $listener{postgres}->sockport . ' user=gate dbname=postgres sslmode=disable gssencmode=disable'),
		Sessauth::Gate->start_gate(redis => "redis://$at{after_login}", arguments => \@keys));

	# A gate has two connections to Redis, each with pauses of its own.
	my %wanted = (at_once => 14, after_login => 14, postgres => 7);
	my (%taken, %took);
	my $select = IO::Select->new(values %listener);
	poll_until('them to have connected often', sub {
		for my $socket ($select->can_read(0.1))
		{
			my ($name) = grep { $socket == $listener{$_} } keys %listener;
			if (!$name)
			{
				# Of the login: what is behind it is not heard any more.
				syswrite($socket, "+OK\r\n") if sysread($socket, my $bytes, 65536);
				$select->remove($socket);
				close $socket;
				next;
			}
			my $connection = $socket->accept or next;
			$took{$name} = now_ms() - $begun if ++$taken{$name} == $wanted{$name};
			$select->add($connection) if $name eq 'after_login';
		}
		return keys %took == keys %wanted;
	});
	cmp_ok($took{$_}, '>=', SHORTEST_MS, "$_: the pauses between $wanted{$_} connections grow") for sort keys %wanted;
	is($_->stop, 0, 'a gate in such a pause ends cleanly') for @gates;
};

done_testing();
