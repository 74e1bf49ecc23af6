# redis_prefix.t
#		Several ledgers and mirrors share one Redis, each under a prefix of its own: none
#		touches what is another's, and nothing that was said under one prefix counts under another.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Publisher;
use Test::More;
use Worker;

my ($ledger, $dba) = worker_ledger('one', mirror => 0);
my ($other, $odba) = worker_ledger('two', mirror => 0);
my $redis = Sessauth::Redis->start_server;
my $url   = $redis->url;

value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'a', "$url?prefix=a:");
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'b', "$url?prefix=bb:");
value($odba, 'SELECT sessauth.add_mirror(?, ?)', 'c', "$url?prefix=c:");
wait_streaming($dba, 'a');
wait_streaming($dba, 'b');
wait_streaming($odba, 'c');
pass('two mirrors of one ledger and one of another share a Redis');

my %gate = (
	a => start_gate($ledger, undef, redis => "$url?prefix=a:", node => 'a', redis_alone => 1)->wait_ready,
	b => start_gate($ledger, undef, redis => "$url?prefix=bb:", node => 'b', redis_alone => 1)->wait_ready,
	c => start_gate($other, undef, redis => "$url?prefix=c:", node => 'c', redis_alone => 1)->wait_ready);
my $here  = login($dba, 'alice');
my $there = login($odba, 'alice');
is($gate{$_}->wait_auth($here->{access_token}, 200), 200, "gate $_ follows its mirror") for qw(a b);
is($gate{c}->wait_auth($there->{access_token}, 200), 200, 'gate c follows the other ledger');
value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
is($gate{$_}->wait_auth($here->{access_token}, 401), 401, "a revocation reaches gate $_") for qw(a b);
is($gate{c}->auth($there->{access_token}), 200, 'and not the namesake of the other ledger');

poll_until('the keys', sub { 2 == $redis->command('EXISTS', map { "$_:session:{acme}:$here->{session_id}" } 'a', 'bb') });
is_deeply([ sort grep { !/^(a:|bb:|c:)/ } @{ $redis->command('KEYS', '*') } ], [], 'no key is without a prefix');

# What is genuine under one prefix is worth nothing under another, although the link key is the same.
my $node = $redis->command('HGETALL', 'bb:sessauth:nodes');
$redis->command('HSET', 'a:sessauth:nodes', @$node);
my $asked = $redis->hash('a:sessauth:answers');
poll_until('gate a to have been answered again', sub {
	my $now = $redis->hash('a:sessauth:answers');
	my ($id) = grep { m{^a/} } keys %$now;
	$now->{$id} ne $asked->{$id} });
is_deeply([ grep { m{^b/} } keys %{ $redis->hash('a:sessauth:answers') } ], [], 'a nonce of another prefix is not answered');

my %as = (link_key => random_hex(32), g => Sessauth::Publisher::generation());
my $x  = Sessauth::Publisher->new(redis => $redis, prefix => 'x:', %as);
my $y  = Sessauth::Publisher->new(redis => $redis, prefix => 'y:', %as);
my $of_x = $x->start_gate;
poll_until('gate x to be ready', sub { $x->work; $of_x->is_ready });
my $token = $x->token(user => 'bob');
is($of_x->auth($token), 200, 'a token is good');
$x->add($y->revoke(user => 'acme', 'bob', 9));
$x->revoke(user => 'acme', 'carol', 9);
poll_until('what comes behind it', sub { $x->work; $of_x->auth($x->token(user => 'carol')) == 401 });
is($of_x->auth($token), 200, 'an entry of another prefix is not obeyed');

# Another place behind the same name gets everything, also when it had been the place before.
my $before = login($dba, 'dave');
poll_until('it under a', sub { $redis->command('EXISTS', "a:session:{acme}:$before->{session_id}") });
$dba->do('UPDATE sessauth.mirror SET url = ? WHERE name = ?', undef, "$url?prefix=d:", 'a');
poll_until('it under d', sub { $redis->command('EXISTS', "d:session:{acme}:$before->{session_id}") });
my $during = login($dba, 'erin');
poll_until('the next under d', sub { $redis->command('EXISTS', "d:session:{acme}:$during->{session_id}") });
$ledger->stop;
$ledger->start;
$dba = $ledger->dbh;
wait_streaming($dba, 'a');
$ledger->stop;
$ledger->append_conf('postgresql.conf', 'max_worker_processes = 0');
$ledger->start;
$dba = $ledger->dbh;
$dba->do('UPDATE sessauth.mirror SET url = ? WHERE name = ?', undef, "$url?prefix=a:", 'a');
$ledger->append_conf('postgresql.conf', 'max_worker_processes = 8');
$ledger->restart;
$dba = $ledger->dbh;
poll_until('it under a again', sub { $redis->command('EXISTS', "a:session:{acme}:$during->{session_id}") });
pass('a mirror that moves, while the worker looks or not, misses nothing');

for my $case ([ '?prefix={x}', 'prefix' ], [ '?prefix=' . 'x' x 65, 'too long' ], [ '?cacert=/x', 'TLS' ], [ '#x', '#' ], [ '?colour=red', 'prefix, db' ])
{
	my $error = error_of($dba, 'SELECT sessauth.add_mirror(?, ?)', 'wrong', "$url$case->[0]");
	is($error->{sqlstate}, '22023', "refused: $case->[0]");
	like($error->{message}, qr/\Q$case->[1]\E/, 'and the error says why');
}
done_testing;
