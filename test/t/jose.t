# jose.t
#		Tokens and keys against an independent implementation, the npm package "jose":
#		it accepts what we sign, we accept what it signs with a key we know, and nobody
#		accepts what it can be made to forge.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP ();
use MIME::Base64 qw(decode_base64url);
use Sessauth;
use Test::More;

my @algorithms = qw(ES256 EdDSA RS256);
my $tool       = 'test/jose';

my ($node_version) = (qx(node --version 2>/dev/null) // '') =~ /^v(\d+)/;
plan skip_all => 'node (20 or later) and npm are not installed: no interoperation with jose was tested'
  if !defined $node_version || $node_version < 20 || system('npm --version >/dev/null 2>&1') != 0;
die "npm could not install jose:\n" . slurp_file("$tool/npm.log") unless -d "$tool/node_modules/jose";

my $ledger = new_ledger('jose');
my ($dba, $app) = ($ledger->dbh, $ledger->dbh('app'));
my $redis = Sessauth::Redis->start_server;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
my $gate = start_gate($ledger, $redis, node => 'ours')->wait_ready;

# ---- jose reads what we write ----

for my $alg (@algorithms)
{
	my $kid  = value($dba, 'SELECT sessauth.create_signing_key(?)', $alg);
	my $jwks = decode(value($app, 'SELECT sessauth.jwks()'));
	my ($jwk) = grep { $_->{kid} eq $kid } @{ $jwks->{keys} };
	my %login = %{ row($app, 'SELECT * FROM sessauth.issue_session(?, ?, claims => ?)', 'acme', "\x{e4}lice", '{"scope": "read"}') };
	my %refreshed = %{ row($app, 'SELECT * FROM sessauth.refresh_session(?)', $login{refresh_token}) };
	$gate->wait_auth($login{access_token}, 200);	# it has fetched the new key

	my %question = (token => $login{access_token}, issuer => 'sessauth', audience => 'sessauth');
	my ($thumbprint, $local, $again, $remote, $issuer, $audience) = jose(
		[ thumbprint => { jwk => $jwk } ],
		[ verify => { %question, jwks => $jwks } ],
		[ verify => { %question, jwks => $jwks, token => $refreshed{access_token} } ],
		[ verify => { %question, jwks => $gate->url . '/.well-known/jwks.json' } ],
		[ verify => { %question, jwks => $jwks, issuer => 'https://elsewhere.example' } ],
		[ verify => { %question, jwks => $jwks, audience => 'https://elsewhere.example' } ]);
	is($thumbprint, $kid, "$alg: the kid is the key's RFC 7638 thumbprint");
	is_deeply([ @{$jwk}{qw(alg use)} ], [ $alg, 'sig' ], "$alg: jwks() says what the key is for");
	is_deeply([ grep { exists $jwk->{$_} } qw(d p q dp dq qi oth k) ], [], "$alg: and nothing private");
	is_deeply($local->{header}, { alg => $alg, typ => 'at+jwt', kid => $kid }, "$alg: jose verifies an access token with jwks()")
	  or diag(explain($local));
	is($again->{header}{kid}, $kid, "$alg: and one of a refresh");
	is_deeply($remote, $local, "$alg: and with the keys that a gate publishes");
	is($issuer->{error},   'ERR_JWT_CLAIM_VALIDATION_FAILED', "$alg: but not for another issuer");
	is($audience->{error}, 'ERR_JWT_CLAIM_VALIDATION_FAILED', "$alg: nor for another audience");

	my %claims = %{ $local->{payload} };
	my ($tenant_epoch, $iat, $exp) = @{ $dba->selectrow_arrayref(
		q{SELECT t.epoch, floor(extract(epoch FROM s.created_at))::bigint, extract(epoch FROM $2::timestamptz)::bigint
		  FROM sessauth.session s JOIN sessauth.tenant t USING (tenant_id) WHERE session_id = $1},
		undef, @login{qw(session_id access_expires_at)}) };
	ok(length delete $claims{jti}, "$alg: there is a jti");
	isnt($again->{payload}{jti}, $local->{payload}{jti}, "$alg: which no other token has");
	is_deeply(\%claims,
		{ iss => 'sessauth', aud => 'sessauth', sub => "\x{e4}lice", client_id => 'acme', iat => $iat, exp => $exp,
		  tid => 'acme', uid => "\x{e4}lice", sid => $login{session_id}, epoch => $login{epoch}, tepoch => $tenant_epoch, scope => 'read' },
		"$alg: the claims are those of RFC 9068, ours and the caller's");
}

# ---- we read what jose writes ----

# jose's keys, pinned in a file for one gate; in the ledger, as keys that only verify, for verify() and the other gate.
my ($pairs) = jose(['generate']);
my $dir = private_dir();
write_file("$dir/jwks.json", encode({ keys => [ map { $pairs->{$_}{public} } @algorithms ] }));
my $pinned = start_gate($ledger, $redis, node => 'pinned', arguments => [ '--jwks', "$dir/jwks.json" ])->wait_ready;
for my $alg (@algorithms)
{
	my $public = $pairs->{$alg}{public};
	$dba->do('INSERT INTO sessauth.signing_key (kid, alg, public_jwk, retired_at) VALUES (?, ?, ?, now())',
		undef, $public->{kid}, $alg, encode($public));
}
my ($published) = jose([ verify => { jwks => $pinned->url . '/.well-known/jwks.json', token => 'x.y.z', issuer => 'sessauth', audience => 'sessauth' } ]);
like($published->{error}, qr/^ERR_J/, 'jose refuses nonsense with the pinned keys');

# What a header names as the address of a key must never be fetched: nobody may knock here.
my $trap = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 5) or die "listen: $!";
my $trap_url = 'http://127.0.0.1:' . $trap->sockport . '/jwks.json';

for my $i (0 .. $#algorithms)
{
	my $alg     = $algorithms[$i];
	my %keys    = (alg => $alg, pair => $pairs->{$alg}, other => $pairs->{ $algorithms[ $i - 1 ] });
	my $login   = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', "bob $alg");
	my $payload = payload_of($login->{access_token});
	my %header  = (alg => $alg, typ => 'at+jwt', kid => $keys{pair}{public}{kid});
	my ($hostile, $listed, $long_typ, $nbf) = jose(
		[ hostile => { %keys, payload => $payload, jku => $trap_url } ],
		map { [ sign => { key => $keys{pair}{private}, header => $_->[0], payload => $_->[1] } ] }
		  [ \%header, { %$payload, aud => [ 'https://elsewhere.example', 'sessauth' ] } ],
		[ { %header, typ => 'application/at+jwt' }, $payload ],
		[ \%header, { %$payload, nbf => $payload->{iat} } ]);
	BAIL_OUT("jose made no tokens: $hostile->{error}") if $hostile->{error};

	my %good = (plain => $hostile->{good}, 'with two audiences' => $listed, 'with the long typ' => $long_typ, 'with nbf' => $nbf);
	for my $name (sort keys %good)
	{
		is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $good{$name}), 'active', "$alg, $name: verify() accepts what jose signs");
		is($pinned->wait_auth($good{$name}, 200), 200, "$alg, $name: so does the gate with pinned keys");
		is($gate->wait_auth($good{$name}, 200), 200, "$alg, $name: and the gate with the ledger's keys");
	}
	my $headers = $pinned->get('/auth', $hostile->{good})->{headers};
	is_deeply([ @{$headers}{qw(x-sessauth-tenant x-sessauth-user x-sessauth-session x-sessauth-epoch)} ],
		[ 'acme', "bob%20$alg", @{$login}{qw(session_id epoch)} ], "$alg: and it says who that is");

	my %tokens = %{ $hostile->{tokens} };
	cmp_ok(scalar keys %tokens, '>=', 50, "$alg: jose made hostile tokens");
	for my $name (sort keys %tokens)
	{
		my $token   = $tokens{$name};
		my $outcome = value($app, 'SELECT outcome FROM sessauth.verify(?)', $token);
		is($outcome, expected_outcome($name), "$alg, $name: verify() refuses");
		(my $sendable = $token) =~ s/[\r\n]/ /g;
		my $refusal = '401 ' . expected_outcome($name);
		is(settled($pinned, $sendable), $refusal, "$alg, $name: the gate with pinned keys refuses");
		is(settled($gate, $sendable), $refusal, "$alg, $name: the gate with the ledger's keys refuses");
	}
	is_deeply([ $gate->auth($hostile->{good}), $pinned->auth($hostile->{good}) ], [ 200, 200 ], "$alg: the good token is still good");
	is_deeply([ grep { $_ ne 'session_issued' && $_ ne 'user_created' } map { $_->{kind} }
			rows($dba, 'SELECT kind FROM sessauth.history WHERE user_id = ?', "bob $alg") ],
		[], "$alg: no forged token has ended or changed the session");

	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', "bob $alg");
	is($_->wait_auth($hostile->{good}, 401), 401, "$alg: a revocation holds for what jose signed, too") for $gate, $pinned;
	is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $hostile->{good}), 'revoked', "$alg: in verify() as well");
}
ok(!IO::Select->new($trap)->can_read(0), 'nobody has fetched a key from where a header said');

# ---- a pinned file that gives the private keys away ----

write_file("$dir/private.json", encode({ keys => [ map { +{ %{ $pairs->{$_}{private} }, kid => $pairs->{$_}{public}{kid} } } @algorithms ] }));
my $indiscreet = start_gate($ledger, $redis, node => 'indiscreet', arguments => [ '--jwks', "$dir/private.json" ]);
poll_until('the gate to have a lease', sub { $indiscreet->log_contents =~ /the lease is fresh/ });
like($indiscreet->get('/readyz')->{content}, qr/no keys/, 'a gate takes no key whose private half lies in the pinned file');
my $nobody     = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'carol');
for my $alg (@algorithms)
{
	my ($token) = jose([ sign => { key => $pairs->{$alg}{private}, payload => payload_of($nobody->{access_token}),
				header => { alg => $alg, typ => 'at+jwt', kid => $pairs->{$alg}{public}{kid} } } ]);
	is($pinned->wait_auth($token, 200), 200, "$alg: a token is good where the public key is pinned");
	isnt($indiscreet->auth($token), 200, "$alg: and worth nothing where the file shows everybody the private key");
}
unlike($indiscreet->get('/.well-known/jwks.json')->{content}, qr/"d"/, 'and is not published');

done_testing;

# ---- helpers ----

# Runs requests (see test/jose/jose.mjs) and returns their results.
sub jose
{
	my (@requests) = @_;
	my ($out, $error);
	IPC::Run::run([ 'node', "$tool/jose.mjs" ], '<', \encode(\@requests), '>', \$out, '2>', \$error)
	  or die "jose.mjs failed: $error";
	return @{ decode($out) };
}

# Why verify() refuses, for the tokens that get as far as their signature or payload; form is all that is wrong with the others.
sub expected_outcome
{
	my ($name) = @_;
	return 'bad_signature' if $name =~ /^(a key|the address of a key|a certificate) in the header$/
	  || $name =~ /^(a signature of zeros|the (signature|payload) of another token|the signature in DER|a line break)$/;
	return 'unknown_key'   if $name eq 'a kid of its own, with its key';
	return 'wrong_issuer'  if $name =~ /^another (issuer|audience)$/ || $name eq 'an empty list of audiences';
	return 'not_yet_valid' if $name =~ /future$/;
	return 'expired'       if $name eq 'expired';
	return 'malformed';
}

# What a gate says to a token once it knows: a kid that it has never heard of costs a look at the keys first.
sub settled
{
	my ($which, $token) = @_;
	my $answer;
	poll_until('the gate to know', sub { ($answer = $which->get('/auth', $token))->{status} != 503 });
	chomp(my $why = $answer->{content});
	return "$answer->{status} $why";
}

sub payload_of
{
	my ($token) = @_;
	return decode(decode_base64url((split /\./, $token)[1]));
}

sub write_file
{
	my ($path, $text) = @_;
	open(my $file, '>:raw', $path) or die "$path: $!";
	print $file $text;
	close $file or die "$path: $!";
	return;
}

sub encode { return JSON::PP->new->utf8->canonical->encode($_[0]); }
sub decode { return JSON::PP->new->utf8->decode($_[0]); }
