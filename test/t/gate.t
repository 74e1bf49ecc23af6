# gate.t
#		What a gate is to its clients and to its administrator: sockets, cookies, slow clients,
#		threads, stopping, reloading, options.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Sessauth::Gate;
use Sessauth::Process qw(poll_until private_dir slurp_file);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis = Sessauth::Redis->start_server;
my $count = 0;

subtest 'a unix socket beside TCP' => sub {
	my $ledger = ledger();
	my $dir    = private_dir();
	my $path   = "$dir/gate.sock";
	my $gate   = ready($ledger, '--listen', "127.0.0.1:0,unix:$path");
	like(ask_unix($path, '/auth', $ledger->token), qr{^HTTP/1.1 200 .*X-Sessauth-User: alice}s, 'both serve');
	is($gate->auth($ledger->token), 200, 'the other one, too');
	$gate->kill9;
	ok(-S $path, 'a gate that is killed leaves its socket behind');
	$gate = ready($ledger, '--listen', "127.0.0.1:0,unix:$path");
	like(ask_unix($path, '/readyz'), qr{^HTTP/1.1 200 }, 'which the next one replaces');
	my $second = Sessauth::Process->start('second', [ 'sessauth-gate', '--listen', "unix:$path", '--redis', $ledger->url,
		'--jwks', $ledger->write_jwks, '--link-key-file', $ledger->write_link_key ]);
	poll_until('a second one to end', sub { defined $second->ended });
	is($second->ended >> 8, 1, 'but not while it is in use');
	like($second->log_contents, qr/could not listen on \Q$path\E: Address already in use/, 'and it says so');
	is($gate->stop, 0, 'it stops');
	ok(!-e $path, 'and takes its socket with it');
};

subtest 'a token in a cookie' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger, '--cookie', 'session');
	my ($good, $other) = ($ledger->token, $ledger->token(user => 'bob'));
	my $user = sub { $gate->get('/auth', undef, Cookie => $_[0])->{headers}{'x-sessauth-user'} // '' };
	is($user->("session=$good"), 'alice', 'is found');
	is($user->("theme=dark; session=$good; x=y"), 'alice', 'among others');
	is($user->("xsession=$good"), '', 'not under a name that ends like it');
	is($user->("session2=$good"), '', 'nor under one that begins like it');
	is($gate->get('/auth', undef, Cookie => "a=session=$good")->{status}, 401, 'nor inside another');
	is($gate->get('/auth', $other, Cookie => "session=$good")->{headers}{'x-sessauth-user'}, 'bob', 'Authorization goes before it');
	my $two = $gate->get('/auth', undef, Cookie => "session=$other; session=$good");
	is($two->{status}, 401, 'two of them are refused');
	like($two->{headers}{'www-authenticate'}, qr/invalid_request.*more than one cookie/, 'and it says why');
	my $none = ready($ledger);
	is($none->get('/auth', undef, Cookie => "session=$good")->{status}, 401, 'without --cookie there is none');
};

subtest 'slow and endless requests' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger, '--idle-timeout', '1s', '--threads', '2');
	my @slow   = map { $gate->connect_socket } 1 .. 20;
	print $_ "GET /auth HTTP/1.1\r\n" for @slow;
	my ($fed, $open, $others) = (0, scalar @slow);
	poll_until('those who never finish a request to be cut off', sub {
		$ledger->work;
		for my $socket (grep { defined } @slow)
		{
			# Never silent for long, and never done.
			local $SIG{PIPE} = 'IGNORE';
			$fed += syswrite($socket, "X-More: 1\r\n") // 0;
			undef $socket, $open-- if IO::Select->new($socket)->can_read(0) && !sysread($socket, my $bytes, 1000);
		}
		is($gate->auth($ledger->token), 200, 'meanwhile others are served') if $open == @slow && $fed > 500 && !$others++;
		return $open == 0;
	});
	is($gate->auth('x' x 9000), 401, 'a token beyond the limit is malformed');
	my $idle = $gate->connect_socket;
	print $idle "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	like(read_all($idle), qr{^HTTP/1.1 200 }, 'an idle connection is closed after a while');
	poll_until('the gate to serve', sub { $ledger->work; $gate->auth($ledger->token) == 200 });
	pass('the gate is well');
	poll_until('all of them to be counted out', sub { $ledger->work; $gate->get('/healthz'); $gate->metric('sessauth_gate_connections') <= 1 });
	pass('and knows how many are connected');
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'many connections to many threads' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger, '--threads', '4');
	my @many   = map { $gate->connect_socket } 1 .. 40;
	my $token  = $ledger->token;
	my $served = 0;
	for my $round (1 .. 3)
	{
		print $_ "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $token\r\n\r\n" for @many;
		for my $socket (@many)
		{
			sysread($socket, my $answer, 4096);
			$served++ if $answer =~ m{^HTTP/1.1 200 };
		}
	}
	is($served, 120, 'each is served, again and again, over one connection');
	my $port     = sprintf '%04X', $gate->url =~ /:(\d+)$/;
	my $sockets  = () = slurp_file('/proc/net/tcp') =~ /^ *\d+: [0-9A-F]+:$port [0-9A-F]+:0000 0A /mg;
	is($sockets, 4, 'which the kernel spreads over a socket for each thread');
	my $threads = () = glob "/proc/$gate->{pid}/task/*";
	cmp_ok($threads, '>=', 7, 'by as many threads as were asked for, and the library\'s two');
	# Threads that meet a new token at the same moment verify it each.
	cmp_ok($gate->metric('sessauth_gate_requests_total{decision="active",source="local"}'), '<=', 4, 'no thread has verified the token twice');
	cmp_ok($gate->metric('sessauth_gate_requests_total{decision="active",source="cache"}'), '>=', 116, 'the cache knew it after that');
	my ($address) = $gate->url =~ m{//(.*)};
	my $second = Sessauth::Process->start('second', [ 'sessauth-gate', '--listen', $address, '--threads', 4, '--redis', $ledger->url,
		'--jwks', $ledger->write_jwks, '--link-key-file', $ledger->write_link_key ]);
	poll_until('a second one to end', sub { defined $second->ended });
	is($second->ended >> 8, 1, 'another gate gets none of them');
	like($second->log_contents, qr/could not listen on 127\.0\.0\.1 port \d+: Address already in use/, 'and says so');
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'one connection after the other, with the same descriptor' => sub {
	my $ledger   = ledger();
	my $gate     = ready($ledger, '--threads', 1);
	my $token    = $ledger->token;
	my $answered = 0;
	for my $round (1 .. 20)
	{
		my $short = $gate->connect_socket;
		print $short "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
		read_all($short);
		my $long = $gate->connect_socket;
		print $long "GET /auth HTTP/1.1\r\nHost: x\r\nX-Long: ", 'x' x 12_000, "\r\nAuthorization: Bearer $token\r\n\r\n";
		IO::Select->new($long)->can_read(10) && sysread($long, my $answer, 4096) or last;
		$answered++ if $answer =~ m{^HTTP/1.1 200 };
	}
	is($answered, 20, 'each is read by itself alone, as long as its request may be');
};

subtest 'stopping' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $half   = $gate->connect_socket;
	my $idle   = $gate->connect_socket;
	my $token  = $ledger->token;
	my $request = "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $token\r\n\r\n";
	print $idle "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	sysread($idle, my $alive, 4096);
	print $half substr($request, 0, 30);
	poll_until('the gate to have read it', sub { $ledger->work; $gate->metric('sessauth_gate_connections') >= 2 });
	kill 'TERM', $gate->pid;
	is(sysread($idle, my $nothing, 4096), 0, 'those that are idle are let go');
	ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gate->url =~ s/.*://r), 'newcomers are not let in');
	ok(!defined $gate->ended, 'but who has begun is waited for');
	print $half substr($request, 30);
	my $answer = read_all($half);
	like($answer, qr{^HTTP/1.1 (200|503) }, 'answered');
	like($answer, qr{^Connection: close}mi, 'and then let go');
	poll_until('it to end', sub { defined $gate->ended });
	is($gate->ended, 0, 'then it ends');
};

subtest 'reloading' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my ($old, $new) = ($ledger->token, $ledger->token(key => 'new'));
	is($gate->auth($old), 200, 'a token of the first key');
	$ledger->write_jwks('new');
	kill 'HUP', $gate->pid;
	poll_until('the new key to be known', sub { $ledger->work; $gate->get('/.well-known/jwks.json')->{content} !~ $ledger->kid });
	is($gate->auth($new), 200, 'one of the new key is good');
	is($gate->auth($old), 401, 'one of the key that was taken away is not, although it was known');
	like($gate->log_contents, qr/reading the keys again/, 'the log says so');
};

subtest 'help, manual and environment' => sub {
	my $help   = `sessauth-gate --help`;
	my @flags  = $help =~ /^  (--[\w-]+)  /mg;
	my $manual = slurp_file('doc/sessauth-gate.8') =~ s/\\-/-/gr;
	cmp_ok(scalar @flags, '>', 15, 'the help names the options');
	is_deeply([ grep { $manual !~ /^\.BR? +\Q$_\E\b/m } @flags ], [], 'the manual, too');
	is_deeply([ grep { my $flag = $_; !grep { $_ eq $flag } @flags } grep { $_ ne "--help" } $manual =~ /^\.BR? +(--[\w-]+)/mg ], [], 'and no others');
	my $mandir = `$ENV{PG_CONFIG} --mandir`;
	chomp $mandir;
	ok(-s "$mandir/man8/sessauth-gate.8", 'it is installed');
	my $ledger = ledger();
	my $gate = Sessauth::Gate->start_gate(environment => {
		SESSAUTH_REDIS => $ledger->url, SESSAUTH_JWKS => $ledger->write_jwks, SESSAUTH_LINK_KEY_FILE => $ledger->write_link_key,
		SESSAUTH_COOKIE => 'c', SESSAUTH_THREADS => '1' });
	poll_until('a gate by environment', sub { $ledger->work; $gate->is_ready });
	is($gate->get('/auth', undef, Cookie => 'c=' . $ledger->token)->{status}, 200, 'variables do what options do');
	for my $wrong ([ '--threads', '0' ], [ '--listen', 'unix:' ], [ '--listen', '127.0.0.1:1,' ], [ '--cookie', 'a b' ], [ '--admin-listen', 'x' ], [ '--idle-timeout', '0' ])
	{
		system("sessauth-gate @$wrong[0] '@$wrong[1]' 2>/dev/null");
		is($? >> 8, 2, "@$wrong is refused");
	}
};

done_testing();

# ---- helpers ----

sub ledger { return Sessauth::Publisher->new(redis => $redis, prefix => 'gate' . ++$count . ':'); }

# A gate with an administrator's listener; more arguments win.
sub ready { my ($ledger, @arguments) = @_; return $ledger->ready_gate(admin => 1, arguments => \@arguments); }

sub read_all
{
	my ($socket) = @_;
	my $all = '';
	1 while sysread($socket, $all, 65536, length $all);
	return $all;
}

sub ask_unix
{
	my ($path, $uri, $token) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $path) or die "connect: $!";
	syswrite($socket, "GET $uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" . ($token ? "Authorization: Bearer $token\r\n" : '') . "\r\n");
	return read_all($socket);
}
