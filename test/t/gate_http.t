# gate_http.t
#		The HTTP that a gate speaks: methods, limits, many requests in one packet, clients that read late or leave, and
#		where a connection ends. (Where a request ends: gate_framing.t.)

use strict;
use warnings;

use IO::Select;
use POSIX ();
use Sessauth::Process qw(poll_until);
use Sessauth::Publisher;
use Sessauth::Redis;
use Socket qw(SOL_SOCKET SO_LINGER SO_RCVBUF);
use Test::More;

use constant FAR_TOO_MUCH => 64 * 1024 * 1024;

my $ledger = Sessauth::Publisher->new(redis => Sessauth::Redis->start_server, prefix => 'http:');
# One thread, so that whoever was held up by another would be seen to be. Nobody works here while a client is being told.
my $gate  = $ledger->ready_gate(max_staleness => '1h', jwks => [ map { "key$_" } 1 .. 8 ], admin => 1, arguments => [ '--threads', 1 ]);
my %token = map { $_ => $ledger->token(user => $_, key => 'key1') } qw(alice bob carol);
my $close = "Connection: close\r\n";
my $jwks  = request('/.well-known/jwks.json');
# The same with so much that nobody looks at that those who are stuck need not be answered a hundred thousand times.
my $padded = request('/.well-known/jwks.json', more => 'X-Pad: ' . 'x' x 4000 . "\r\n");

subtest 'methods' => sub {
	for my $method (qw(GET HEAD POST PUT DELETE OPTIONS PATCH TRACE))
	{
		my ($answer) = answers(say_all(request('/auth', token => $token{alice}, method => $method, more => $close)), $method eq 'HEAD');
		like($answer, qr{^HTTP/1\.1 200 .*^X-Sessauth-User: alice\r$}ms, "$method is answered");
	}
	# CONNECT would make a tunnel of the connection: libevent waits with closing it.
	for my $method (qw(CONNECT PROPFIND REPORT MKCOL PURGE get GETGET))
	{
		my $socket = $gate->connect_socket;
		print $socket request('/auth', token => $token{alice}, method => $method);
		poll_until("an answer to $method", sub { IO::Select->new($socket)->can_read(0) });
		sysread($socket, my $answer, 65536);
		like($answer, qr{^HTTP/1\.1 501 }, "$method gets 501");
		unlike($answer, qr{X-Sessauth}i, 'and says nothing of anybody');
	}
	is($gate->auth($token{alice}), 200, 'the gate goes on');
};

subtest 'sizes' => sub {
	my %answer = (
		'headers of nearly 32 KiB'        => [ 401, request('/auth', more => 'X: ' . 'x' x (32 * 1024 - 100) . "\r\n$close") ],
		'headers of more'                 => [ 400, request('/auth', more => 'X: ' . 'x' x (32 * 1024) . "\r\n$close") ],
		'many headers of more'            => [ 400, request('/auth', more => "X: xxxxxxxxxxxx\r\n" x 2400) ],
		'a body of 64 KiB'                => [ 401, posted(64 * 1024) ],
		'a body of more'                  => [ 413, posted(64 * 1024 + 1) ],
		'a body of 64 KiB in one chunk'   => [ 401, chunked(64 * 1024) ],
		'a body of 64 KiB in some chunks' => [ 401, chunked((16 * 1024) x 4) ],
		'a body of more in some chunks'   => [ 413, chunked((16 * 1024) x 4, 1) ]);
	for my $name (sort keys %answer)
	{
		my ($status, $request) = @{ $answer{$name} };
		like(say_all($request), qr{^HTTP/1\.1 $status }, "$name: $status");
	}
	my @expected = answers(say_all(request('/auth', method => 'POST', more => "Expect: 100-continue\r\nContent-Length: 5\r\n$close") . 'hello') =~ s{^HTTP/1\.1 100 Continue\r\n\r\n}{}r);
	like($expected[0], qr{^HTTP/1\.1 401 .*no token\n\z}s, 'a body that asks whether it may come, and is there already');
	is($gate->auth($token{alice}), 200, 'the gate goes on');
};

subtest 'many requests in one packet' => sub {
	my @paths = ((map { [ '/auth', $_ ] } sort keys %token), [ '/auth', undef ], ['/.well-known/jwks.json'], ['/healthz'], ['/nothing'], [ '/auth', 'nonsense' ]);
	my @asked = map { $paths[ $_ % @paths ] } 0 .. 199;
	my @answers = answers(say_all(map({ request($_->[0], token => $_->[1] ? $token{ $_->[1] } // $_->[1] : undef) } @asked), request('/readyz', more => $close)));
	is(scalar @answers, 201, 'each is answered');
	my $expected = sub {
		my ($path, $who) = @_;
		return $path eq '/healthz' ? qr{ 200 .*alive\n\z}s : $path eq '/nothing' ? qr{ 404 }
		  : $path eq '/auth' ? ($token{ $who // '' } ? qr{ 200 .*^X-Sessauth-User: $who\r$}ms : $who ? qr{ 401 .*malformed}s : qr{ 401 .*no token\n\z}s)
		  : qr{ 200 .*"keys":\[.*\}\z}s;
	};
	is_deeply([ grep { $answers[$_] !~ $expected->(@{ $asked[$_] }) } 0 .. $#asked ], [], 'in the order of the requests');
};

subtest 'a client that sends without end and reads late' => sub {
	my ($whole) = answers(say_all($jwks =~ s/\r\n\z/$close\r\n/r));
	$whole = undated($whole) =~ s/\Q$close\E//r;
	my $socket = late_reader();
	my $sent   = send_until_stuck($socket);
	cmp_ok($sent, '<', FAR_TOO_MUCH, 'is not read from any more before it reads');
	is($gate->auth($token{alice}), 200, 'others are served meanwhile');

	# The rest of the request that was cut, and the last one; the answers come all the while.
	my $unsent = rest_of($sent) . request('/healthz', more => $close);
	my $count  = whole($sent);
	my ($text, $ended) = ('');
	poll_until('all answers', sub {
		local $SIG{PIPE} = 'IGNORE';
		substr($unsent, 0, syswrite($socket, $unsent) // 0) = '' if $unsent ne '';
		while (defined(my $n = sysread($socket, $text, 65536, length $text))) { $ended = 1, last if $n == 0; }
		return $ended;
	});
	my @answers = answers($text);
	is(scalar @answers, $count + 1, "then it gets the answers to all of its $count requests");
	like(pop @answers, qr{alive\n\z}, 'and to the last one');
	is(scalar(grep { undated($_) ne $whole } @answers), 0, 'byte for byte');
};

subtest 'clients that leave while they are being answered' => sub {
	for my $reset (1, 0)
	{
		my @leaving = map { late_reader() } 1 .. 2;
		send_until_stuck($_) for @leaving;
		setsockopt($_, SOL_SOCKET, SO_LINGER, pack('ii', $reset, 0)) or die $! for @leaving;
		close $_ for @leaving;
		my @more = map { $gate->connect_socket } 1 .. 20;
		print $_ $jwks x 50 for @more;
		setsockopt($_, SOL_SOCKET, SO_LINGER, pack('ii', $reset, 0)) or die $! for @more;
		close $_ for @more;
		is($gate->auth($token{alice}), 200, $reset ? 'by a reset: others are served' : 'without reading: others are served');
		poll_until('the gate to have noticed', sub { $gate->metric('sessauth_gate_connections') <= 1 });
		pass('and the gate forgets them');
	}
};

subtest 'where a connection ends' => sub {
	my $auth = request('/auth', token => $token{alice});
	my ($last) = answers(say_all($jwks =~ s/\r\n\z/$close\r\n/r));
	like($last, qr{^Connection: close\r$}m, 'who asks to be let go is told that he is');
	for my $name ('Connection: close', 'HTTP/1.0')
	{
		my $end = $name =~ /close/ ? $jwks =~ s/\r\n\z/$close\r\n/r : $jwks =~ s{HTTP/1\.1}{HTTP/1.0}r;
		my @answers = answers(say_all($auth, $end, $auth x 3));
		is(scalar @answers, 2, "$name: what comes behind it is not answered");
		like($answers[1], qr{"keys":\[.*\}\z}s, 'the answer is whole');

		# One that does not fit into what the kernel keeps is written by the loop.
		my $socket = late_reader();
		my $sent   = send_until_stuck($socket);
		my $rest   = rest_of($sent) . $end . $auth;
		my $text   = '';
		poll_until("$name: the end", sub {
			substr($rest, 0, syswrite($socket, $rest) // 0) = '' if $rest ne '';
			my $n = sysread($socket, $text, 65536, length $text);
			return defined $n && $n == 0;
		});
		@answers = answers($text);
		is(scalar @answers, whole($sent) + 1, "$name: a client that has waited gets all answers before the end, and none behind it");
	}
	my @kept = answers(say_all(($auth =~ s{HTTP/1\.1}{HTTP/1.0}r =~ s/\r\n\z/Connection: keep-alive\r\n\r\n/r) x 2, $auth =~ s{HTTP/1\.1}{HTTP/1.0}r));
	is(scalar @kept, 3, 'an old client that asks to be kept is kept');
};

is($gate->stop, 0, 'the gate ends cleanly');

done_testing();

# ---- helpers ----

# A request without a body: token, method, and more headers.
sub request
{
	my ($path, %of) = @_;
	return join '', $of{method} // 'GET', " $path HTTP/1.1\r\nHost: x\r\n", (defined $of{token} ? "Authorization: Bearer $of{token}\r\n" : ''), $of{more} // '', "\r\n";
}

sub posted { my ($size) = @_; return request('/auth', method => 'POST', more => "Content-Length: $size\r\n$close") . 'x' x $size; }

sub chunked
{
	return request('/auth', method => 'POST', more => "Transfer-Encoding: chunked\r\n$close") . join('', map { sprintf "%x\r\n%s\r\n", $_, 'x' x $_ } @_) . "0\r\n\r\n";
}

# Everything that the gate says to this on a connection of its own, until it closes it.
sub say_all
{
	my $socket = $gate->connect_socket;
	print $socket @_;
	my $all = '';
	1 while sysread($socket, $all, 65536, length $all);
	return $all;
}

# One text into answers, by their lengths; one to HTTP/1.0 may have none, and then it is the last. Those to HEAD have no bodies.
sub answers
{
	my ($text, $no_body) = @_;
	my @answers;
	while ($text =~ m{\G(HTTP/1\.[01] \d+ .*?\r\n\r\n)}gcs)
	{
		my $head = $1;
		my ($length) = $no_body ? 0 : $head =~ /^Content-Length: (\d+)\r$/m;
		$length //= length($text) - pos $text if $head =~ m{^HTTP/1\.0 };
		my $body = substr($text, pos $text, $length // die "an answer without length: $head");
		length $body == $length or die "an answer of $length bytes has " . length $body;
		push @answers, $head . $body;
		pos($text) += $length;
	}
	(pos($text) // 0) == length $text or die 'no answer: ' . substr($text, pos($text) // 0, 200);
	return @answers;
}

# The next one may be of the next second.
sub undated { my ($answer) = @_; return $answer =~ s/^Date: [^\r]*\r\n//mr; }

# A connection that the kernel keeps little for.
sub late_reader
{
	my $socket = $gate->connect_socket;
	setsockopt($socket, SOL_SOCKET, SO_RCVBUF, 16 * 1024) or die $!;
	$socket->blocking(0);
	return $socket;
}

# Sends the padded request over and over, and reads nothing, until nothing more is taken. Returns how many bytes that were.
sub send_until_stuck
{
	my ($socket) = @_;
	my $many   = int(1024 * 1024 / length $padded);
	my $block  = $padded x ($many + 1);
	my $sent   = 0;
	my $select = IO::Select->new($socket);
	while ($sent < FAR_TOO_MUCH && $select->can_write(0.3))
	{
		$sent += syswrite($socket, $block, $many * length $padded, $sent % length $padded) // die "send: $!";
	}
	return $sent;
}

# What is missing of the last request when so much was sent, and how many there are with that.
sub rest_of { my ($sent) = @_; my $over = $sent % length $padded; return $over ? substr($padded, $over) : ''; }
sub whole { my ($sent) = @_; return POSIX::ceil($sent / length $padded); }
