# erase.t
#		A user is erased, and every node refuses the old tokens: at once, and also when the
#		mirror was away. What a mirror reads later says nothing of the person, and harms nobody.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('erase');
my $redis  = Sessauth::Redis->start_server;
my $dba    = $ledger->dbh;
my $app    = $ledger->dbh('app');
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
my $gate = start_gate($ledger, $redis, node => 'a')->wait_ready;

my %token = map { $_ => login($_) } qw(alice bob carol);
is($gate->auth($token{$_}), 200, "$_ comes in") for sort keys %token;

# ---- while everything works ----

value($dba, 'SELECT sessauth.erase_user(?, ?)', 'acme', 'alice');
poll_until('the node to refuse the erased user', sub { $gate->auth($token{alice}) == 401 });
pass('the node refuses the token of an erased user');
my $again = login('alice');
poll_until('the node to accept the new user', sub { $gate->auth($again) == 200 });
is($gate->auth($token{alice}), 401, 'who comes under the same id brings no old token back');

# ---- while the mirror is away ----

$redis->pause;
value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'bob');
value($dba, 'SELECT sessauth.erase_user(?, ?)', 'acme', 'bob');
my $dave   = login('dave');
my $erased = value($dba, 'SELECT sessauth.erase_user(?, ?)', 'acme', 'dave');
poll_until('the erasures to be numbered',
	sub { value($dba, 'SELECT count(*) FROM sessauth.revocation_log WHERE event_id = ?', $erased) });
$redis->continue;
poll_until('the node to refuse the user erased meanwhile', sub { $gate->auth($token{bob}) == 401 });
pass('a mirror that was away still brings the erasure to the node');
poll_until('the node to refuse a login that it never heard of', sub { $gate->auth($dave) == 401 });
pass('also that of a user who came and was erased meanwhile');
poll_until('the node to be sure again', sub { $gate->auth($token{carol}) == 200 });
pass('and nobody else is logged out');

# ---- while the mirror is away for longer than nodes need the id ----

poll_until('the mirror to be even', sub { value($dba, 'SELECT behind FROM sessauth.mirrors') == 0 });
$redis->pause;
poll_until('the worker to give it up', sub { value($dba, 'SELECT state FROM sessauth.mirrors') ne 'streaming' });
my $erin = login('erin');
$erased = value($dba, 'SELECT sessauth.erase_user(?, ?)', 'acme', 'erin');
poll_until('the erasure to be complete', sub {
	$dba->do('UPDATE sessauth.revocation_log SET until = sessauth.ledger_time() WHERE event_id = ?', undef, $erased);
	value($dba, 'SELECT sessauth.finish_erasures()');
	value($dba, 'SELECT count(*) FROM sessauth.erasure WHERE event_id = ?', $erased) == 0;
});
is(value($dba, q{SELECT count(*) FROM sessauth.event WHERE user_id = 'erin'}), 0, 'the history has forgotten the user');
my ($pseudonym) = value($dba, 'SELECT user_id FROM sessauth.event WHERE event_id = ?', $erased);
like($pseudonym, qr/^erased-/, 'and has a pseudonym');
$redis->continue;
my $after = value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'nobody');
poll_until('the mirror to have everything', sub {
	value($dba, 'SELECT behind FROM sessauth.mirrors') == 0 && $redis->command('EXISTS', "user_epoch:{acme}:$pseudonym");
});
is_deeply([ grep { /erin/ } @{ $redis->command('KEYS', '*') } ], [], 'the mirror has no key under the real id');
poll_until('the node to be sure again', sub { $gate->auth($token{carol}) == 200 });
is($gate->auth($again), 200, 'and nobody else is logged out');

done_testing;

sub login
{
	my ($user) = @_;
	return value($app, 'SELECT access_token FROM sessauth.issue_session(?, ?)', 'acme', $user);
}
