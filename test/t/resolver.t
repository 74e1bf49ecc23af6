# resolver.t
#		A mirror that is named, to the worker and to nodes: through /etc/hosts, and by a name server that may say nothing.
#
# In a user, mount and network namespace of our own, where we may bind port 53 and be /etc/resolv.conf.

use strict;
use warnings;

# Before anything is loaded that opens files.
BEGIN
{
	my @namespace = qw(unshare --user --map-current-user --keep-caps --net --mount);
	if (!$ENV{SESSAUTH_NAMESPACE})
	{
		if (system("@namespace sh -c 'mount --bind /etc/hosts /etc/resolv.conf && ip link set lo up' >/dev/null 2>&1") != 0)
		{
			print "1..0 # SKIP an ordinary user may not have namespaces here (@namespace)\n";
			exit 0;
		}
		$ENV{SESSAUTH_NAMESPACE} = 1;
		exec @namespace, $^X, (map { "-I$_" } @INC), $0 or die "unshare: $!";
	}
}

use FindBin;
use lib $FindBin::Bin;
use HTTP::Tiny;
use IO::Socket::INET;
use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;
use Worker;

my $dir = PostgreSQL::Test::Utils::tempdir();
PostgreSQL::Test::Utils::append_to_file("$dir/resolv.conf", "nameserver 127.0.0.1\n");
PostgreSQL::Test::Utils::append_to_file("$dir/hosts", "127.0.0.1 localhost four.test\n::1 localhost six.test\n::1 both.test\n127.0.0.1 both.test\n");
for my $command ("mount --bind $dir/resolv.conf /etc/resolv.conf", "mount --bind $dir/hosts /etc/hosts", 'ip link set lo up')
{
	system($command) == 0 or die "$command: $?";
}

# The name server. It answers when we say so: until then the questions wait in its socket.
my $server = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1', LocalPort => 53) or die "port 53: $!";

sub question
{
	my $packet;
	return poll_until('a question', sub { $server->blocking(0); my $from = $server->recv($packet, 512); defined $from && $from ne '' && [ $from, $packet ] });
}

# The address 127.0.0.1 for a question of type A, and no address for others.
sub answer
{
	my ($from, $packet) = @{ $_[0] };
	my ($name) = substr($packet, 12) =~ /^((?:[^\0][^\0]*?)*\0)/s;
	my $asked = substr($packet, 12, length($name) + 4);
	my $is_a  = unpack('n', substr($asked, -4, 2)) == 1;
	$server->send(substr($packet, 0, 2) . pack('n5', 0x8180, 1, $is_a, 0, 0) . $asked
		  . ($is_a ? pack('n n n N n C4', 0xc00c, 1, 1, 60, 4, 127, 0, 0, 1) : ''), 0, $from);
	return;
}

my $ledger = new_ledger('resolver', config => "sessauth.heartbeat_interval = 20ms\n");
my $dba    = $ledger->dbh;
$dba->do(q{SELECT sessauth.create_signing_key()});
$dba->do(q{SELECT sessauth.create_tenant('acme')});
my $redis = Sessauth::Redis->start_server;
my $six   = Sessauth::Redis->start_server(config => [ '--bind', '::1' ]);

# ---- /etc/hosts ----

my $prefix = 0;
for my $case ([ $redis, 'localhost' ], [ $redis, 'four.test' ], [ $redis, 'both.test' ], [ $six, 'six.test' ], [ $six, '[::1]' ], [ $six, 'localhost' ])
{
	my ($where, $host) = @$case;
	my $family = $where == $six ? 'IPv6' : 'IPv4';
	my $name = 'm' . ++$prefix;
	$dba->do('SELECT sessauth.add_mirror(?, ?)', undef, $name, "redis://$host:" . $where->port . "/0?prefix=$name:");
	ok(wait_streaming($dba, $name), "$host is reached over $family");
	is(mirror_row($dba, $name)->{last_error}, undef, "$host: at the first try");
	my $gate = start_gate($ledger, undef, redis => "redis://$host:" . $where->port . "/0?prefix=$name:", redis_alone => 1, node => $name)->wait_ready;
	unlike($gate->log_contents, qr/Redis: /, "$host: a node, too");
	$gate->stop;
	$dba->do('SELECT sessauth.remove_mirror(?)', undef, $name);
}
ok(!defined $server->blocking(0) || !$server->recv(my $none, 512), 'for that nobody was asked');

# ---- a name server ----

$dba->do(q{SELECT sessauth.add_mirror('near', ?)}, undef, $redis->unix_url);
wait_streaming($dba, 'near');
$dba->do(q{SELECT sessauth.add_mirror('far', ?)}, undef, 'redis://redis.test:' . $redis->port . '/1');
question();
my $before = my $meanwhile = (reverse beats($redis))[0]{b};
my $failed = poll_until('the end of the first lookup', sub {
	my $beat = (reverse beats($redis))[0]{b};
	my $row  = mirror_row($dba, 'far');
	$meanwhile = $beat unless $row->{last_error};
	return $row->{last_error} && $row;
});
like($failed->{last_error}, qr/resolv/, 'a name server that says nothing is said to be the reason');
cmp_ok($meanwhile - $before, '>=', 3, 'another mirror has its beats while the lookup goes on');
ok(wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')})), 'and its revocations');

poll_until('the mirror to be found', sub {
	my $packet;
	my $asker = $server->recv($packet, 512);
	answer([ $asker, $packet ]) if $asker;
	return mirror_row($dba, 'far')->{state} eq 'streaming';
});
pass('when it answers, the mirror is found');

# A node whose PostgreSQL nobody finds: the look-up takes a minute, a question about a token only as long as it may.
my $token = login($dba, 'bob')->{access_token};
my @keys  = Sessauth::Gate::pinned_keys($dba);
PostgreSQL::Test::Utils::append_to_file("$dir/resolv.conf", "options timeout:60 attempts:1\n");
my $gate = Sessauth::Gate->start_gate(redis => 'redis://localhost:' . $redis->port . '/0?prefix=nobody:', pg => 'host=postgres.test dbname=postgres', arguments => \@keys);
for my $which ('first', 'next')
{
	my $answer = HTTP::Tiny->new(timeout => 20)->get($gate->url . '/auth', { headers => { Authorization => "Bearer $token" } });
	is($answer->{status}, 503, "the $which request is told that nobody can tell");
	like($answer->{content}, qr/^cannot tell: /, 'by the gate');
}
$gate->kill9;

$dba->do(q{SELECT sessauth.add_mirror('gone', 'redis://gone.test:1/0')});
question() for 1 .. 2;
$ledger->stop('fast');
pass('a server stops while a name is being looked up');
done_testing;
