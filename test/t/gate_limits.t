# gate_limits.t
#		What clients, servers and careless operators cannot get out of a gate: its
#		descriptors, its Redis password, a private key; and what the library shows of itself.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Sessauth::Gate;
use Sessauth::Process qw(poll_until private_dir);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis = Sessauth::Redis->start_server;

subtest 'a crowd of clients does not take the descriptors that the lease needs' => sub {
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'crowd:');
	my $gate   = Sessauth::Process::start('Sessauth::Gate', 'gate-crowd',
		[ 'sh', '-c', 'ulimit -n 80 && exec "$0" "$@"', 'sessauth-gate', '--listen', '127.0.0.1:0', '--redis', $ledger->url,
			'--jwks', $ledger->write_jwks, '--link-key-file', $ledger->write_link_key, '--max-staleness', '1s' ]);
	$gate->_wait_listening;
	poll_until('the gate to be ready', sub { $ledger->work; $gate->is_ready });

	my ($port) = $gate->url =~ /:(\d+)$/;
	my @crowd  = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $! } 1 .. 200;
	is(scalar @crowd, 200, 'two hundred clients connect and stay');
	my $descriptors = sub { scalar(() = glob "/proc/$gate->{pid}/fd/*") };
	poll_until('the gate to be crowded', sub { $ledger->work; $descriptors->() > 40 });
	$redis->command('CLIENT', 'KILL', 'TYPE', 'normal');
	my $before = ($ledger->node // {})->{nonce} // '';
	poll_until('the node to write nonces again', sub { $ledger->work; (($ledger->node // {})->{nonce} // '') ne $before });
	cmp_ok($descriptors->(), '<', 80, 'there are descriptors left');
	my $served = IO::Select->new($crowd[0]);
	syswrite($crowd[0], "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
	poll_until('the first in the crowd to be answered', sub { $ledger->work; $served->can_read(0) });
	sysread($crowd[0], my $answer, 4096);
	like($answer, qr{^HTTP/1.1 200 }, 'the gate has found Redis again, and is ready');
	close $_ for @crowd;
	poll_until('newcomers to be served', sub { $ledger->work; $gate->auth($ledger->token) == 200 });
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'clients beyond the limit wait, and the others do not notice' => sub {
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'few:');
	my $gate   = $ledger->start_gate(arguments => [ '--max-connections', 4, '--threads', 2 ]);
	my ($port) = $gate->url =~ /:(\d+)$/;
	poll_until('the gate to be ready', sub { $ledger->work; $gate->is_ready });
	for my $round (1 .. 3)
	{
		my @crowd  = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $! } 1 .. 20;
		my $select = IO::Select->new(@crowd);
		syswrite($_, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") for @crowd;
		# One place may still be that of the last newcomer.
		poll_until('the first of them to be answered', sub { my @answered = $select->can_read(0); @answered >= 3 });
		my @answered = $select->can_read(1);
		cmp_ok(scalar @answered, '<=', 4 + 1, "about as many are served as may be, the $round. time");
		close $_ for @crowd;
		poll_until('newcomers to be served', sub { $ledger->work; $gate->auth($ledger->token) == 200 });
	}
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'the Redis password is in no log, even when the server repeats it' => sub {
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'password:');
	my $dir    = private_dir();
	my $file   = "$dir/password";
	open(my $out, '>', $file) or die $!;
	print $out "open sesame\n";
	close $out;
	chmod 0600, $file;
	my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 10) or die $!;
	my $gate = $ledger->start_gate(
		redis     => 'redis://me@127.0.0.1:' . $listen->sockport,
		arguments => [ '--redis-password-file', $file ]);
	my $select = IO::Select->new($listen);
	my $heard;
	poll_until('the refusal to be logged', sub {
		for my $socket ($select->can_read(0.01))
		{
			if ($socket == $listen) { $select->add(scalar $listen->accept); next; }
			if (!sysread($socket, my $bytes, 65536)) { $select->remove($socket); next; }
			elsif ($bytes =~ /AUTH.*me.*open sesame/s) { $heard = 1; }
			syswrite($socket, "-ERR unknown command 'AUTH', with args beginning with: 'me' 'open sesame'\r\n");
		}
		return $gate->log_contents =~ /refused the user name or password: ERR$/m;
	});
	ok($heard, 'the server was given it');
	unlike($gate->log_contents, qr/sesame/, 'the log does not repeat it');
	unlike($gate->get('/readyz')->{content}, qr/sesame/, 'nor does /readyz');
};

subtest 'a private key in a pinned file is neither used nor published' => sub {
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'private:');
	my $path   = $ledger->write_jwks('main');
	my $public = decode_json(do { local $/; open(my $in, '<', $path) or die $!; <$in> });
	my %leaked = (%{ $public->{keys}[0] }, kid => 'leaked', d => 'A' x 43);
	my %padded = (%{ $public->{keys}[0] }, comment => 'for our eyes only');
	my $dir  = private_dir();
	my $file = "$dir/jwks.json";
	open(my $out, '>', $file) or die $!;
	print $out encode_json({ keys => [ \%padded, \%leaked ], note => 'for our eyes only' });
	close $out;
	my $gate = Sessauth::Gate->start_gate(
		redis     => $ledger->url,
		arguments => [ '--jwks', $file, '--link-key-file', $ledger->write_link_key ]);
	my $shown;
	poll_until('the keys', sub { ($shown = $gate->get('/.well-known/jwks.json'))->{status} == 200 });
	my $set = decode_json($shown->{content});
	is_deeply([ map { $_->{kid} } @{ $set->{keys} } ], [ $ledger->kid ], 'only the public one is there');
	is_deeply([ sort keys %{ $set->{keys}[0] } ], [ sort keys %{ $public->{keys}[0] } ], 'with its public members only');
	unlike($shown->{content}, qr/eyes/, 'and nothing else of the file');
};

subtest 'options that cannot be meant end the gate, without repeating secrets' => sub {
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'options:');
	my @files  = ('--jwks', $ledger->write_jwks, '--link-key-file', $ledger->write_link_key);
	for my $case (
		[ 'a conninfo that is none', qr/invalid PostgreSQL conninfo/, '--pg', 'host=localhost password=open sesame' ],
		[ 'a leeway of half a second', qr/invalid value of --leeway/, @files, '--leeway', '500ms' ])
	{
		my ($name, $says, @arguments) = @$case;
		my $gate = Sessauth::Process->start('wrong', [ 'sessauth-gate', '--redis', $redis->url, @arguments ]);
		poll_until("$name to end", sub { defined $gate->ended });
		is($gate->ended >> 8, 2, "$name: exit 2");
		like($gate->log_contents, $says, "$name: says so");
		unlike($gate->log_contents, qr/sesame/, "$name: without the secret");
	}
};

subtest 'the library shows nothing but sessauth_*' => sub {
	my $dir = ($ENV{TESTDIR} // '.') . '/build/node';
	for my $symbols ([ 'libsessauth.so', '-D' ], [ 'libsessauth.a', '-g' ])
	{
		my ($file, $which) = @$symbols;
		my @names = map { (split)[-1] } grep { / [A-Z] / } `nm --defined-only $which $dir/$file`;
		cmp_ok(scalar @names, '>', 5, "$file has symbols");
		is_deeply([ grep { !/^sessauth_/ } @names ], [], "$file: all begin with sessauth_");
	}
};

subtest 'the library neither prints nor ends the program, and leaves its environment and signals alone' => sub {
	my $library = ($ENV{TESTDIR} // '.') . '/build/node/libsessauth.so';
	my %needs = map { s/\@.*//r => 1 } map { (split)[-1] } `nm -D --undefined-only $library`;
	ok($needs{snprintf} || $needs{__snprintf_chk}, 'what it needs of others is known');
	is_deeply([ grep { /^_*((v?f?|vd|d)printf(_chk)?|f?puts|f?putc|putchar|fwrite|perror|std(out|err)|v?syslog|abort|assert_fail|_?exit|quick_exit|raise
			|(secure_)?getenv|setenv|putenv|environ|signal|sigaction|setlocale|system|fork)$/x } sort keys %needs ], [], 'and nothing of it does such things');
};

done_testing();
