# verified.t
#		A backend remembers that it has verified a token, never that the token is good.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('main');
my $dba    = $ledger->dbh;
my $app    = $ledger->dbh('app');
my $kid    = value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
value($dba, 'SELECT sessauth.create_tenant(?, ?)', 'brief', '{"access_ttl": 2}');

sub login { return row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', @_)->{access_token}; }
sub outcome { return value($_[1] // $app, 'SELECT outcome FROM sessauth.verify(?)', $_[0]); }

# More tokens than are remembered, each asked twice, in an order that forgets them.
my @tokens = map { login('acme', "user$_") } 1 .. 2100;
for my $turn (1, 2)
{
	my %outcomes;
	$outcomes{ outcome($_) }++ for @tokens;
	is_deeply(\%outcomes, { active => 2100 }, "2,100 tokens are active, turn $turn");
}
my %ids = map { row($app, 'SELECT * FROM sessauth.verify(?)', $_)->{user_id} => 1 } @tokens[ 0 .. 99 ], @tokens[ 2000 .. 2099 ];
is(keys %ids, 200, 'each says its own user');

my $claims = row($app, 'SELECT access_token FROM sessauth.issue_session(?, ?, claims => ?)', 'acme', 'claimant', '{"role": "editor", "n": [1, 2]}');
for my $turn (1, 2)
{
	is(value($app, 'SELECT claims FROM sessauth.verify(?)', $claims->{access_token}), '{"n": [1, 2], "role": "editor"}', "claims, turn $turn");
}

my $token = login('acme', 'alice');
is(outcome($token), 'active', 'a token');
(my $other = $token) =~ s/(.)$/$1 eq 'A' ? 'E' : 'A'/e;
isnt(outcome($other), 'active', 'is not known by its beginning');
is(outcome("$token "), 'malformed', 'nor with something behind it');

value($dba, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'alice');
is(outcome($token), 'revoked', 'a revocation by somebody else counts at once');

my $brief = login('brief', 'bob');
is(outcome($brief), 'active', 'a token of two seconds');
poll_until('it to expire', sub { outcome($brief) eq 'expired' });
pass('expires although it is remembered');

$token = login('acme', 'carol');
is(outcome($token), 'active', 'a token');
$dba->do(q{ALTER SYSTEM SET sessauth.issuer = 'somebody else'});
value($dba, 'SELECT pg_reload_conf()');
poll_until('the new issuer', sub { outcome($token) eq 'wrong_issuer' });
pass('is not from the new issuer');
$dba->do(q{ALTER SYSTEM RESET sessauth.issuer});
value($dba, 'SELECT pg_reload_conf()');
poll_until('the old issuer', sub { outcome($token) eq 'active' });
pass('and is from the old one');

is(outcome($token, $dba), 'active', 'remembered by another backend, too');
$dba->begin_work;
value($dba, 'SELECT sessauth.revoke_signing_key(?)', $kid);
is(outcome($token, $dba), 'revoked', 'whose transaction revokes the key');
is(outcome($token), 'active', 'which nobody else knows of');
$dba->rollback;
is(outcome($token, $dba), 'active', 'and which is undone by its rollback');
value($dba, 'SELECT sessauth.revoke_signing_key(?)', $kid);
is(outcome($token), 'revoked', 'a revoked key counts at once');

done_testing();
