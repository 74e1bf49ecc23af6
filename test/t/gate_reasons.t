# gate_reasons.t
#		Why the gate refuses a token: the reason in its challenge is the outcome of sessauth.verify(); and whose
#		tokens it takes, by issuer and audience.

use strict;
use warnings;

use Sessauth::Process qw(poll_until);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis  = Sessauth::Redis->start_server;
my $ledger = Sessauth::Publisher->new(redis => $redis);
my %long   = (max_staleness => '1h');

subtest 'reasons' => sub {
	my $gate = $ledger->ready_gate(%long, jwks => [qw(main second)]);
	my $now  = $ledger->now_s;
	my $good = $ledger->token;
	my ($head, $body, $signature) = split /\./, $good;
	my ($other_head, $other_body, $other_signature) = split /\./, $ledger->token(user => 'mallory');
	my $revoked = $ledger->token(user => 'bob');
	$ledger->revoke(user => 'acme', 'bob', 2);
	poll_until('the revocation', sub { $ledger->work; $gate->auth($revoked) == 401 });

	is($gate->auth($good), 200, 'a good token is accepted');
	my @cases = (
		[ 'revoked'       => 'a revoked one',                   $revoked ],
		[ 'expired'       => 'an expired one',                  $ledger->token(iat => $now - 7200, exp => $now - 3600) ],
		[ 'bad_signature' => 'the signature of another',        "$head.$body.$other_signature" ],
		[ 'bad_signature' => 'the claims of another',           "$head.$other_body.$signature" ],
		[ 'bad_signature' => 'a signature with one bit more',   "$head.$body." . ($signature =~ s/\A(.)/$1 eq 'A' ? 'B' : 'A'/er) ],
		[ 'malformed'     => 'two parts of three',              "$head.$body" ],
		[ 'malformed'     => 'a word',                          'nonsense' ],
		[ 'malformed'     => 'nothing',                         '' ],
		[ 'malformed'     => 'far too much',                    'x' x 9000 ],
		[ 'unknown_key'   => 'one of a key that nobody has published', $ledger->token(key => 'third') ],
		[ 'wrong_issuer'  => 'one of another issuer',           $ledger->token(issuer => 'https://elsewhere.example') ],
		[ 'wrong_issuer'  => 'one for another audience',        $ledger->token(audience => 'https://elsewhere.example') ]);
	for my $case (@cases)
	{
		my ($reason, $name, $token) = @$case;
		my $answer = $gate->get('/auth', $token);
		is($answer->{status}, 401, "$name is refused");
		is($answer->{headers}{'www-authenticate'}, qq{Bearer error="invalid_token", error_description="$reason"}, "as $reason");
		is($answer->{content}, "$reason\n", 'in the body, too');
		is_deeply([ grep { /^x-sessauth/ } keys %{ $answer->{headers} } ], [], 'and it says of nobody who that is');
	}

	# What PostgreSQL says to it, jose.t shows.
	my $early = $gate->get('/auth', $ledger->token(iat => $now + 3600, exp => $now + 7200));
	is($early->{status}, 503, 'one of the future may be of a clock that was set just now, and there is nobody to ask');
	like($early->{content}, qr/^cannot tell: the token begins later than/, 'which is what the gate says');
	ok(!exists $early->{headers}{'www-authenticate'}, 'without a challenge that would make its client log in again');
};

subtest 'issuer and audience' => sub {
	my %ours = (issuer => 'https://login.example', audience => 'https://api.example');
	my $gate = $ledger->ready_gate(%long, arguments => [ '--issuer', $ours{issuer}, '--audience', $ours{audience} ]);
	is($gate->auth($ledger->token(%ours)), 200, 'a gate takes tokens of its issuer for its audience');
	my %wrong = (
		'of the default issuer and audience' => {},
		'of the default issuer'              => { audience => $ours{audience} },
		'for the default audience'           => { issuer   => $ours{issuer} },
		'of an issuer whose name begins so'  => { %ours, issuer   => "$ours{issuer}.org" },
		'for an audience that ours begins with' => { %ours, audience => substr $ours{audience}, 0, -1 },
		'with issuer and audience exchanged' => { issuer => $ours{audience}, audience => $ours{issuer} });
	is($gate->reason($ledger->token(%{ $wrong{$_} })), 'wrong_issuer', "and none $_") for sort keys %wrong;

	my $by_variable = $ledger->ready_gate(%long, environment => { SESSAUTH_ISSUER => $ours{issuer}, SESSAUTH_AUDIENCE => $ours{audience} });
	is($by_variable->auth($ledger->token(%ours)), 200, 'variables say the same');
	is($by_variable->reason($ledger->token), 'wrong_issuer', 'and replace the default');
};

done_testing();
