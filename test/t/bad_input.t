# bad_input.t
#		Every refusal is a clear error or outcome, and nothing is lost: whatever
#		nonsense arrives over SQL, HTTP or a mirror's URL, the sessions that are there go on.

use strict;
use warnings;

use IO::Socket::INET;
use MIME::Base64 qw(encode_base64url);
use Sessauth;
use Test::More;

# ---- a server that is not set up ----

my $ledger = new_ledger('main', extension => 0,
	config => "shared_preload_libraries = ''\nsessauth.master_key_file = ''");
my $dba = $ledger->dbh;

refuses('CREATE EXTENSION without the preload', '55000', qr/HINT:.*shared_preload_libraries = 'sessauth'/s,
	$dba, 'CREATE EXTENSION sessauth');
is(value($dba, q{SELECT count(*) FROM pg_namespace WHERE nspname = 'sessauth'}), 0, 'and it leaves nothing behind');

$ledger->append_conf('postgresql.conf', q{shared_preload_libraries = 'sessauth'});
$ledger->restart;
$ledger->create_extension;
$dba = $ledger->dbh;
my $app = $ledger->dbh('app');

refuses('a signing key without a master key', 'F0000', qr/HINT:.*sessauth\.master_key_file/s,
	$dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
refuses('a login without a signing key', undef, qr/HINT:/, $app, 'SELECT sessauth.issue_session(?, ?)', 'acme', 'alice');
is(value($dba, 'SELECT count(*) FROM sessauth.session'), 0, 'and no session is left of it');

$ledger->append_conf('postgresql.conf', "sessauth.master_key_file = '$ledger->{master_key_file}'");
$ledger->restart;
($dba, $app) = ($ledger->dbh, $ledger->dbh('app'));
refuses('a login with a master key, but no signing key', '55000', qr/HINT:.*create_signing_key/s,
	$app, 'SELECT sessauth.issue_session(?, ?)', 'acme', 'alice');
refuses('a signing key of an unknown algorithm', '22023', qr/HINT:.*ES256/s, $dba, 'SELECT sessauth.create_signing_key(?)', 'HS256');
ok(value($dba, 'SELECT sessauth.create_signing_key()'), 'with both, there is a key');

# ---- a house with one guest, who must not notice anything ----

my $redis = Sessauth::Redis->start_server;
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
my $gate  = start_gate($ledger, $redis, node => 'a')->wait_ready;
my $guest = login('acme', 'alice');
undisturbed('at first');

# ---- ids ----

for my $case (
	[ 'an unknown tenant',        '42704', qr/HINT:.*create_tenant/s, 'nowhere', 'alice' ],
	[ 'an empty tenant',          '22023', qr/HINT:/, '',        'alice' ],
	[ 'an empty user',            '22023', qr/HINT:/, 'acme',    '' ],
	[ 'an oversized tenant',      '22023', qr/HINT:/, 'x' x 129, 'alice' ],
	[ 'an oversized user',        '22023', qr/HINT:/, 'acme',    'x' x 256 ],
	[ 'a control character',      '22023', qr/HINT:/, 'acme',    "al\nice" ],
	[ 'a null tenant',            '22004', qr/tenant_id must not be null/, undef,  'alice' ],
	[ 'a null user',              '22004', qr/user_id must not be null/,   'acme', undef ])
{
	my ($what, $sqlstate, $message, @who) = @$case;
	refuses("login with $what", $sqlstate, $message, $app, 'SELECT sessauth.issue_session(?, ?)', @who);
	refuses("forced logout with $what", $sqlstate, $message, $app, 'SELECT sessauth.revoke_user(?, ?)', @who);
}
is(value($dba, 'SELECT count(*) FROM sessauth.session'), 1, 'no refused login left a session');
is(value($app, 'SELECT sessauth.revoke_session(?, ?)', 'acme', '00000000-0000-0000-0000-000000000000'),
	undef, 'revoking a session that never was is null, not an error');
is(value($app, 'SELECT sessauth.revoke_session(?, ?)', 'globex', $guest->{session_id}) // 'null', 'null', 'nor does a foreign tenant end one')
  if value($dba, 'SELECT sessauth.create_tenant(?)', 'globex');
undisturbed('by bad ids');

# ---- names that Redis keys, URLs and headers treat specially ----

my %percent = ('a:b}{' => 'a%3Ab%7D%7B', '%' => '%25', "\x{dc}nal/ x" => '%C3%9Cnal%2F%20x', 'a' => 'a', 'b:c' => 'b%3Ac', 'a:b' => 'a%3Ab', 'c' => 'c');
for my $who ([ 'a:b}{', '%' ], [ 'a:b}{', "\x{dc}nal/ x" ], [ 'a', 'b:c' ], [ 'a:b', 'c' ])
{
	my ($tenant, $user) = @$who;
	my ($t, $u) = @percent{ $tenant, $user };
	value($dba, 'SELECT sessauth.create_tenant(?)', $tenant)
	  unless value($dba, 'SELECT true FROM sessauth.tenant WHERE tenant_id = ?', $tenant);
	my $session = login($tenant, $user);
	my $response = $gate->get('/auth', $session->{access_token});
	is($response->{status}, 200, "$t/$u gets in");
	is_deeply([ @{ $response->{headers} }{qw(x-sessauth-tenant x-sessauth-user)} ], [ $t, $u ], "$t/$u is told to the application percent-encoded");
	my $key = "session:{$t}:$session->{session_id}";
	poll_until("$key in the mirror", sub { $redis->command('EXISTS', $key) });
	value($app, 'SELECT sessauth.revoke_user(?, ?)', $tenant, $user);
	is($gate->wait_auth($session->{access_token}, 401), 401, "$t/$u is forced out");
	poll_until("the epoch of $t/$u in the mirror", sub { $redis->command('EXISTS', "user_epoch:{$t}:$u") });
}
undisturbed('by strange names');

# ---- tokens ----

# Two tokens of two keys, to mix their parts.
my $other_key = value($dba, 'SELECT sessauth.create_signing_key()');
my $newer     = login('acme', 'newer');
my ($header, $payload, $signature) = split /\./, $guest->{access_token};
my ($newer_header, $newer_payload, $newer_signature) = split /\./, $newer->{access_token};
my $none = encode_base64url('{"alg":"none","typ":"at+jwt"}');

for my $case (
	[ 'nothing at all',        'malformed',     '' ],
	[ 'garbage',               'malformed',     'garbage' ],
	[ 'dots',                  'malformed',     '..' ],
	[ 'hostile bytes',         'malformed',     "\x{7f}\x{1}'\"\\%00" ],
	[ 'an oversized token',    'malformed',     'A' x 9000 ],
	[ 'a truncated token',     qr/malformed|bad_signature/, substr($guest->{access_token}, 0, -1) ],
	[ 'a token with a tail',   qr/malformed|bad_signature/, "$guest->{access_token}A" ],
	[ 'a fourth part',         'malformed',     "$guest->{access_token}.AAAA" ],
	[ 'alg: none',             'malformed',     "$none.$payload." ],
	[ 'alg: none, signed',     'malformed',     "$none.$payload.$signature" ],
	[ 'the payload of another', 'bad_signature', "$header.$newer_payload.$signature" ],
	[ 'a key that is not its own', 'bad_signature', "$newer_header.$payload.$signature" ],
	[ 'an unknown key',        'unknown_key',   join('.', encode_base64url('{"alg":"ES256","typ":"at+jwt","kid":"no-such-key"}'), $payload, $signature) ],
	[ 'a refresh token',       'malformed',     $guest->{refresh_token} ])
{
	my ($what, $outcome, $token) = @$case;
	like(value($app, 'SELECT outcome FROM sessauth.verify(?)', $token), ref $outcome ? $outcome : qr/^\Q$outcome\E$/, "verify: $what is $outcome");
	is(value($app, 'SELECT outcome FROM sessauth.refresh_session(?)', $token), 'unknown', "refresh: $what is unknown")
	  unless $token eq $guest->{refresh_token};
	next if $token =~ /[^ -~]/;
	# Not 401 at once for a key that the node may just not know yet, but in the end.
	$gate->wait_auth($token, 401);
	my $response = $gate->get('/auth', $token);
	is($response->{status}, 401, "gate: $what is 401");
	like($response->{headers}{'www-authenticate'}, qr/^Bearer\b/, "gate: $what is told what is asked for");
	unlike($response->{content} . $response->{headers}{'www-authenticate'}, qr/\Q$token\E/, "gate: $what is not echoed") if length $token > 10;
}
for my $function ('verify', 'refresh_session')
{
	refuses("$function(null)", '22004', qr/must not be null/, $app, "SELECT sessauth.$function(NULL)");
}

value($dba, 'SELECT sessauth.create_tenant(?, ?)', 'brief', '{"access_ttl": 1}');
my $brief = login('brief', 'bob');
poll_until('the token to expire', sub { value($app, 'SELECT outcome FROM sessauth.verify(?)', $brief->{access_token}) eq 'expired' });
pass('verify: an expired token is expired');
is($gate->wait_auth($brief->{access_token}, 401), 401, 'gate: an expired token is 401');
is(value($app, 'SELECT outcome FROM sessauth.refresh_session(?)', $brief->{refresh_token}), 'ok', 'and its session goes on with a refresh');
undisturbed('by bad tokens');

# ---- garbage on the HTTP port ----

is($gate->auth(undef), 401, 'gate: no token is 401');
is($gate->get('/auth', undef, Authorization => 'Basic YTpi')->{status}, 401, 'gate: another scheme is 401');
is($gate->get('/nowhere', $guest->{access_token})->{status}, 404, 'gate: an unknown path is 404');
is($gate->{http}->request('POST', "$gate->{url}/auth", { headers => { Authorization => "Bearer $guest->{access_token}" } })->{status},
	200, 'gate: any method will do');
like(raw("GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $guest->{access_token}\r\nAuthorization: Bearer garbage\r\nConnection: close\r\n\r\n"),
	qr{^HTTP/1\.1 4\d\d }, 'gate: two Authorization headers are refused');

for my $case (
	[ 'random bytes',         pack('H*', random_hex(512)) . "\r\n\r\n" ],
	[ 'zero bytes',           "\0" x 4096 ],
	[ 'a TLS hello',          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . 'x' x 500 ],
	[ 'half a request',       'GET /auth HT' ],
	[ 'an endless line',      'GET /' . 'a' x 200_000 . " HTTP/1.1\r\n\r\n" ],
	[ 'an endless header',    "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " . 'a' x 200_000 . "\r\n\r\n" ],
	[ 'ten thousand headers', "GET /auth HTTP/1.1\r\n" . join('', map { "X-$_: y\r\n" } 1 .. 10_000) . "\r\n" ],
	[ 'a negative length',    "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" ],
	[ 'a length too long',    "POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n" ],
	[ 'broken chunks',        "POST /auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" ],
	[ 'a method of its own',  "BREW /auth HTCPCP/1.0\r\n\r\n" ])
{
	my ($what, $bytes) = @$case;
	unlike(raw($bytes), qr{^HTTP/1\.\d 200 }, "gate: $what does not get in");
	is($gate->auth($guest->{access_token}), 200, "gate: $what disturbs nobody");
}
undisturbed('by garbage over HTTP');

# ---- mirrors ----

for my $url ('', 'nonsense', 'http://127.0.0.1:80/', 'redis://', 'redis://127.0.0.1:99999/0', 'redis://127.0.0.1:6379/x', 'redis://me:secret@127.0.0.1:6379/0')
{
	my $error = refuses("a mirror at \"$url\"", '22023', qr/HINT:/, $dba, 'SELECT sessauth.add_mirror(?, ?)', 'wrong', $url);
	unlike($error->{message}, qr/secret/, 'and the password is not repeated') if $url =~ /secret/;
}
refuses('a mirror without a URL', '22004', qr/null/, $dba, 'SELECT sessauth.add_mirror(?, ?)', 'wrong', undef);
refuses('a mirror without a name', undef, qr/name/, $dba, 'SELECT sessauth.add_mirror(?, ?)', '', 'redis://127.0.0.1:6379/0');
refuses('a second name for a place', '42710', qr/DETAIL:  Mirror "main" has the same.*\nHINT:/, $dba, 'SELECT sessauth.add_mirror(?, ?)', 'twin', $redis->url =~ s{//}{//me@}r);
is(value($dba, q{SELECT string_agg(name, ' ') FROM sessauth.mirror}), 'main', 'no refused mirror is there');

# Something that listens and says what no Redis says.
my $port = free_port();
Sessauth::Process->start('not-redis', [ $^X, '-MIO::Socket::INET', '-e', <<'END', $port ]);
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => shift, Listen => 5, ReuseAddr => 1) or die;
	while (my $client = $listener->accept) { print $client "SSH-2.0-OpenSSH_9.2p1\r\n"; close $client; }
END
for my $case ([ refused => 'redis://127.0.0.1:' . free_port() . '/0' ], [ not_redis => "redis://127.0.0.1:$port/0" ])
{
	my ($name, $url) = @$case;
	value($dba, 'SELECT sessauth.add_mirror(?, ?)', $name, $url);
	poll_until("mirror $name to show its error",
		sub { value($dba, q{SELECT last_error FROM sessauth.mirrors WHERE name = ?}, $name) });
	isnt(value($dba, q{SELECT state FROM sessauth.mirrors WHERE name = ?}, $name),
		value($dba, q{SELECT state FROM sessauth.mirrors WHERE name = 'main'}), "mirror $name says in the view that it does not work");
}
my $late = login('acme', 'late');
is($gate->wait_auth($late->{access_token}, 200), 200, 'beside dead mirrors, logins go on');
value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'late');
is($gate->wait_auth($late->{access_token}, 401), 401, 'and forced logouts arrive');
undisturbed('by wrong mirrors');

done_testing;

# ---- helpers ----

# The statement raises this SQLSTATE (if given), with a message that matches; returns the error.
sub refuses
{
	my ($what, $sqlstate, $message, $dbh, $statement, @parameters) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $error = error_of($dbh, $statement, @parameters) // { sqlstate => 'none', message => 'no error' };
	is($error->{sqlstate}, $sqlstate, "$what is refused") if defined $sqlstate;
	like($error->{message}, $message, "$what: the error says what to do");
	return $error;
}

sub login
{
	my ($tenant, $user) = @_;
	my $session = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, $user);
	die "login of $tenant/$user: $session->{outcome}" if $session->{outcome} ne 'ok';
	return $session;
}

# The guest's session is live in the ledger and on the node.
sub undisturbed
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $guest->{access_token}), 'active', "verify: the guest is not disturbed $when");
	is($gate->wait_auth($guest->{access_token}, 200), 200, "gate: the guest is not disturbed $when");
	return;
}

# Sends bytes, says that there are no more, and returns what comes back.
sub raw
{
	my ($bytes) = @_;
	my ($gate_port) = $gate->url =~ /:(\d+)$/;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gate_port) or die "connect: $!";
	print $socket $bytes;
	shutdown $socket, 1;
	$socket->blocking(0);
	my $reply = '';
	poll_until('the gate to answer or to hang up',
		sub {
			my $read = sysread $socket, $reply, 65536, length $reply;
			return 0 if !defined $read && $!{EAGAIN};
			return !$read;
		});
	return $reply;
}
