# gate_sanitized.t
#		The whole gate under ThreadSanitizer, and under the address and undefined behaviour sanitizers: with a
#		ledger and Redis, clients of every kind, revocations, reloads, an outage of Redis, and a stop in the middle of it.

use strict;
use warnings;

use FindBin;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Sessauth;
use Sessauth::Storm qw(storm);
use Socket qw(SOL_SOCKET SO_LINGER SO_RCVBUF);
use Test::More;

my $ledger = new_ledger('sanitized');
my ($dba, $app) = ($ledger->dbh, $ledger->dbh('app'));
my $redis = Sessauth::Redis->start_server;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', $_) for 'acme', 'globex';
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
my %admin;
my %client = (decider => \&decide, reader => \&read_events, lurker => \&lurk, quitter => \&quit, odd => \&say_odd_things, pipeliner => \&pipeline);
my @kinds  = (('decider') x 3, ('reader') x 2, 'lurker', 'quitter', 'odd', 'pipeliner');

for my $sanitizer ('thread', 'address')
{
	subtest "$sanitizer sanitizer" => sub { run_under($sanitizer) };
}

done_testing();

sub run_under
{
	my ($sanitizer) = @_;
	my $dir  = private_dir();
	my $stop = "$dir/stop";
	my $gate = start_gate($ledger, $redis,
		program     => ($ENV{TESTDIR} // '.') . "/build/tools/sessauth-gate-$sanitizer",
		arguments   => [ '--threads', 4, '--listen', "127.0.0.1:0,unix:$dir/gate.sock", '--admin-listen', '127.0.0.1:0', '--cookie', 'session',
			'--idle-timeout', '2s', '--max-cached-tokens', 256 ],
		environment => { TSAN_OPTIONS => "exitcode=66 suppressions=$FindBin::Bin/../tools/tsan.supp log_path=$dir/report", ASAN_OPTIONS => "log_path=$dir/report",
			UBSAN_OPTIONS => "print_stacktrace=1 log_path=$dir/report" })->wait_ready;
	my %at = (gate => $gate->url =~ s{^http://}{}r,
		admin => poll_until('the address of the admin listener', sub { $gate->log_contents =~ m{administration listening on http://(\S+)} && $1 }),
		unix => "$dir/gate.sock", stop => $stop);
	my $login = sub { row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', @_) };
	my @before = (map({ $login->('acme', "user $_") } 1 .. 3), map({ $login->('globex', "user $_") } 1 .. 3));
	$gate->wait_auth($_->{access_token}, 200) for @before;
	$at{token} = $before[2]{access_token};
	my $refused;

	my @results = storm(
		count     => scalar @kinds,
		connect   => sub { $ledger->dbh('app') },
		run       => sub {
			my ($dbh, $i) = @_;
			my $count = 0;
			until (-e $stop) { $client{ $kinds[$i] }->($dbh, $i, \%at); $count++; }
			return $count;
		},
		meanwhile => sub {
			value($app, 'SELECT sessauth.revoke_session(?, ?)', 'acme', $before[0]{session_id});
			reload($gate);
			$gate->wait_auth($before[0]{access_token}, 401);
			value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'user 2');
			value($dba, 'SELECT sessauth.rotate_signing_key()');
			my $new = $login->('acme', 'user 4');
			$gate->wait_auth($new->{access_token}, 200);
			$gate->wait_auth($before[1]{access_token}, 401);
			$redis->restart;
			reload($gate);
			value($app, 'SELECT sessauth.revoke_tenant(?)', 'globex');
			$gate->wait_auth($_->{access_token}, 401) for @before[ 3 .. 5 ];
			$gate->wait_ready;
			$gate->wait_auth($before[2]{access_token}, 200);
			reload($gate);
			$refused = join ' ', map { $gate->auth($_->{access_token}) } @before;
			is($gate->stop, 0, 'it ends cleanly while all of them go on');
			open my $file, '>', $stop or die $!;
		});
	is($refused, '401 401 200 401 401 401', 'what was revoked is refused, and nothing else');
	for my $i (0 .. $#kinds)
	{
		ok(!ref $results[$i] && $results[$i] > 0, "client $i, a $kinds[$i]") or diag(explain($results[$i]));
	}
	my @reports = glob "$dir/report*";
	is(scalar @reports, 0, 'the sanitizer has nothing to report') or diag(map { slurp_file($_) } @reports);
	return;
}

sub reload { my ($gate) = @_; kill 'HUP', $gate->pid for 1 .. 5; return; }

# ---- clients; each call is one round, which ends early when the gate has gone ----

# Logs in, is decided, logs out, and is never let in again.
sub decide
{
	my ($dbh, $i, $at) = @_;
	my $login = row($dbh, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', "client $i");
	my $http  = HTTP::Tiny->new(keep_alive => 1, timeout => 20);
	my $ask   = sub {
		my $status = $http->get("http://$at->{gate}/auth", { headers => $i % 2 ? { Authorization => "Bearer $login->{access_token}" }
				: { Cookie => "theme=dark; session=$login->{access_token}" } })->{status};
		die "status $status" unless $status =~ /^(200|401|503|599)$/;
		return $status;
	};
	for my $wanted (200, 401)
	{
		value($dbh, 'SELECT sessauth.revoke_session(?, ?)', 'acme', $login->{session_id}) if $wanted == 401;
		poll_until("status $wanted", sub { $ask->() == $wanted || -e $at->{stop} });
		$http->get("http://$at->{gate}$_") for '/readyz', '/.well-known/jwks.json';
		$http->get("http://$at->{admin}/metrics");
	}
	for (1 .. 3) { $ask->() != 200 or die 'a session that was revoked is active again'; }
	return;
}

# Follows revocations for a moment, as a tenant or from an id that may be long gone.
sub read_events
{
	my (undef, $i, $at) = @_;
	my $socket = connect_socket($at->{admin}) or return nap();
	syswrite($socket, 'GET /revocations' . ($i % 2 ? '?tenant=acme' : '') . " HTTP/1.1\r\nHost: x\r\nLast-Event-ID: " . ($at->{last} // 'x') . "\r\n\r\n");
	my $text = '';
	for (1 .. 4)
	{
		IO::Select->new($socket)->can_read(0.1) or next;
		sysread($socket, $text, 65536, length $text) or last;
	}
	$at->{last} = $1 if $text =~ /^id: (\S+)$/m;
	return;
}

# Begins requests, lets them wait, and is cut off; or reads no answer.
sub lurk
{
	my (undef, undef, $at) = @_;
	my @sockets = grep { defined } map { connect_socket($at->{gate}) } 1 .. 10;
	@sockets or return nap();
	syswrite($_, "GET /auth HTTP/1.1\r\nHost: x\r\nAuthoriz") for @sockets[ 0 .. $#sockets / 2 ];
	syswrite($_, "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $at->{token}\r\n\r\n") for @sockets[ $#sockets / 2 + 1 .. $#sockets ];
	IO::Select->new($sockets[0])->can_read(5);
	return;
}

# Asks by the dozen, and goes away before the answers come; by the unix socket.
sub quit
{
	my (undef, undef, $at) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $at->{unix}) or return nap();
	syswrite($socket, "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $at->{token}\r\n\r\n" x 12);
	return;
}

# Sends many requests in one packet, and reads the answers, which are in their order as far as they come; or far more of them, and leaves by a reset.
sub pipeline
{
	my (undef, undef, $at) = @_;
	my $socket = connect_socket($at->{gate}) or return nap();
	my $two = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\nGET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $at->{token}\r\n\r\n";
	if ($at->{pipelined}++ % 2)
	{
		setsockopt($socket, SOL_SOCKET, SO_RCVBUF, 4096) or die $!;
		setsockopt($socket, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) or die $!;
		$socket->blocking(0);
		syswrite($socket, $two x 10_000);
		IO::Select->new($socket)->can_read(5);
		return;
	}
	syswrite($socket, $two x 100 . "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n$two");
	my $text = '';
	1 while IO::Select->new($socket)->can_read(20) && sysread($socket, $text, 65536, length $text);
	my @answers = split m{(?=HTTP/1\.1 \d+ )}, $text;
	pop @answers if -e $at->{stop} || @answers < 201;
	die 'answers in a wrong order' if grep { $_ % 2 == ($answers[$_] =~ /"keys":/) } 0 .. $#answers;
	die @answers . ' answers' if @answers > 201;
	return;
}

# Methods, bodies and tokens that nobody expects; the connection ends whenever the gate has enough of it.
sub say_odd_things
{
	my (undef, undef, $at) = @_;
	my ($head, $body, $signature) = split /\./, $at->{token};
	for my $request ("HEAD /auth HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT /auth HTTP/1.1\r\n\r\n",
		"POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nhello", "GET /auth HTTP/1.1\r\nX: " . 'x' x 40_000 . "\r\n\r\n",
		(map { "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $_\r\n\r\n" } 'x', 'x' x 9000, '..', "$head.$body.", "$head.$signature.$body",
			'eyJhbGciOiJFUzI1NiIsImtpZCI6InVua25vd24iLCJ0eXAiOiJhdCtqd3QifQ.e30.' . 'A' x 86))
	{
		my $socket = connect_socket($at->{gate}) or return nap();
		syswrite($socket, $request);
		IO::Select->new($socket)->can_read(2) and sysread($socket, my $answer, 65536);
	}
	return;
}

sub connect_socket
{
	my ($address) = @_;
	$SIG{PIPE} = 'IGNORE';
	return IO::Socket::INET->new(PeerAddr => $address, Timeout => 5);
}

sub nap { select undef, undef, undef, 0.05; return; }
