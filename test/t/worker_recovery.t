# worker_recovery.t
#		The ledger itself goes back in time, or moves: numbers must never be used
#		twice with another meaning.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

# ---- set back to an older copy of its files ----

my ($ledger, $dba, $redis) = worker_ledger('primary', init => { allows_streaming => 1 });
my $key = link_key($dba);
my $node = new_node($redis, $key);

value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "kept-$_") for 1 .. 5;
wait_published($dba, $redis);
my $generation = generation($dba);
$ledger->stop;
my $copy = $ledger->basedir . '/copy';
system('cp', '-a', $ledger->data_dir, $copy) == 0 or die;
$ledger->start;
$dba = $ledger->dbh;
value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "lost-$_") for 1 .. 5;
wait_published($dba, $redis);
my @lost = map { $_->{m} } grep { $_->{uid} =~ /^lost/ } revocations($redis);
is(@lost, 5, 'revocations are published');
$ledger->stop;
rename $ledger->data_dir, $ledger->data_dir . '.lost' or die;
rename $copy, $ledger->data_dir or die;
$ledger->start;
$dba = $ledger->dbh;
is(value($dba, q{SELECT count(*) FROM sessauth.tenant_user WHERE user_id ~ '^lost'}), 0, 'the ledger is set back to before they happened');
poll_until('a new generation', sub { generation($dba) ne $generation });
pass('a mirror that remembers more means a new generation');
value($dba, q{SELECT sessauth.revoke_user('acme', 'new')});
wait_published($dba, $redis);
check_stream($dba, $redis, 'after the ledger was set back');
my %seen;
is(scalar(grep { $seen{"$_->{g} $_->{n}"}++ } grep { $_->{k} ne 'beat' } stream($redis)), 0, 'no number has two meanings');
my $answer = $node->ask->wait_answer;
is($answer->{g}, generation($dba), 'answers tell nodes of the new generation');
my %kept = map { $_->{uid} => 1 } grep { $_->{g} eq $answer->{g} } revocations($redis);
is_deeply([ grep { $kept{"kept-$_"} } 1 .. 5 ], [ 1 .. 5 ], 'it carries over what still matters');
like(slurp_file($ledger->logfile), qr/went back in time/, 'and the log says so');

# Set back, and then gone on differently, as far as the mirror: the same number, another revocation.
wait_published($dba, $redis);
$generation = generation($dba);
$ledger->stop;
system('cp', '-a', $ledger->data_dir, $copy) == 0 or die;
$ledger->start;
$dba = $ledger->dbh;
value($dba, q{SELECT sessauth.revoke_user('acme', 'one way')});
wait_published($dba, $redis);
$ledger->stop;
rename $ledger->data_dir, $ledger->data_dir . '.other' or die;
rename $copy, $ledger->data_dir or die;
$redis->pause;
$ledger->start;
$dba = $ledger->dbh;
my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'the other way')});
poll_until('it to have a number', sub { value($dba, 'SELECT n FROM sessauth.revocation_log WHERE event_id = ? AND generation = ?', $event, $generation) });
$redis->continue;
poll_until('a new generation', sub { generation($dba) ne $generation });
wait_published($dba, $redis);
wait_revocation($redis, $event);
check_stream($dba, $redis, 'after the ledger has gone another way');
%seen = ();
is(scalar(grep { $seen{"$_->{g} $_->{n}"}++ } grep { $_->{k} ne 'beat' } stream($redis)), 0, 'no number has two meanings');

# ---- somebody deletes rows of the log ----

value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "hole-$_") for 1 .. 3;
wait_published($dba, $redis);
$redis->pause;
value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "hole-$_") for 4 .. 8;
poll_until('the numbers', sub { value($dba, q{SELECT count(*) FROM sessauth.revocation_log WHERE user_id ~ '^hole-[4-8]'}) == 5 });
$dba->do(q{DELETE FROM sessauth.revocation_log WHERE user_id = 'hole-6'});
$redis->continue;
wait_published($dba, $redis);
check_stream($dba, $redis, 'after a row of the log was deleted');
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'after the hole')}));
pass('a hole in the log stops nobody');

$redis->pause;
value($dba, q{SELECT sessauth.revoke_user('acme', 'beside')});
poll_until('the number', sub { value($dba, q{SELECT count(*) FROM sessauth.revocation_log WHERE user_id = 'beside'}) });
$dba->do(q{UPDATE sessauth.revocation_log SET tenant_id = repeat('x', 1000), user_id = E'\\n' WHERE user_id = 'beside'});
$redis->continue;
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'after the rubbish')}));
wait_published($dba, $redis);
check_stream($dba, $redis, 'after rubbish was written into the log');

# Who can write to Redis can make it claim to be ahead. That may cost the mirror its service, not the ledger its peace.
$generation = generation($dba);
my %generations = ($generation => 1);
for (1 .. 2000)
{
	eval { $redis->command('HSET', 'sessauth:mirror', 'n', '1000000000') if $redis->command('HEXISTS', 'sessauth:mirror', 'owner') };
	$generations{ generation($dba) } = 1;
}
cmp_ok(scalar(keys %generations), '<=', 5, 'a mirror that claims again and again to be ahead is believed less and less often');
wait_streaming($dba);
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'after the claims')}));
wait_published($dba, $redis);
check_stream($dba, $redis, 'after false claims');

# ---- a standby ----

$ledger->backup('base');
my $standby = Sessauth::Ledger->new('standby');
$standby->init_from_backup($ledger, 'base', has_streaming => 1);
$standby->start;
$ledger->wait_for_catchup($standby);
my $sdba = $standby->dbh;
is(value($sdba, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^sessauth'}), 0, 'on a standby nothing runs');
$event = value($dba, q{SELECT sessauth.revoke_user('acme', 'before')});
wait_revocation($redis, $event);
$ledger->wait_for_catchup($standby);
$generation = generation($dba);
my $owner = value($dba, 'SELECT ledger_id FROM sessauth.ledger_state');
$dba->disconnect;
$ledger->stop('fast');
$standby->promote;
$sdba = $standby->dbh;
wait_streaming($sdba);
$event = value($sdba, q{SELECT sessauth.revoke_user('acme', 'after')});
wait_revocation($redis, $event);
pass('a promoted standby publishes at once');
isnt(generation($sdba), $generation, 'in a new generation');
is(value($sdba, 'SELECT ledger_id FROM sessauth.ledger_state'), $owner, 'of the same ledger');
wait_published($sdba, $redis);
check_stream($sdba, $redis, 'after a promotion');
ok($node->ask->wait_answer, 'and answers the nodes');
# ---- set back, and only a node remembers ----

for my $way ('sql', 'overtaken', 'redis')
{
	my ($ledger, $dba, $redis) = worker_ledger("rewound_$way");
	my $id = 'gate/' . '1' x 32;
	my $lease = sub { my ($g, $n) = @_; rows($dba, 'SELECT kind, number AS n FROM sessauth.lease(?, ?, ?, ?)', $id, '1s', $g, $n) };
	value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "kept-$_") for 1 .. 3;
	wait_published($dba, $redis);
	my $g = generation($dba);
	$ledger->stop;
	my $copy = $ledger->basedir . '/copy';
	system('cp', '-a', $ledger->data_dir, $copy) == 0 or die;
	$ledger->start;
	$dba = $ledger->dbh;
	value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "lost-$_") for 1 .. 5;
	wait_published($dba, $redis);
	my $node = new_node($redis, link_key($dba));
	@$node{qw(g n)} = ($g, 8);
	$node->ask->wait_answer;
	is((reverse $lease->($g, 8))[0]{n}, 8, "$way: a node knows eight revocations");
	my $told_at = value($dba, 'SELECT floor(extract(epoch FROM at) * 1000)::bigint FROM sessauth.revocation_log WHERE n = 8');
	is((reverse rows($dba, 'SELECT * FROM sessauth.lease(?, ?, ?, ?, ?)', $id, '1s', $g, 8, $told_at))[0]{kind}, 'lease', "$way: and may say when the last one was");
	$ledger->stop;
	rename $ledger->data_dir, $ledger->data_dir . '.lost' or die;
	rename $copy, $ledger->data_dir or die;
	$redis->command('FLUSHALL');
	$ledger->start;
	$dba = $ledger->dbh;
	wait_streaming($dba);
	is(generation($dba), $g, "$way: no mirror remembers that there were more than three");

	my @others = $way eq 'overtaken' ? map { "other-$_" } 1 .. 6 : ();
	if (@others)
	{
		value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, $_) for @others;
		wait_published($dba, $redis);
		is(value($dba, 'SELECT n FROM sessauth.ledger_state'), 9, 'the ledger has more revocations again, and other ones');
	}
	if ($way ne 'redis')
	{
		my $error = error_of($dba, 'SELECT * FROM sessauth.lease(?, ?, ?, ?, ?)', $id, '1s', $g, 8, $told_at);
		is($error && $error->{sqlstate}, '55000', 'the node gets no lease');
	}
	else
	{
		$node->ask;
	}
	poll_until('a new generation', sub { generation($dba) ne $g });
	pass("$way: what the node says means a new generation");
	my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'fourth')});
	my ($row) = grep { $_->{kind} eq 'user' && $_->{n} } poll_until('its number', sub { my @rows = $lease->($g, 8); $rows[-1]{n} == 4 + @others && \@rows })->[-2];
	is($row && $row->{n}, 4 + @others, "$way: in which it is told everything again");
	like(slurp_file($ledger->logfile), qr/a node knows more revocations than this ledger/, "$way: and the log says why");
}

done_testing;
