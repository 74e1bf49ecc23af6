# worker_adopt.t
#		A ledger that has lost its last revocations takes them back from the mirror, before
#		it claims it; what nobody has signed is not believed; and no ledger takes
#		over the mirror of another one that lives.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;
use Worker;

my ($old, $dba, $redis) = worker_ledger('original', config => "sessauth.max_lease = 1s\n");
my $dir = private_dir();
my %token;

for my $user (qw(alice bob carol))
{
	$token{$user} = login($dba, $user);
}
value($dba, q{SELECT sessauth.create_tenant('closed')});
$token{erin} = login($dba, 'erin', 'closed');
my $kid = value($dba, 'SELECT kid FROM sessauth.signing_key');
value($dba, 'SELECT sessauth.rotate_signing_key()');
value($dba, q{SELECT sessauth.revoke_user('acme', 'before')});
PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-Fc', '-f', "$dir/dump", '-d', $old->connstr('postgres'));

# What the backup does not know.
$token{dave} = login($dba, 'dave');
value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, $_) for qw(bob dave);
value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $token{carol}{session_id});
value($dba, q{SELECT sessauth.revoke_tenant('closed')});
value($dba, q{SELECT sessauth.revoke_signing_key(?)}, $kid);
wait_published($dba, $redis);
my $lost = value($dba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'bob'});

# And what nobody has signed.
my @forged = ('g', generation($dba), 'n', 99, 'k', 'user', 'tid', 'acme', 'uid', 'alice', 'sid', '', 'kid', '', 'epoch', '1000000000',
	'eid', 1, 'at', 1, 'until', '9999999999999', 'm', 'x' x 43);
my $owner = $redis->hash('sessauth:mirror')->{owner};

# ---- restored, while the original lives ----

my $new  = restored('restored', "sessauth.max_lease = 1s\nrestart_after_crash = on\n");
my $ndba = $new->dbh;
is(value($ndba, 'SELECT sessauth.activate()'), 1, 'the restored ledger is activated');
poll_until('the refusal', sub { (mirror_row($ndba)->{last_error} // '') =~ /another ledger, which is alive/ });
for (1 .. 3)
{
	value($ndba, q{SELECT sessauth.revoke_user('acme', 'staging')});
	my $id = $redis->hash('sessauth:mirror')->{id};
	poll_until('the original to go on', sub { $redis->hash('sessauth:mirror')->{id} ne $id });
}
is($redis->hash('sessauth:mirror')->{owner}, $owner, 'a mirror whose owner lives is not taken over');
is_deeply([ grep { $_->{uid} eq 'staging' } revocations($redis) ], [], 'and nothing is written to it');

# Redis hangs for longer than any lease, and then the copy is the first to look: that says nothing about the owner.
my $original = value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = current_database()});
kill 'STOP', $original or die "kill: $!";
my $looked = value($ndba, q{SELECT last_error_at FROM sessauth.mirrors});
poll_until('the copy to see the last beat', sub { value($ndba, q{SELECT last_error_at FROM sessauth.mirrors}) ne $looked });
$redis->pause;
for (1 .. 2)
{
	my $at = value($ndba, q{SELECT last_error_at FROM sessauth.mirrors});
	poll_until('the copy to wait in vain', sub { my $row = mirror_row($ndba); $row->{last_error} =~ /timeout|reply|answer/ && $row->{last_error_at} ne $at });
}
$redis->continue;
poll_until('the copy to look', sub { my $row = mirror_row($ndba); $row->{state} eq 'streaming' || $row->{last_error} =~ /another ledger/ });
kill 'CONT', $original or die "kill: $!";
is($redis->hash('sessauth:mirror')->{owner}, $owner, 'nor after Redis was away for longer than a lease');

# ---- the original is gone ----

my $hold = $new->dbh;
$hold->begin_work;
$hold->do(q{SELECT 1 FROM sessauth.tenant_user WHERE user_id = 'bob' FOR UPDATE});
$old->stop('immediate');
$redis->command('XADD', 'sessauth:revocations', '*', @forged);
$redis->command('HSET', 'sessauth:mirror', 'id', ${ $redis->command('XREVRANGE', 'sessauth:revocations', '+', '-', 'COUNT', 1) }[0][0]);
poll_until('what cannot be adopted yet to be told', sub { (mirror_row($ndba)->{last_error} // '') =~ /locked/ });
is($redis->hash('sessauth:mirror')->{owner}, $owner, 'the mirror is not claimed before the ledger has adopted all of it');
ok((grep { $_->{uid} eq 'bob' } revocations($redis)), 'nor is anything taken from it');

# A worker that is killed in between has lost nothing.
my $pid = value($ndba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = current_database()});
kill 'KILL', $pid or die;
poll_until('the crash', sub { !eval { $hold->do('SELECT 1'); 1 } });
$ndba = poll_until('the server to be back', sub { eval { my $d = $new->dbh; value($d, 'SELECT 1') && $d } });
wait_streaming($ndba);
isnt($redis->hash('sessauth:mirror')->{owner}, $owner, 'a mirror whose owner has been silent for longer than any lease is taken over');

cmp_ok(value($ndba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'bob'}), '>=', $lost, 'the epoch that the backup did not know is adopted');
for my $user (qw(bob carol erin))
{
	my $outcome = value($ndba, 'SELECT outcome FROM sessauth.verify(?)', $token{$user}{access_token});
	isnt($outcome, 'active', "what had been revoked stays revoked: $user is $outcome");
}
is(value($ndba, 'SELECT outcome FROM sessauth.refresh_session(?)', $token{carol}{refresh_token}), 'revoked', 'a session that had ended has ended');
ok(value($ndba, 'SELECT revoked_at IS NOT NULL FROM sessauth.signing_key WHERE kid = ?', $kid), 'a key that had been revoked is revoked');
is(value($ndba, 'SELECT outcome FROM sessauth.refresh_session(?)', $token{alice}{refresh_token}), 'ok', 'who had not been revoked goes on');
cmp_ok(value($ndba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'alice'}), '<', 1_000_000_000, 'what nobody has signed is not believed');
cmp_ok(value($ndba, q{SELECT last_value FROM sessauth.epoch_seq}), '<', 1_000_000_000, 'and does not move the epochs');
is_deeply([ map { "$_->{revokes} $_->{who}" } rows($ndba, q{SELECT revokes, coalesce(user_id, nullif(tenant_id, ''), 'key') AS who FROM sessauth.event
	WHERE kind = 'revocation_adopted' ORDER BY 1, 2}) ], [ 'key key', 'session carol', 'tenant closed', 'user bob', 'user dave' ],
	'the history says what was adopted, each once, and also of a user whom the ledger does not know');
like(slurp_file($new->logfile), qr/adopted \d+ revocations that it had lost/, 'and the log says so');

my $gate = start_gate($new, $redis, node => 'new', max_staleness => '500ms', redis_alone => 1)->wait_ready;
is($gate->wait_auth($token{$_}{access_token}, 401), 401, "a gate that knows nothing but the new ledger refuses $_") for qw(bob carol dave erin);
wait_published($ndba, $redis);
check_stream($ndba, $redis, 'after the take-over');
my $events = value($ndba, q{SELECT count(*) FROM sessauth.event WHERE kind = 'revocation_adopted'});
$redis->command('DEL', 'sessauth:mirror');
wait_revocation($redis, value($ndba, q{SELECT sessauth.revoke_user('acme', 'again')}));
is(value($ndba, q{SELECT count(*) FROM sessauth.event WHERE kind = 'revocation_adopted'}), $events, 'what is known is not adopted again');

# The original comes back, and finds that it has been replaced.
$old->append_conf('postgresql.conf', 'sessauth.max_lease = 1h');
$old->start;
$dba = $old->dbh;
poll_until('it to be told', sub { (mirror_row($dba)->{last_error} // '') =~ /another ledger/ });
value($dba, q{SELECT sessauth.revoke_user('acme', 'too late')});
is_deeply([ grep { $_->{uid} eq 'too late' } revocations($redis) ], [], 'and writes nothing');
wait_revocation($redis, value($ndba, q{SELECT sessauth.revoke_user('acme', 'alive')}));

# ---- released ----

ok(value($ndba, q{SELECT sessauth.remove_mirror('main')}), 'the mirror is removed');
poll_until('the release', sub { !$redis->command('HEXISTS', 'sessauth:mirror', 'owner') });
pass('a mirror that is removed is released');
wait_streaming($dba);
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'back')}));
pass('and another ledger takes it over at once');
ok(value($dba, q{SELECT count(*) > 0 FROM sessauth.event WHERE kind = 'revocation_adopted' AND user_id = 'alive'}), 'with what the other one had revoked');

# ---- set back to an older copy of its own files ----

my $back = login($dba, 'frank');
$old->stop;
system('cp', '-a', $old->data_dir, "$dir/copy") == 0 or die;
$old->start;
$dba = $old->dbh;
wait_streaming($dba);
value($dba, q{SELECT sessauth.revoke_user('acme', 'frank')});
wait_published($dba, $redis);
$old->stop;
system('rm', '-rf', $old->data_dir) == 0 or die;
rename "$dir/copy", $old->data_dir or system('cp', '-a', "$dir/copy", $old->data_dir) == 0 or die;
$old->start;
$dba = $old->dbh;
wait_streaming($dba);
is(value($dba, 'SELECT outcome FROM sessauth.verify(?)', $back->{access_token}), 'revoked', 'a ledger that was set back has adopted what it lost');
wait_published($dba, $redis);
check_stream($dba, $redis, 'after the ledger was set back');
done_testing;

sub restored
{
	my ($name, $config) = @_;
	my $ledger = new_ledger($name, extension => 0, config => $config);
	$ledger->stop;
	system('cp', $old->{master_key_file}, $ledger->{master_key_file}) == 0 or die;
	$ledger->start;
	my $dbh = $ledger->dbh;
	$dbh->do("CREATE ROLE $_ LOGIN") for qw(app gate);
	$dbh->disconnect;
	PostgreSQL::Test::Utils::system_or_bail('pg_restore', '--exit-on-error', '-d', $ledger->connstr('postgres'), "$dir/dump");
	return $ledger;
}
