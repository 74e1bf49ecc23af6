# gate_events.t
#		The stream of revocations, for whoever holds long connections: what it says and to whom, and what becomes of
#		readers who come back, fall behind, do not read, or are too many.

use strict;
use warnings;

use Fcntl qw(O_RDWR O_NONBLOCK);
use IO::Select;
use JSON::PP;
use POSIX ();
use Sessauth::Gate;
use Sessauth::Process qw(poll_until private_dir);
use Sessauth::Publisher;
use Sessauth::Redis;
use Socket qw(SOL_SOCKET SO_RCVBUF);
use Test::More;

# As src/gate/sse.c has them.
use constant { RING => 8192, READERS => 1024 };

my $redis = Sessauth::Redis->start_server;
my $count = 0;

# It will be heard at the end.
my $quiet  = ledger()->start_gate(admin => 1);
my $silent = open_stream($quiet, '/revocations');

subtest 'the stream of revocations' => sub {
	my $ledger = ledger();
	my $gate   = $ledger->ready_gate(admin => 1);
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
	is($gate->admin("/revocations?$_")->{status}, 400, "?$_ is a mistake, and no filter that lets all pass") for 'tenant=', 'tenant', 'Tenant=acme', 'tenant=acme&x', 'tenant=acme&tenant=globex', 'tenant=%00';
	is($gate->metric('sessauth_gate_event_streams'), 6, 'six are reading');
	is($gate->stop, 0, 'it ends cleanly with them');
	like($all->('revoked'), qr/$_/, 'what was on its way arrives') for qw(carol dave);
	is($all->(undef), undef, 'and then they are let go');
};

subtest 'a node that was away says that revocations may have passed unseen' => sub {
	my $ledger = ledger();
	my $gate   = $ledger->ready_gate(admin => 1);
	my $stream = follow($gate, '/revocations');
	$stream->('connected');
	$redis->command('DEL', $ledger->{revocations_key});
	$ledger->change_generation;
	ok($stream->('missed', sub { $ledger->work }), 'in the stream');
};

subtest 'a reader who falls behind is told that he has missed something' => sub {
	my $ledger = ledger();
	my $dir    = private_dir();
	my $log    = "$dir/log";
	POSIX::mkfifo($log, 0600) or die "mkfifo: $!";
	sysopen(my $end, $log, O_RDWR | O_NONBLOCK) or die "$log: $!";
	my $reader = Sessauth::Process->start('log', [ 'sh', '-c', 'exec cat <"$0"', $log ]);
	my $gate   = Sessauth::Process::start('Sessauth::Gate', 'gate-stalled',
		[ 'sh', '-c', 'exec sessauth-gate "$@" 2>"$0"', $log, '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0', '--redis', $ledger->url,
			'--jwks', $ledger->write_jwks, '--link-key-file', $ledger->write_link_key ]);
	$gate->{log} = $reader->{log};
	$gate->_wait_listening;
	poll_until('the gate to be ready', sub { $ledger->work; $gate->is_ready });
	my $stream = follow($gate, '/revocations');
	$stream->('connected');

	# Nobody takes what the gate logs, so the loop that serves readers stands still; the library goes on.
	$reader->pause;
	for my $block ("\n" x 4096, "\n")
	{
		1 while syswrite($end, $block);
	}
	kill 'HUP', $gate->pid;
	poll_until('the loop to stand still', sub { HTTP::Tiny->new(timeout => 1)->get($gate->admin_url . '/metrics')->{status} == 599 });
	$ledger->revoke(user => 'acme', "user$_", 2) for 1 .. RING + 10;
	poll_until('the library to know all', sub { $ledger->work; $gate->auth($ledger->token(user => 'user' . (RING + 10))) == 401 });
	$reader->continue;
	ok($stream->('missed'), 'as soon as he can be');
	my @numbers = map { $stream->('revoked') =~ /^id: \S+:(\d+)$/m } 1 .. RING;
	is_deeply(\@numbers, [ 11 .. RING + 10 ], 'then follows what is still known, all of it');
	is($gate->stop, 0, 'the gate ends cleanly');
};

subtest 'a reader who does not read is cut off' => sub {
	my $ledger = ledger();
	my $gate   = $ledger->ready_gate(admin => 1, max_staleness => '1min');
	my $deaf   = open_stream($gate, '/revocations', '', '1.1');
	setsockopt($deaf, SOL_SOCKET, SO_RCVBUF, 64 * 1024) or die $!;
	my $other  = follow($gate, '/revocations');
	poll_until('both to be served', sub { $gate->metric('sessauth_gate_event_streams') == 2 });
	$other->('connected');
	my ($sent, $heard) = (0, 0);
	# Far more than the kernel keeps for a connection beside what the gate does.
	while ($gate->metric('sessauth_gate_event_streams') == 2 && $sent < 20_000)
	{
		$ledger->revoke(user => '"' x 128, '"' x 250 . $sent++, 2) for 1 .. 200;
		while ($heard < $sent) { last unless $other->('revoked') =~ /"$heard","epoch"/; $heard++; }
		last if $heard < $sent;
	}
	is($gate->metric('sessauth_gate_event_streams'), 1, 'one is left') or return;
	is($heard, $sent, 'who has heard every event');
	is($gate->auth($ledger->token), 200, 'requests are answered');

	my $text = '';
	poll_until('the end of the other one', sub { IO::Select->new($deaf)->can_read(0) && !sysread($deaf, $text, 1024 * 1024, length $text) });
	like($text, qr/^Transfer-Encoding: chunked\r$/m, 'the other one reads at last');
	unlike($text, qr/\r\n0\r\n\r\n\z/, 'but not as if the stream had ended well');
	my ($last) = reverse $text =~ /^id: \S+:(\d+)\n.*\ndata: .*\n\n/mg;
	cmp_ok($last, '<', $sent, 'because it has not got all');
	my $again = follow($gate, '/revocations', "$ledger->{g}:$last");
	like($again->('revoked'), qr/^id: \S+:@{[ $last + 1 ]}$/m, 'it may come back for the rest');
	is($gate->stop, 0, 'the gate ends cleanly');
};

subtest 'more readers than there may be' => sub {
	# The gate raises its own limit of descriptors.
	system('prlimit', '--pid', $$, '--nofile=' . (READERS + 200) . ':') if POSIX::sysconf(POSIX::_SC_OPEN_MAX()) < READERS + 200;
	plan skip_all => 'the limit of descriptors is too low: ' . READERS . ' readers were not tested' if POSIX::sysconf(POSIX::_SC_OPEN_MAX()) < READERS + 200;
	my $ledger  = ledger();
	my $gate    = $ledger->ready_gate(admin => 1, max_staleness => '1min');
	my @readers = map { open_stream($gate, '/revocations') } 1 .. READERS;
	poll_until('all of them to be served', sub { $gate->metric('sessauth_gate_event_streams') == READERS });
	sysread(open_stream($gate, '/revocations'), my $refusal, 4096);
	like($refusal, qr{^HTTP/1\.\d 503 }, 'one more is refused');
	$ledger->revoke(user => 'acme', 'alice', 2);
	my $told = grep { my $text = ''; 1 while $text !~ /event: revoked\n/ && sysread($_, $text, 65536, length $text); $text =~ /"alice"/ } @readers;
	is($told, READERS, 'each of the others is told of a revocation');
	is($gate->auth($ledger->token(user => 'bob')), 200, 'requests are answered');
	close shift @readers;
	poll_until('the one that has left to be noticed', sub { $gate->metric('sessauth_gate_event_streams') < READERS });
	ok(follow($gate, '/revocations')->('connected'), 'when one has left, there is room for another');
	is($gate->stop, 0, 'the gate ends cleanly with all of them');
};

subtest 'silence is broken now and then' => sub {
	my $text = '';
	poll_until('a comment', sub {
		sysread($silent, $text, 65536, length $text) if IO::Select->new($silent)->can_read(0);
		return $text =~ /^: keep-alive\r?\n/m;
	}, 60);
	unlike($text, qr/event: (?!connected)/, 'nothing has happened, and yet the reader hears that the gate is there');
};

done_testing();

# ---- helpers ----

sub ledger { return Sessauth::Publisher->new(redis => $redis, prefix => 'events' . ++$count . ':'); }

sub open_stream
{
	my ($gate, $uri, $headers, $version) = @_;
	my $socket = $gate->connect_socket($gate->admin_url);
	print $socket "GET $uri HTTP/", $version // '1.0', "\r\nHost: x\r\n", $headers // '', "\r\n";
	return $socket;
}

# Reads a stream of events. The sub that it returns gives the next event, which must have that name (comments are skipped), or undef for the end.
sub follow
{
	my ($gate, $uri, $last) = @_;
	my $socket = open_stream($gate, $uri, defined $last ? "Last-Event-ID: $last\r\n" : '');
	my $skip   = defined $last ? 'connected' : '';
	my ($text, $ended, @events) = ('', 0);
	return sub {
		my ($wanted, $meanwhile) = @_;
		poll_until($wanted // 'the end', sub {
			$meanwhile->() if $meanwhile;
			while (!@events && !$ended && IO::Select->new($socket)->can_read(0))
			{
				$ended = !sysread($socket, $text, 65536, length $text);
				$text =~ s/^HTTP.*?\r\n\r\n//s;
				while ($text =~ s/^(.*?)\n\n//s)
				{
					my $event = $1;
					push @events, $event if $event =~ /^event: (?!\Q$skip\E$)/m;
				}
			}
			return @events || $ended;
		});
		my $event = shift @events;
		my $name  = ($event // '') =~ /^event: (\w+)$/m ? $1 : '';
		die "$name instead of $wanted: $event" if $name ne ($wanted // '');
		return $event;
	};
}
