# worker_reconcile.t
#		Somebody changes a mirror by hand: what is missing, old or foreign is repaired;
#		what is genuine and more than the ledger knows is adopted; nobody who is logged in notices.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('reconcile',
	config => "sessauth.reconcile_interval = 0\nrestart_after_crash = on\n");
value($dba, q{SELECT sessauth.create_tenant('quiet')});
my $key  = link_key($dba);
my $gate = start_gate($ledger, $redis, node => 'a', redis_alone => 1)->wait_ready;
my %user = map { $_ => login($dba, $_) } qw(alice bob carol dave erin frank);
my %of   = map { $_ => "session:{acme}:$user{$_}{session_id}" } keys %user;

# ---- nothing is wrong ----

my $found = reconcile();
is_deeply($found, { missing => 0, stale => 0, foreign_keys => 0, ahead => 0 }, 'nothing is found wrong where nothing is');
cmp_ok(mirror_row($dba)->{checked}, '>=', 12, 'and everything was looked at, from both sides');

# ---- missing, stale, foreign ----

value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $user{carol}{session_id});
my $old = $redis->command('HGETALL', 'user_epoch:{acme}:dave');
value($dba, q{SELECT sessauth.revoke_user('acme', 'dave')});
drained();

$redis->command('DEL', $of{alice}, 'user_epoch:{acme}:bob', 'tenant_epoch:{quiet}');
$redis->command('HSET', 'user_epoch:{acme}:dave', @$old);
$redis->command('HSET', $of{carol}, 'state', 'active');
$redis->command('HSET', 'user_epoch:{acme}:erin', 'epoch', '1000000000');
$redis->command('DEL', $of{frank});
$redis->command('SET', $of{frank}, 'rubbish');
my $nobody = 'session:{acme}:00000000-0000-4000-8000-000000000001';
$redis->command('HSET', $nobody, 'state', 'active', 'm', 'x' x 100);
$redis->command('SET', 'somebody:else', 'stays');
$redis->command('HSET', 'session:{acme}:not-an-id', 'a', 'b');

$found = reconcile();
is_deeply($found, { missing => 3, stale => 1, foreign_keys => 4, ahead => 0 }, 'each is found for what it is');
is(state($of{alice}), 'active', 'a session that was deleted by hand is there again');
is($redis->command('EXISTS', 'user_epoch:{acme}:bob', 'tenant_epoch:{quiet}'), 2, 'and so are epochs');
is(epoch('dave'), value($dba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'dave'}), 'an old value that was genuine once is replaced');
is(state($of{carol}), 'revoked', 'a session that was revived by hand is dead again');
is(epoch('erin'), $user{erin}{epoch}, 'an epoch that nobody has signed is replaced');
is(value($dba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'erin'}), $user{erin}{epoch}, 'and not adopted');
is(state($of{frank}), 'active', 'rubbish is replaced');
is($redis->command('EXISTS', $nobody), 0, 'a session of nobody is gone');
is($redis->command('EXISTS', 'somebody:else', 'session:{acme}:not-an-id'), 2, 'what does not bear one of our names is not touched');
like(slurp_file($ledger->logfile), qr/mirror "main" was repaired: of \d+ keys 3 were missing, 1 stale, 4 foreign, 0 ahead/, 'the log tells it');
$found = reconcile();
is_deeply($found, { missing => 0, stale => 0, foreign_keys => 0, ahead => 0 }, 'afterwards nothing is wrong');
is(value($dba, q{SELECT count(*) FROM sessauth.event WHERE kind = 'revocation_adopted'}), 0, 'nothing of that has reached the ledger');
is($gate->auth($user{$_}{access_token}), 200, "$_ is still logged in") for qw(alice bob erin frank);

# ---- what should expire never would, or too early or too late ----

value($dba, 'DELETE FROM sessauth.session WHERE session_id = ? RETURNING 1', $user{carol}{session_id});
drained();
my @kept  = ((map { ($of{$_}, "user_epoch:{acme}:$_") } qw(alice bob dave)), $of{frank}, $of{carol}, 'tenant_epoch:{acme}');
my %right = map { $_ => $redis->command('PEXPIRETIME', $_) } @kept;
is($right{ $of{$_} }, 1000 * ($redis->command('HGET', $of{$_}, 'exp') + 60), "the session of $_ goes a minute after it has expired") for qw(alice carol);
is($right{'tenant_epoch:{acme}'}, -1, "a tenant's epoch never does");
$redis->command('PERSIST', $of{alice});
$redis->command('PERSIST', $of{carol});
$redis->command('PERSIST', 'user_epoch:{acme}:alice');
$redis->command('EXPIRE', $of{bob}, 3600);
$redis->command('EXPIRE', 'user_epoch:{acme}:bob', 3600);
$redis->command('EXPIRE', $of{frank}, 100_000_000);
$redis->command('EXPIRE', 'user_epoch:{acme}:dave', 1_000_000_000);
$redis->command('EXPIRE', 'tenant_epoch:{acme}', 3600);
my $over = 'session:{acme}:00000000-0000-4000-8000-000000000002';
my %over = (uid => 'alice', epoch => 1, tepoch => 1, exp => 1_700_000_000, state => 'revoked', v => 1);
$redis->command('HSET', $over, %over, 'm', mac($key, 'sessauth/1/session', $over, @over{qw(uid epoch tepoch exp state v)}));
$found = reconcile();
is_deeply($found, { missing => 0, stale => 9, foreign_keys => 0, ahead => 0 }, 'each is found stale');
is_deeply({ map { $_ => $redis->command('PEXPIRETIME', $_) } @kept }, \%right, 'and expires again when no token can need it any more');
is($redis->command('EXISTS', $over), 0, 'what should have been gone for long is gone');
$found = reconcile();
is_deeply($found, { missing => 0, stale => 0, foreign_keys => 0, ahead => 0 }, 'afterwards nothing is wrong');

# ---- ahead: the ledger has lost something that it has signed ----

my $more = $user{alice}{epoch} + 1000;
$redis->command('HSET', 'user_epoch:{acme}:alice', 'epoch', $more, 'm', mac($key, 'sessauth/1/epoch', 'user_epoch:{acme}:alice', $more));
my %session = %{ $redis->hash($of{bob}) };
@session{qw(state v)} = ('revoked', $session{v} + 5);
$redis->command('HSET', $of{bob}, %session, 'm', mac($key, 'sessauth/1/session', $of{bob}, @session{qw(uid epoch tepoch exp state v)}));
$redis->command('HSET', 'user_epoch:{acme}:stranger', 'epoch', $more + 5, 'm', mac($key, 'sessauth/1/epoch', 'user_epoch:{acme}:stranger', $more + 5));
$found = reconcile();
is($found->{ahead}, 2, 'what is genuine and more than the ledger knows is ahead');
is($found->{foreign_keys}, 0, 'and not foreign');
cmp_ok(value($dba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'alice'}), '>=', $more, 'the epoch is adopted');
is(value($dba, 'SELECT outcome FROM sessauth.verify(?)', $user{$_}{access_token}), 'revoked', "$_ is logged out") for qw(alice bob);
is($gate->wait_auth($user{$_}{access_token}, 401), 401, "the gate hears of it: $_") for qw(alice bob);
is_deeply([ map { "$_->{revokes} $_->{user_id}" } rows($dba, q{SELECT revokes, user_id FROM sessauth.event WHERE kind = 'revocation_adopted' ORDER BY 1}) ],
	[ 'session bob', 'user alice' ], 'the history has it');
value($dba, q{SELECT sessauth.revoke_user('acme', 'stranger')});
cmp_ok(value($dba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'stranger'}), '>', $more + 5, 'epochs go on above what any mirror remembers');
is($gate->wait_auth(login($dba, 'alice')->{access_token}, 200), 200, 'who was logged out can log in');
drained();
reconcile();
$found = reconcile();
is_deeply($found, { missing => 0, stale => 0, foreign_keys => 0, ahead => 0 }, 'afterwards nothing is wrong');

# The end of a session that a restored ledger believes alive, and has refreshed since: its version is higher than that of the end.
%session = %{ $redis->hash($of{frank}) };
$session{state} = 'revoked';
$redis->command('HSET', $of{frank}, 'state', 'revoked', 'm', mac($key, 'sessauth/1/session', $of{frank}, @session{qw(uid epoch tepoch exp state v)}));
my $refreshed = row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $user{frank}{refresh_token});
is($refreshed->{outcome}, 'ok', 'the ledger does not know that it has ended');
drained();
is(state($of{frank}), 'revoked', 'a newer version does not revive it in the mirror');
is(reconcile()->{ahead}, 1, 'it is ahead');
is(value($dba, 'SELECT outcome FROM sessauth.verify(?)', $refreshed->{access_token}), 'revoked', 'and has ended in the ledger, too');
drained();
reconcile();

# ---- many sessions, logins meanwhile, and a worker that is killed ----

my @tokens;
$dba->do(q{SELECT count(*) FROM generate_series(1, 3000) i, LATERAL sessauth.issue_session('acme', 'many' || i)});
drained();
my @names = map { "session:{acme}:$_->{session_id}" } rows($dba, q{SELECT session_id FROM sessauth.session WHERE user_id ~ '^many' ORDER BY random() LIMIT 1000});
$redis->command('DEL', @names[ 0 .. 499 ]);
$redis->command('HSET', $_, 'state', 'revoked') for @names[ 500 .. 999 ];
value($dba, 'SELECT sessauth.reconcile(?)', 'main');
poll_until('a comparison to be under way', sub { (mirror_row($dba)->{reconcile_checked} // 0) > 300 });
my $pid = value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker'});
kill 'KILL', $pid or die;
poll_until('the crash', sub { !eval { $dba->do('SELECT 1'); 1 } });
$dba = poll_until('the server to be back', sub { eval { my $d = $ledger->dbh; value($d, 'SELECT 1') && $d } });
wait_streaming($dba);
value($dba, 'SELECT sessauth.reconcile()');
my $wrong = 0;
poll_until('it to be repaired', sub {
	my $new = login($dba, 'meanwhile' . @tokens);
	push @tokens, $new->{access_token};
	my $status = $gate->auth($tokens[ rand @tokens ]);
	$wrong++ if $status == 401;
	(grep { (state($_) // '') eq 'active' } @names) == @names });
is($wrong, 0, 'nobody who is logged in was told to log in again meanwhile');
pass('a worker that was killed in the middle begins again, and comes to the end');
is(value($dba, q{SELECT count(*) FROM sessauth.session WHERE ended_at IS NOT NULL AND user_id ~ '^(many|mean)'}), 0, 'what nobody has signed has ended no session');
drained();
poll_until('a comparison that finds nothing', sub { !grep { $_ } values %{ reconcile() } });
pass('nothing is left to repair');
is(value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND xact_start IS NOT NULL AND now() - xact_start > interval '5 seconds'}), 0,
	'no transaction is held open');

# ---- on request and by the clock ----

$redis->command('DEL', @names[ 0 .. 9 ]);
my $before = mirror_row($dba)->{synced_at};
is(value($dba, 'SELECT sessauth.resync()'), 1, 'resync asks every mirror');
poll_until('a full sync', sub { my $r = mirror_row($dba); $r->{synced_at} && $r->{synced_at} ne $before });
is($redis->command('EXISTS', @names[ 0 .. 9 ]), 10, 'it brings everything');

$redis->command('DEL', $names[0]);
$ledger->append_conf('postgresql.conf', 'sessauth.reconcile_interval = 1s');
$ledger->reload;
poll_until('it to be repaired by itself', sub { $redis->command('EXISTS', $names[0]) });
pass('the interval does the same without a request');
is(error_of($dba, 'SELECT sessauth.reconcile(?)', 'none')->{sqlstate}, '42704', 'a mirror that is not there is an error');
is(error_of($dba, 'SELECT sessauth.resync(?)', 'none')->{sqlstate}, '42704', 'for resync, too');

# A user of Redis who may not list keys.
my $file = $redis->dir . '/password';
open(my $out, '>', $file) or die;
print $out "open sesame\n";
close $out;
chmod 0600, $file;
$redis->command('ACL', 'SETUSER', 'worker', 'on', '>open sesame', '~*', '+@all', '-scan');
value($dba, 'SELECT sessauth.add_mirror(?, ?, ?)', 'limited', 'redis://worker@127.0.0.1:' . $redis->port . '/5', $file);
poll_until('the view to say so', sub { (mirror_row($dba, 'limited')->{last_error} // '') =~ /cannot be compared/ });
wait_streaming($dba, 'limited');
pass('a mirror that cannot be compared is served all the same');
done_testing;

sub state { my ($name) = @_; return eval { $redis->command('HGET', $name, 'state') }; }
sub epoch { my ($user) = @_; return $redis->command('HGET', "user_epoch:{acme}:$user", 'epoch'); }

# Everything that has committed is in the mirror's keys.
sub drained
{
	my $last = login($dba, 'drain' . value($dba, 'SELECT count(*) FROM sessauth.session'));
	poll_until('the keys', sub { $redis->command('EXISTS', "session:{acme}:$last->{session_id}") });
	return;
}

# Asks, waits for its end, and returns what was found.
sub reconcile
{
	drained();
	my $last = mirror_row($dba)->{reconciled_at} // '';
	value($dba, 'SELECT sessauth.reconcile(?)', 'main');
	my $row = poll_until('the comparison to end', sub { my $r = mirror_row($dba); ($r->{reconciled_at} // '') ne $last && $r });
	return { map { $_ => $row->{$_} } qw(missing stale foreign_keys ahead) };
}
