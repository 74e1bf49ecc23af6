# gate_framing.t
#		Where a request ends: nobody gets an answer into another one's place, and what is sent beyond the request costs the gate no memory.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Sessauth::Gate;
use Sessauth::Process qw(poll_until slurp_file);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

use constant MB => 1024 * 1024;

my $ledger = Sessauth::Publisher->new(redis => Sessauth::Redis->start_server, prefix => 'framing:');
my $gate   = $ledger->start_gate(arguments => [ '--threads', 1, '--idle-timeout', '2s', '--admin-listen', '127.0.0.1:0' ]);
my ($admin) = $gate->log_contents =~ m{administration listening on http://(\S+)};
my $alive   = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

subtest 'what follows a doubtful end is nobody\'s request' => sub {
	my $length = length $alive;
	my %doubtful = (
		'HEAD with a body'             => "HEAD /auth HTTP/1.1\r\nHost: x\r\nContent-Length: $length\r\n",
		'HEAD with chunks'             => "HEAD /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n",
		'TRACE with a body'            => "TRACE /auth HTTP/1.1\r\nHost: x\r\nContent-Length: $length\r\n",
		'a length whose name is wider' => "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length : $length\r\n",
		'one with a tab'               => "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length\t: $length\r\n",
		'a length with a sign'         => "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n",
		'two equal lengths'            => "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n",
		'an encoding that is unknown'  => "POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n",
		'two in one'                   => "POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n",
		'two headers'                  => "POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
		'chunks in HTTP/1.0'           => "POST /auth HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n");
	for my $name (sort keys %doubtful)
	{
		my $body = $name =~ /sign|equal/ ? '' : $name eq 'chunks in HTTP/1.0' ? "0\r\n\r\n" : $alive;
		my $socket = client();
		print $socket $doubtful{$name}, "\r\n", $body, $alive;
		my $answer = read_all($socket);
		like($answer, qr{^HTTP/1\.[01] 4\d\d .*^Connection: close\r\n}ms, "$name: refused, and let go");
		unlike($answer, qr/^alive$/m, "$name: nothing else is");
	}
	my $socket = client();
	print $socket "POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", $alive, "HEAD /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", $alive;
	my $answers = '';
	poll_until('four answers', sub { sysread($socket, $answers, 65536, length $answers) if IO::Select->new($socket)->can_read(0); ($answers =~ s/alive/alive/g // 0) == 2 });
	pass('without doubt the connection goes on');

	my $last = $alive =~ s/\r\n\z/Connection: close\r\n\r\n/r;
	my $say = sub { my $socket = client(); print $socket @_; return read_all($socket) };
	like($say->("HEAD /auth HTTP/1.1\r\nHost: x\r\n\r\n", $last), qr{^HTTP/1.1 401 [^\r]*\r\n(?:\S[^\r]*\r\n)+\r\nHTTP/1.1 200 }, 'the answer to HEAD has no body');
	like($say->('GET /auth HTTP/1.1' . "\r\nHost: x\r\nContent-Length: $length\r\n\r\n", $alive, $last), qr{^HTTP/1.1 401 .*?^HTTP/1.1 200 .*?alive\n\z}ms, 'a body is not a request');
	unlike($say->("POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: $length\r\n\r\n", $alive), qr{alive}, 'nor is what follows a request of two lengths');
	unlike($say->("POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", $alive), qr{alive}, 'or of a length and chunks');
};

subtest 'requests that come faster than they are answered' => sub {
	my $socket = client(Blocking => 0);
	my $long   = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " . 'x' x 950 . "\r\n\r\n";
	my $bytes  = $long x (16 * MB / length $long);
	my $before = resident($gate);
	my $most   = 0;
	my $taken  = 0;
	my $answers = '';
	poll_until('all of them to be answered', sub {
		$taken += syswrite($socket, $bytes, 256 * 1024, $taken) // 0 if $taken < length $bytes;
		1 while sysread($socket, $answers, 256 * 1024, length $answers);
		$most = resident($gate) if resident($gate) > $most;
		return () = $answers =~ /alive/g >= length($bytes) / length($long) ? 1 : 0 if $taken >= length $bytes;
		return 0;
	});
	cmp_ok($most - $before, '<', 4 * MB, 'take no memory');
};

for my $case (
	[ 'a client that reads no answers', $gate->url =~ s{http://}{}r, $alive x 1000, $alive ],
	[ 'a body without an end', $gate->url =~ s{http://}{}r, "POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", '1' ],
	[ 'what is sent to a stream of events', $admin, "GET /revocations HTTP/1.1\r\nHost: x\r\n\r\n", 'x' ])
{
	my ($name, $address, $begin, $more) = @$case;
	subtest $name => sub {
		my $socket = IO::Socket::INET->new(PeerAddr => $address, Blocking => 0) or die "connect: $!";
		my $before = resident($gate);
		my $bytes  = $more x (MB / length $more);
		my $taken  = 0;
		syswrite($socket, $begin);
		while ($taken < 100 * MB && IO::Select->new($socket)->can_write(1))
		{
			my $n = syswrite($socket, $bytes) // last;
			$taken += $n;
		}
		cmp_ok(resident($gate) - $before, '<', 8 * MB, 'takes no memory');
		is($gate->get('/healthz')->{status}, 200, 'and harms nobody');
		return if $address eq $admin;
		poll_until('the gate to let go of it', sub { defined syswrite($socket, 'x') ? 0 : !$!{EAGAIN} });
		pass('and is let go');
	};
}

subtest 'who has connected before the gate is stopped is answered' => sub {
	$gate->pause;
	my @clients = map { client() } 1 .. 20;
	print $_ $alive for @clients;
	kill 'TERM', $gate->pid;
	$gate->continue;
	is(scalar(grep { read_all($_) =~ m{^HTTP/1.1 200 } } @clients), 20, 'all of them');
};

poll_until('it to end', sub { defined $gate->ended });
is($gate->ended, 0, 'it ends cleanly');
done_testing();

sub client
{
	my $socket = IO::Socket::INET->new(PeerAddr => $gate->url =~ s{^http://}{}r, @_) or die "connect: $!";
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

sub resident
{
	my ($process) = @_;
	my ($kilobytes) = slurp_file('/proc/' . $process->pid . '/status') =~ /^VmRSS:\s+(\d+)/m;
	return $kilobytes * 1024;
}
