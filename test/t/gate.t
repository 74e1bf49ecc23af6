# gate.t
#		What a gate is to its clients and to its administrator: sockets, cookies,
#		keep-alive, slow clients, stopping, reloading, metrics, and the stream of revocations.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
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
	my @slow   = map { connect_to($gate) } 1 .. 20;
	my ($fed, $open) = (0, scalar @slow);
	poll_until('those who never finish a request to be cut off', sub {
		$ledger->work;
		for my $socket (grep { defined } @slow)
		{
			# Never silent for long, and never done.
			local $SIG{PIPE} = 'IGNORE';
			$fed += syswrite($socket, $fed < 20 ? "GET /auth HTTP/1.1\r\n" : "X-More: 1\r\n") // 0;
			undef $socket, $open-- if IO::Select->new($socket)->can_read(0) && !sysread($socket, my $bytes, 1000);
		}
		is($gate->auth($ledger->token), 200, 'meanwhile others are served') if $open == @slow && $fed > 500 && !$count++;
		return $open == 0;
	});
	my $huge = connect_to($gate);
	print $huge "GET /auth HTTP/1.1\r\nHost: x\r\nX-Huge: ", 'x' x 40_000, "\r\n\r\n";
	like(read_all($huge), qr{^(HTTP/1.1 4\d\d .*)?$}s, 'headers beyond the limit are refused');
	is($gate->auth('x' x 9000), 401, 'a token beyond the limit is malformed');
	my $idle = connect_to($gate);
	print $idle "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	like(read_all($idle), qr{^HTTP/1.1 200 }, 'an idle connection is closed after a while');
	poll_until('the gate to serve', sub { $ledger->work; $gate->auth($ledger->token) == 200 });
	pass('the gate is well');
	poll_until('all of them to be counted out', sub { $ledger->work; $gate->get('/healthz'); metric($gate, 'sessauth_gate_connections') <= 1 });
	pass('and knows how many are connected');
	is($gate->stop, 0, 'it ends cleanly');
};

subtest 'many connections to many threads' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger, '--threads', '4');
	my @many   = map { connect_to($gate) } 1 .. 40;
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
	cmp_ok(metric($gate, 'sessauth_gate_requests_total{decision="active",source="local"}'), '<=', 4, 'no thread has verified the token twice');
	cmp_ok(metric($gate, 'sessauth_gate_requests_total{decision="active",source="cache"}'), '>=', 116, 'the cache knew it after that');
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
		my $short = connect_to($gate);
		print $short "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
		read_all($short);
		my $long = connect_to($gate);
		print $long "GET /auth HTTP/1.1\r\nHost: x\r\nX-Long: ", 'x' x 12_000, "\r\nAuthorization: Bearer $token\r\n\r\n";
		IO::Select->new($long)->can_read(10) && sysread($long, my $answer, 4096) or last;
		$answered++ if $answer =~ m{^HTTP/1.1 200 };
	}
	is($answered, 20, 'each is read by itself alone, as long as its request may be');
};

subtest 'nobody can make one answer into two' => sub {
	my $gate = ready(ledger());
	my $next = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	my $answers = sub {
		my $socket = connect_to($gate);
		print $socket @_;
		return read_all($socket);
	};
	like($answers->("HEAD /auth HTTP/1.1\r\nHost: x\r\n\r\n", $next), qr{^HTTP/1.1 401 [^\r]*\r\n(?:\S[^\r]*\r\n)+\r\nHTTP/1.1 200 }, 'the answer to HEAD has no body');
	like($answers->("GET /auth HTTP/1.1\r\nHost: x\r\nContent-Length: " . length($next) . "\r\n\r\n$next", $next), qr{^HTTP/1.1 401 .*?^HTTP/1.1 200 .*?alive\n\z}ms,
		'a body is not a request');
	my $lengths = "Content-Length: 0\r\nContent-Length: " . length($next) . "\r\n";
	unlike($answers->("POST /auth HTTP/1.1\r\nHost: x\r\n$lengths\r\n$next"), qr{alive}, 'nor is what follows a request of two lengths');
	unlike($answers->("POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n$next"), qr{alive}, 'or of a length and chunks');
};

subtest 'stopping' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $half   = connect_to($gate);
	my $idle   = connect_to($gate);
	my $token  = $ledger->token;
	my $request = "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $token\r\n\r\n";
	print $idle "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	sysread($idle, my $alive, 4096);
	print $half substr($request, 0, 30);
	poll_until('the gate to have read it', sub { $ledger->work; metric($gate, 'sessauth_gate_connections') >= 2 });
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

subtest 'metrics' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my %token  = (good => $ledger->token, revoked => $ledger->token(user => 'bob'));
	$gate->auth($token{good}) for 1 .. 5;
	$gate->get('/auth');
	$gate->auth('nonsense');
	$ledger->revoke(user => 'acme', 'bob', 2);
	poll_until('the revocation', sub { $ledger->work; $gate->auth($token{revoked}) == 401 });
	my $text = admin($gate, '/metrics')->{content};
	my %value = $text =~ /^(sessauth_\S+(?: \S+(?=\}))?) (\S+)$/mg;
	is($value{'sessauth_gate_requests_total{decision="active",source="cache"}'} >= 4, 1, 'requests by decision and source') or diag $text;
	is($value{'sessauth_gate_requests_total{decision="no_token",source="request"}'}, 1, 'those without a token');
	is($value{'sessauth_gate_requests_total{decision="malformed",source="token"}'}, 1, 'those that are none');
	cmp_ok($value{'sessauth_gate_requests_total{decision="revoked",source="local"}'}
		+ ($value{'sessauth_gate_requests_total{decision="revoked",source="cache"}'} // 0), '>=', 1, 'those revoked');
	is($value{sessauth_node_applied_sequence}, 1, 'the applied sequence');
	is($value{sessauth_node_known_revocations}, 1, 'known revocations');
	is($value{sessauth_node_ready}, 1, 'ready');
	cmp_ok($value{sessauth_node_lease_age_seconds}, '<', 1, 'lease age');
	cmp_ok($value{sessauth_node_redis_connects_total}, '>=', 2, 'connects');
	cmp_ok($value{sessauth_node_cache_hits_total}, '>=', 4, 'cache hits');
	my @buckets = $text =~ /^sessauth_gate_request_duration_seconds_bucket\{le="[^"]+"\} (\d+)$/mg;
	is_deeply([ sort { $a <=> $b } @buckets ], \@buckets, 'the histogram only grows');
	is($buckets[-1], $value{sessauth_gate_request_duration_seconds_count}, 'and ends with the count');
	my %typed = map { $_ => 1 } $text =~ /^# TYPE (\S+) (?:counter|gauge|histogram)$/mg;
	is_deeply([ grep { !$typed{ s/\{.*| .*//r =~ s/_(bucket|sum|count)$//r } && !$typed{ s/\{.*| .*//r } } grep { /^[^#]/ } split /\n/, $text ], [], 'every line has a type');
	is(admin($gate, '/auth')->{status}, 404, 'the administrator\'s listener has nothing else');
	for my $path ('/metrics', '/revocations', '/nothing')
	{
		my ($port) = admin_url($gate) =~ /(\d+)$/;
		my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die "connect: $@";
		print $socket "HEAD $path HTTP/1.1\r\nHost: x\r\n\r\n", "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
		like(read_all($socket), qr{^HTTP/1.1 \d+ [^\r]*\r\n(?:\S[^\r]*\r\n)+\r\nHTTP/1.1 404 .*the endpoints are}s, "the answer to HEAD $path has no body");
	}
	is($gate->get('/metrics')->{status}, 404, 'and the public one has no metrics');
	is($gate->get('/revocations')->{status}, 404, 'nor revocations');
};

subtest 'the stream of revocations' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $all    = follow($gate, '/revocations');
	my $acme   = follow($gate, '/revocations?tenant=acme');
	my $plus   = follow($gate, '/revocations?tenant=a+%C3%A4');
	like($all->('connected'), qr/^id: \Q$ledger->{g}\E:0\nevent: connected$/m, 'begins with where it is');
	$_->('connected') for $acme, $plus;
	my $sid = '11111111-0000-4000-8000-000000000001';
	$ledger->revoke(session => 'acme', 'alice "a"', $sid);
	$ledger->revoke(user => 'globex', 'bob', 7);
	$ledger->revoke(key => $ledger->kid('second'));
	my @events = map { $all->('revoked') } 1 .. 3;
	my ($data) = $events[0] =~ /^data: (.*)$/m;
	my $first  = decode_json($data);
	ok(delete $first->{at}, 'it says when');
	is_deeply($first, { kind => 'session', tenant => 'acme', user => 'alice "a"', session => $sid }, 'a session');
	like($events[1], qr/^id: \Q$ledger->{g}\E:2\n.*"kind":"user","tenant":"globex","user":"bob","epoch":7/ms, 'a user, with an id');
	like($events[2], qr/"kind":"key"/, 'a key');
	like($acme->('revoked'), qr/"kind":"session"/, 'who asks for a tenant gets its own');
	like($acme->('revoked'), qr/"kind":"key"/, 'and keys, and nobody else\'s');
	$plus->('revoked');

	my $resumed = follow($gate, '/revocations', "$ledger->{g}:1");
	like($resumed->('revoked'), qr/:2\n/, 'who comes back gets what came after');
	like($resumed->('revoked'), qr/:3\n/, 'all of it');
	my $current = follow($gate, '/revocations', "$ledger->{g}:3");
	$ledger->revoke(user => 'acme', 'carol', 2);
	$ledger->revoke(user => "a+\xc3\xa4", 'dave', 2);
	like($plus->('revoked'), qr/dave/, 'a plus in its name is a plus');
	unlike(my $next = $current->('revoked'), qr/missed/, 'who has missed nothing is told nothing');
	like($next, qr/carol/, 'but what comes next');
	my $lost = follow($gate, '/revocations', 'bbbbbbbb-0000-4000-8000-000000000001:7');
	ok($lost->('missed'), 'who comes back with an id that is not known is told that something may be missing');
	is(admin($gate, "/revocations?$_")->{status}, 400, "?$_ is a mistake, and no filter that lets all pass") for 'tenant=', 'tenant', 'Tenant=acme', 'tenant=acme&x', 'tenant=acme&tenant=globex', 'tenant=%00';
	is(metric($gate, 'sessauth_gate_event_streams'), 6, 'six are reading');
	is($gate->stop, 0, 'it ends cleanly with them');
	like($all->('revoked'), qr/$_/, 'what was on its way arrives') for qw(carol dave);
	is($all->(undef), undef, 'and then they are let go');
};

subtest 'a node that was away says that revocations may have passed unseen' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $stream = follow($gate, '/revocations');
	$stream->('connected');
	$redis->command('DEL', $ledger->{revocations_key});
	$ledger->change_generation;
	ok($stream->('missed', sub { $ledger->work }), 'in the stream');
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
	my $sharedir = `$ENV{PG_CONFIG} --sharedir`;
	chomp $sharedir;
	like(slurp_file("$sharedir/sessauth/sessauth-gate.service"), qr{^ExecStart=/\S+/sessauth-gate$}m, 'so is the unit');
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
sub ready
{
	my ($ledger, @arguments) = @_;
	my $gate = $ledger->start_gate(arguments => [ '--admin-listen', '127.0.0.1:0', @arguments ], jwks => ['main']);
	poll_until('the gate to be ready', sub { $ledger->work; $gate->is_ready });
	return $gate;
}

sub admin_url
{
	my ($gate) = @_;
	return $gate->log_contents =~ m{administration listening on (http://127\.0\.0\.1:\d+)} ? $1 : die $gate->log_contents;
}

sub admin { my ($gate, $path) = @_; return HTTP::Tiny->new->get(admin_url($gate) . $path); }

sub metric
{
	my ($gate, $name) = @_;
	my ($value) = admin($gate, '/metrics')->{content} =~ /^\Q$name\E (\S+)$/m;
	return $value // 0;
}

sub connect_to
{
	my ($gate) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $gate->url =~ s{^http://}{}r) or die "connect: $!";
	$socket->autoflush;
	return $socket;
}

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

# Reads a stream of events. The sub that it returns gives the next event of that name (skipping keep-alives, and dying of
# any other), or undef at the end.
sub follow
{
	my ($gate, $uri, $last) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => admin_url($gate) =~ s{^http://}{}r) or die "connect: $!";
	syswrite($socket, "GET $uri HTTP/1.0\r\nHost: x\r\n" . ($last ? "Last-Event-ID: $last\r\n" : '') . "\r\n");
	my $text = '';
	my $skip = defined $last ? 'connected' : '';
	my $ended;
	return sub {
		my ($wanted, $meanwhile) = @_;
		while (1)
		{
			$text =~ s/^.*?\r\n\r\n//s if $text =~ m{^HTTP/};
			while ($text =~ s/^(.*?)\n\n//s)
			{
				my $event = $1;
				my ($name) = $event =~ /^event: (\w+)$/m or next;
				next if $name eq $skip;
				return $event if $name eq ($wanted // '');
				die "$name instead of " . ($wanted // 'the end') . ": $event";
			}
			return undef if $ended;
			poll_until('an event', sub { $meanwhile->() if $meanwhile; IO::Select->new($socket)->can_read(0) });
			$ended = !sysread($socket, $text, 65536, length $text);
		}
	};
}
