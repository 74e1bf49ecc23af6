# redis_tls.t
#		rediss://, for the worker and for the gate: they follow a Redis whose certificate
#		is right, say what is wrong with any other, and wait for none.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use IO::Select;
use IO::Socket::INET;
use Sessauth;
use Sessauth::Authority;
use Test::More;
use Worker;

my ($ledger, $dba) = worker_ledger('tls', mirror => 0);
my $authority = Sessauth::Authority->new;
my $stranger  = Sessauth::Authority->new;
my $trusted   = '?cacert=' . $authority->file;
my $names     = 'DNS:localhost,IP:127.0.0.1';
my $count     = 0;

# ---- as it should be ----

my ($certificate, $certificate_key) = $authority->issue($names);
my $redis = Sessauth::Redis->start_server(tls => [ $certificate, $certificate_key ]);
add_mirror('main', $redis->tls_url . $trusted);
wait_streaming($dba);
my $gate = gate($redis->tls_url('127.0.0.1') . $trusted);
$gate->wait_ready;
pass('worker and gate follow a Redis over TLS, by its name and by its address');
my $login = login($dba, 'alice');
$gate->wait_auth($login->{access_token}, 200);
value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
is($gate->wait_auth($login->{access_token}, 401), 401, 'a revocation goes all the way');

# More than the buffers of any socket hold, there and back.
$redis->pause;
$dba->do(q{SELECT count(sessauth.revoke_user('acme', 'u' || i)) FROM generate_series(1, 12000) i});
$redis->continue;
wait_published($dba, $redis);
check_stream($dba, $redis, 'after twelve thousand revocations at once');
$gate->wait_ready;
pass('the gate has read them all');

my $second = login($dba, 'alice');
$redis->restart;
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')}));
is($gate->wait_auth($second->{access_token}, 401), 401, 'a restart of Redis is survived');

# ---- as it should not be ----

my $elsewhere = Sessauth::Redis->start_server(tls => [ $authority->issue('DNS:redis.example,IP:192.0.2.1') ]);
refused('a certificate of another host', $elsewhere->tls_url . $trusted, qr/certificate was refused: hostname mismatch/i);
refused('a certificate of another address', $elsewhere->tls_url('127.0.0.1') . $trusted, qr/certificate was refused: IP address mismatch/i);
refused('a certificate of a CA that nobody trusts', $redis->tls_url . '?cacert=' . $stranger->file, qr/certificate was refused: .*issuer certificate/);
refused('a CA that the system does not know', $redis->tls_url, qr/certificate was refused: .*issuer certificate/);
my $expired = Sessauth::Redis->start_server(tls => [ $authority->issue($names, expired => 1) ]);
refused('an expired certificate', $expired->tls_url . $trusted, qr/certificate was refused: certificate has expired/);
my $plain = Sessauth::Redis->start_server;
refused('a server without TLS', $plain->url =~ s/^redis:/rediss:/r . $trusted, qr/TLS failed|closed the connection|timeout/);
refused('a server with TLS, spoken to without', 'redis://127.0.0.1:' . $redis->port . '/0', qr/closed the connection|not one of Redis|does not answer like Redis|broke|could not/);
refused('a file of CAs that is not there', $redis->tls_url . '?cacert=/nowhere/ca.pem', qr/CA certificates cannot be read/);
for my $server ($elsewhere, $expired, $plain)
{
	is_deeply($server->command('KEYS', '*'), [], 'nothing was written to a server that was refused');
}

# ---- a server that wants to know who asks ----

my $strict = Sessauth::Redis->start_server(tls => [ $authority->issue($names), $authority->file ]);
my ($client, $client_key) = $authority->issue('DNS:worker');
refused('no certificate where one is demanded', $strict->tls_url . $trusted, qr/TLS failed: .*certificate required/);
my ($foreign, $foreign_key) = $stranger->issue('DNS:worker');
refused('a certificate of a CA that the server does not trust', $strict->tls_url . "$trusted&cert=$foreign&key=$foreign_key", qr/TLS failed: .*unknown ca/);
refused('a key that is not the certificate\'s', $strict->tls_url . "$trusted&cert=$client&key=$foreign_key", qr/private key .*does not fit/);
chmod 0644, $client_key or die;
refused('a private key that others can read', $strict->tls_url . "$trusted&cert=$client&key=$client_key", qr/private key .*readable by others/);
chmod 0600, $client_key or die;
add_mirror('strict', $strict->tls_url . "$trusted&cert=$client&key=$client_key");
wait_streaming($dba, 'strict');
gate($strict->tls_url . "$trusted&cert=$client&key=$client_key")->wait_ready;
pass('with the right certificate of their own, both are let in');
remove_mirror('strict');

# ---- a handshake that does not end ----

# Between us and a good server: passes on so many bytes of what the server says, and then cuts, or waits.
for my $case ([ cut => 100 ], [ cut => 700 ], [ cut => 0 ], [ stall => 0 ], [ stall => 700 ])
{
	my ($how, $bytes) = @$case;
	my $port = free_port();
	my $proxy = Sessauth::Process->start("proxy$how$bytes", [ $^X, '-e', <<'END', $port, $redis->port, $how, $bytes ]);
		use IO::Select; use IO::Socket::INET;
		my ($port, $server, $how, $left) = @ARGV;
		$SIG{CHLD} = 'IGNORE';
		my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1) or die;
		$| = 1;
		print "listening\n";
		while (my $client = $listener->accept)
		{
			if (fork) { close $client; next }
			my $redis = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $server) or die;
			my $select = IO::Select->new($client, $redis);
			while (1)
			{
				for my $from ($select->can_read)
				{
					my $got = sysread($from, my $bytes, $from == $client ? 65536 : $left || 1) or exit;
					syswrite($redis, $bytes), next if $from == $client;
					syswrite($client, $bytes) if $left;
					$left -= $left ? $got : 0;
					next if $left;
					exit if $how eq 'cut';
					$select->remove($redis);
				}
			}
		}
END
	poll_until('the proxy to listen', sub { $proxy->log_contents =~ /listening/ });
	my $event;
	refused("a handshake that ends after $bytes bytes ($how)", "rediss://localhost:$port/0$trusted",
		$how eq 'cut' ? qr/closed the connection|reset by peer|broke|could not/ : qr/timeout while/,
		sub { $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'meanwhile')}); wait_revocation($redis, $event); });
	ok($event, 'and the other mirror goes on meanwhile');
}

# The worker has short transactions of its own all the time; one that is open over a handshake would be seen in every look.
poll_until('the worker to have no transaction open', sub {
	!value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND xact_start IS NOT NULL}) });
pass('no transaction is open over a handshake');

# ---- the name that is asked for ----

for my $host ('localhost', '127.0.0.1')
{
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 5) or die;
	add_mirror('hello', "rediss://$host:" . $listener->sockport . "/0$trusted");
	my $client = $listener->accept;
	my $hello  = '';
	poll_until('a whole client hello', sub {
		sysread($client, $hello, 65536, length $hello) if IO::Select->new($client)->can_read(0);
		length $hello > 5 && length $hello >= 5 + unpack('x3 n', $hello) });
	my $named = $hello =~ /\0\0\0\x0e\0\x0c\0\0\x09localhost/ ? 1 : 0;
	is($named, $host eq 'localhost' ? 1 : 0, $host eq 'localhost' ? 'a name is in the hello (SNI)' : 'an address is not');
	remove_mirror('hello');
}

# ---- a new certificate ----

my ($new, $new_key) = $stranger->issue($names);
for ([ $new, $certificate ], [ $new_key, $certificate_key ])
{
	system('cp', @$_) == 0 or die;
}
$redis->restart;
poll_until('the new certificate to be refused', sub { (mirror_row($dba)->{last_error} // '') =~ /certificate was refused/ });
system('cp', $stranger->file, $authority->file) == 0 or die;
wait_streaming($dba);
$gate->wait_ready;
pass('files are read again at every connect: a new CA needs no restart');

unlike(slurp_file($ledger->logfile), qr/terminated by signal|PANIC|TRAP/, 'nothing has crashed');
done_testing;

sub add_mirror { my ($name, $url) = @_; value($dba, 'SELECT sessauth.add_mirror(?, ?)', $name, $url); return; }

sub remove_mirror
{
	my ($name) = @_;
	ok(value($dba, 'SELECT sessauth.remove_mirror(?)', $name), "mirror $name is removed");
	poll_until('the mirror to be gone', sub { value($dba, 'SELECT count(*) FROM sessauth.mirror_status() WHERE name = ?', $name) == 0 });
	return;
}

sub gate
{
	my ($url) = @_;
	return start_gate($ledger, undef, redis => $url, node => 'tls' . ++$count, redis_alone => 1);
}

# Neither the worker nor a gate follows this Redis; both say why.
sub refused
{
	my ($what, $url, $why, $meanwhile) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $name = 'wrong' . ++$count;
	add_mirror($name, $url . ($url =~ /\?/ ? '&' : '?') . "prefix=$name:");
	my $wrong = gate($url);
	$meanwhile->() if $meanwhile;
	my $row = poll_until("$what: the worker to say why", sub { my $r = mirror_row($dba, $name); ($r->{last_error} // '') ne '' && $r });
	like($row->{last_error}, $why, "$what: the worker says why");
	isnt($row->{state}, 'streaming', "$what: and does not follow");
	my $said = poll_until("$what: the gate to say why", sub { my ($text) = $wrong->get('/readyz')->{content} =~ /Redis: (?!not connected yet)(.*)/; $text });
	like($said, $why, "$what: the gate says why");
	is($wrong->stop, 0, "$what: and ends cleanly");
	value($dba, 'SELECT sessauth.remove_mirror(?)', $name);
	return;
}
