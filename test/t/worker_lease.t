# worker_lease.t
#		An answer to a node's nonce means: everything that was committed before the
#		nonce was written is in the stream, up to the number in the answer.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('lease', config => "sessauth.max_lease = 10s\n");
my $key = link_key($dba);

# ---- what an answer says ----

my $node = new_node($redis, $key, name => 'api-1');
for my $round (1 .. 10)
{
	my $event = value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "u$round");
	my $answer = $node->ask->wait_answer;
	my ($entry) = grep { $_->{eid} == $event } revocations($redis);
	ok($entry && $entry->{n} <= $answer->{n} && $entry->{g} eq $answer->{g}, "round $round: what was committed before the nonce is in the stream and in the answer");
	@$node{qw(g n)} = @$answer{qw(g n)};
}
my ($beat) = reverse beats($redis);
my $answer = $node->ask->wait_answer;
cmp_ok($answer->{b}, '>', $beat->{b}, 'beats are counted');
cmp_ok($answer->{at}, '>=', $beat->{at}, 'and carry a time that does not go back');
is(value($dba, 'SELECT count(*) FROM sessauth.nodes'), 1, 'the node is in the view');
my $row = row($dba, 'SELECT name, mirror, n, behind FROM sessauth.nodes');
is_deeply([ @$row{qw(name mirror)} ], [ 'api-1', 'main' ], 'with its name and its mirror');
poll_until('the applied number in the view', sub { value($dba, 'SELECT n FROM sessauth.nodes') == $node->{n} });

# A writer that holds back its commit is not in the answer, and not in its way.
my $slow = $ledger->dbh;
$slow->begin_work;
my $open = value($slow, q{SELECT sessauth.revoke_user('acme', 'open')});
ok($node->ask->wait_answer, 'a writer left open does not delay answers');
$slow->commit;
$answer = $node->ask->wait_answer;
ok((grep { $_->{eid} == $open && $_->{n} <= $answer->{n} } revocations($redis)), 'the answer after its commit includes it');

# ---- what is not answered ----

my $forger = new_node($redis, $key, name => 'forger')->ask(forge => 1);
my $greedy = new_node($redis, $key, name => 'greedy', max_staleness => 10_001)->ask;
$redis->command('HSET', 'sessauth:nodes', 'garbage', 'garbage', 'a/b', '', 'x' x 10_000, 'y' x 10_000);
$node->ask->wait_answer for 1 .. 3;
ok(!$redis->command('HEXISTS', 'sessauth:answers', $forger->{id}), 'a forged nonce is not answered');
is(value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name = 'forger'}), 0, 'nor is its node known');
ok(!$redis->command('HEXISTS', 'sessauth:answers', $greedy->{id}), 'a lease longer than sessauth.max_lease is not given');
poll_until('the refusal in the view', sub { value($dba, q{SELECT refused FROM sessauth.nodes WHERE name = 'greedy'}) });
pass('and the view says so');

# An answered nonce is not answered again: its answer stays what it was.
my $first = $node->ask->wait_answer;
new_node($redis, $key, name => 'other')->ask->wait_answer for 1 .. 3;
is_deeply($node->answer, $first, 'an answer is given once');

# ---- many, and gone ----

my @many = map { new_node($redis, $key, name => "n$_")->ask } 1 .. 300;
$_->wait_answer for @many;
pass('hundreds of nodes are answered');
cmp_ok(value($dba, 'SELECT count(*) FROM sessauth.nodes'), '>=', 300, 'and known');
$redis->command('HDEL', $_, map { $_->{id} } @many) for 'sessauth:nodes', 'sessauth:answers';
poll_until('the nodes that have left to be forgotten', sub { value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name ~ '^n[0-9]'}) == 0 });
pass('nodes that delete their entry are forgotten');

$ledger->append_conf('postgresql.conf', 'sessauth.max_lease = 100ms');
$ledger->reload;
my $brief = new_node($redis, $key, name => 'brief', max_staleness => 100)->ask;
$brief->wait_answer;
pass('SIGHUP changes the settings of the worker');
poll_until('the silent node to be removed', sub { !$redis->command('HEXISTS', 'sessauth:nodes', $brief->{id}) && !$redis->command('HEXISTS', 'sessauth:answers', $brief->{id}) });
poll_until('the silent node to be forgotten', sub { value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name = 'brief'}) == 0 });
pass('the entries of a node that has been silent for long are removed');

# ---- leases that others have given ----

$ledger->append_conf('postgresql.conf', 'sessauth.max_lease = 20s');
$ledger->reload;
new_node($redis, $key, name => 'longer', max_staleness => 15_000)->ask->wait_answer;
is($redis->command('HGET', 'sessauth:mirror', 'lease'), 20_000, 'the mirror says how long leases may be before a longer one is given');
$redis->command('DEL', 'sessauth:nodes');

my $other = Sessauth::Redis->start_server;
my ($second, $sdba) = worker_ledger('second', mirror => 0, config => "sessauth.max_lease = 100ms\n");
$sdba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $other->url);
wait_streaming($sdba);
ok(value($sdba, q{SELECT sessauth.await_receipt(?, '1 min')}, value($sdba, q{SELECT sessauth.revoke_user('acme', 'a')})),
	'a revocation is confirmed');
$sdba->do(q{SELECT sessauth.remove_mirror('main')});
poll_until('the release', sub { !$other->command('HEXISTS', 'sessauth:mirror', 'owner') });
$other->command('HSET', 'sessauth:mirror', 'lease', 3_600_000);
for my $when ('taken over', 'seen by another worker')
{
	$sdba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $other->url) if $when eq 'taken over';
	wait_streaming($sdba);
	ok(!value($sdba, q{SELECT sessauth.await_receipt(?, '2s')}, value($sdba, q{SELECT sessauth.revoke_user('acme', ?)}, $when)),
		"a mirror $when: nothing is confirmed while its last owner's leases may be out");
	my $pid = value($sdba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker'});
	$sdba->do('SELECT pg_terminate_backend(?)', undef, $pid);
	poll_until('another worker', sub { (value($sdba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker'}) // $pid) != $pid });
}
$second->stop;
$ledger->append_conf('postgresql.conf', 'sessauth.max_lease = 100ms');
$ledger->reload;

# ---- the stream is kept as short as it may be ----

value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "old$_") for 1 .. 50;
wait_published($dba, $redis);
$dba->do(q{UPDATE sessauth.revocation_log SET until = now() - interval '1 second'});
poll_until('the stream to be trimmed', sub { !revocations($redis) });
pass('what no token can need any more is trimmed from the head');
poll_until('the log to be trimmed', sub { value($dba, 'SELECT count(*) FROM sessauth.revocation_log') <= 1 });
pass('and from the log');
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'new')}));
check_stream($dba, $redis, 'after trimming');
done_testing;
