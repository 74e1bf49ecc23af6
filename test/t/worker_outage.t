# worker_outage.t
#		Redis may do anything: stop, stall, forget, go back in time, or be something
#		else. The ledger goes on, the view says what is wrong, and everything missed arrives.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('outage', redis => { config => [ '--enable-debug-command', 'yes' ] });
my $key = link_key($dba);
my $listener = $ledger->dbh;
$listener->do('LISTEN sessauth_revocation');

# ---- stopped ----

my $log = -s $ledger->logfile;
$redis->stop;
my $missed = value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
pass('a revocation commits while Redis is stopped');
poll_until('the hint', sub { $listener->pg_notifies });
pass('its notification does not wait for Redis');
my $down = poll_until('the outage in the view', sub { my $row = mirror_row($dba); $row->{state} eq 'down' && $row });
like($down->{last_error}, qr/\w/, 'the view says why');
my $session = login($dba, 'bob');
$redis->restart;
wait_revocation($redis, $missed);
pass('a revocation committed while Redis is stopped arrives when it is back');
poll_until('the login', sub { $redis->command('EXISTS', "session:{acme}:$session->{session_id}") });
pass('and so does a login');
check_stream($dba, $redis, 'after a restart');
my $lines = () = wait_log($ledger, qr/main" is back/, $log) =~ /mirror "main" is down/g;
is($lines, 1, 'an outage is one line in the log when it begins, and one when it ends');

# Longer than any token lives: what it missed has been forgotten by everybody, and it must go on all the same.
$redis->pause;
my @forgotten = map { value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "short-$_") } 1 .. 3;
poll_until('the log to have them', sub { value($dba, 'SELECT count(*) FROM sessauth.revocation_log WHERE event_id = ANY (?)', \@forgotten) == 3 });
$dba->do(q{UPDATE sessauth.revocation_log SET until = now() - interval '1 minute'});
poll_until('the log to forget', sub { value($dba, q{SELECT count(*) < 2 FROM sessauth.revocation_log}) });
$redis->continue;
wait_streaming($dba);
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'after')}));
pass('a mirror that was away for longer than tokens live goes on');
check_stream($dba, $redis, 'after being away for longer than tokens live');
my $node = new_node($redis, $key)->ask;
ok($node->wait_answer, 'and nodes are answered there');

# ---- stalled ----

$redis->pause;
my $from = now_ms();
$missed = value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
poll_until('the hint', sub { $listener->pg_notifies });
pass('a stalled Redis delays neither a commit nor its notification');
poll_until('the worker to have no transaction open', sub {
	!value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND xact_start IS NOT NULL}) });
pass('and no transaction stays open in the worker meanwhile');
poll_until('the stall in the view', sub { mirror_row($dba)->{state} eq 'down' });
$redis->continue;
wait_revocation($redis, $missed);
pass('and it arrives when Redis goes on');

# ---- forgetful ----

my @before = map { "$_->{g} $_->{n} $_->{m}" } revocations($redis);
$redis->command('FLUSHALL');
wait_streaming($dba);
poll_until('the stream to be back', sub { @{[ revocations($redis) ]} == @before });
is_deeply([ map { "$_->{g} $_->{n} $_->{m}" } revocations($redis) ], \@before, 'FLUSHALL is repaired: the same entries under the same numbers');
poll_until('the sessions to be back', sub { $redis->command('EXISTS', "session:{acme}:$session->{session_id}") });
poll_until('the full sync to end', sub { $redis->command('HEXISTS', 'sessauth:mirror', 'synced') });
pass('and the keys are there again');
is($redis->hash('user_epoch:{acme}:alice')->{epoch} // 'none', value($dba, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'alice'}) ,
	'also the epoch of a user') if login($dba, 'alice') && poll_until('alice', sub { $redis->command('EXISTS', 'user_epoch:{acme}:alice') });

$redis->command('DEL', 'sessauth:mirror');
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')}));
wait_published($dba, $redis);
check_stream($dba, $redis, 'after sessauth:mirror was deleted');

$redis->command('DEL', 'sessauth:revocations');
poll_until('a new stream', sub { my @b = beats($redis); @b && $redis->command('EXISTS', 'sessauth:mirror') && $b[-1] });
wait_published($dba, $redis);
poll_until('its entries', sub { scalar revocations($redis) });
check_stream($dba, $redis, 'after the stream was deleted');

$redis->command('XTRIM', 'sessauth:revocations', 'MAXLEN', 2);
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')}));
poll_until('the trimmed entries', sub { my %n = map { $_->{n} => 1 } revocations($redis); my ($b) = reverse beats($redis); $b && !grep { !$n{$_} } $b->{low} .. $b->{n} });
check_stream($dba, $redis, 'after somebody trimmed the stream');

$redis->command('XADD', 'sessauth:revocations', '*', 'g', 'x', 'n', 1, 'k', 'user', 'tid', 'acme');
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')}));
poll_until('the forged entry to be gone', sub { !grep { $_->{g} eq 'x' } stream($redis) });
check_stream($dba, $redis, 'after somebody wrote into the stream');

$redis->command('SET', $_, 'rubbish') for 'user_epoch:{acme}:bob', 'sessauth:answers';
$redis->command('DEL', 'sessauth:revocations');
$redis->command('SET', 'sessauth:revocations', 'rubbish');
my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')});
wait_streaming($dba);
poll_until('the stream in place of rubbish', sub { $redis->command('TYPE', 'sessauth:revocations') eq 'stream' });
wait_revocation($redis, $event);
poll_until('the epoch in place of rubbish', sub { $redis->command('TYPE', 'user_epoch:{acme}:bob') eq 'hash' });
ok($node->ask->wait_answer, 'keys of the wrong type are replaced');
$redis->command('DEL', 'sessauth:mirror');
$redis->command('SET', 'sessauth:mirror', 'rubbish');
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')}));
poll_until('sessauth:mirror in place of rubbish', sub { $redis->command('TYPE', 'sessauth:mirror') eq 'hash' });
wait_published($dba, $redis);
check_stream($dba, $redis, 'after rubbish in every key');

$log = -s $ledger->logfile;
$redis->command('SCRIPT', 'FLUSH');
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')}));
pass('SCRIPT FLUSH is survived');

# ---- set back to an older copy ----

sub save { my ($name) = @_; $redis->command('SAVE'); system('cp', $redis->dir . '/dump.rdb', $redis->dir . "/$name") == 0 or die; return; }

sub set_back
{
	my ($name) = @_;
	$redis->stop('KILL');
	system('cp', $redis->dir . "/$name", $redis->dir . '/dump.rdb') == 0 or die;
	$redis->restart;
	return;
}

my $old_session = login($dba, 'erin');
poll_until('the session', sub { $redis->command('EXISTS', "session:{acme}:$old_session->{session_id}") });
wait_published($dba, $redis);
save('old.rdb');
value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $old_session->{session_id});
value($dba, q{SELECT sessauth.revoke_user('acme', ?)}, "lost-$_") for 1 .. 5;
wait_published($dba, $redis);
poll_until('the session to be revoked', sub { $redis->hash("session:{acme}:$old_session->{session_id}")->{state} eq 'revoked' });
@before = map { "$_->{g} $_->{n} $_->{m}" } revocations($redis);
my $generation = generation($dba);
set_back('old.rdb');
wait_streaming($dba);
wait_published($dba, $redis);
is_deeply([ map { "$_->{g} $_->{n} $_->{m}" } revocations($redis) ], \@before, 'a stream rolled back is re-appended with the same numbers');
is(generation($dba), $generation, 'in the same generation');
poll_until('the session to be revoked again', sub { $redis->hash("session:{acme}:$old_session->{session_id}")->{state} eq 'revoked' });
pass('and a session key that had come back to life is dead again');

# ---- nothing else gets in the way ----

$redis->command('CONFIG', 'SET', 'maxmemory', '1');
value($dba, q{SELECT sessauth.revoke_user('acme', 'oom')});
poll_until('OOM in the view', sub { (mirror_row($dba)->{last_error} // '') =~ /OOM/ });
$redis->command('CONFIG', 'SET', 'maxmemory', '0');
wait_streaming($dba);
wait_published($dba, $redis);
pass('a full Redis is reported, and what it refused arrives when there is room');

# ---- what is not a mirror ----

my $locked = Sessauth::Redis->start_server(password => 'open sesame');
my $file   = $locked->dir . '/password';
my $write  = sub { my ($text, $mode) = @_; open my $f, '>', $file or die; print $f $text; close $f; chmod $mode, $file; };
my $refusal = sub { my ($name, $pattern, $what) = @_;
	my $row = poll_until("$name to say $pattern", sub { my $r = mirror_row($dba, $name); $r && ($r->{last_error} // '') =~ $pattern && $r });
	isnt($row->{state}, 'streaming', $what); };

$write->("wrong\n", 0600);
value($dba, 'SELECT sessauth.add_mirror(?, ?, ?)', 'locked', $locked->url, $file);
$refusal->('locked', qr/WRONGPASS/, 'a wrong password is reported');
unlike(slurp_file($ledger->logfile), qr/wrong\b.*password|"wrong"/, 'and not repeated in the log');
$write->("open sesame\n", 0644);
$refusal->('locked', qr/password file/, 'a password file that others may read is refused');
$write->("open sesame\n", 0600);
wait_streaming($dba, 'locked');
pass('and the right password is read when it is there');

value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'nopass', $locked->url =~ s{/0$}{/1}r);
$refusal->('nopass', qr/NOAUTH/, 'a missing password is reported');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'socket', $redis->unix_url . '?db=3');
wait_streaming($dba, 'socket');
pass('a unix socket and a database number will do');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'nosocket', 'unix:///nowhere/redis.sock');
$refusal->('nosocket', qr/could not connect/, 'a socket that is not there is reported');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'db', $locked->url =~ s{/0$}{/9999}r);
$refusal->('db', qr/\w/, 'a database that is not there is reported');

my $replica = Sessauth::Redis->start_server(config => [ '--replicaof', '127.0.0.1', $redis->port ]);
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'replica', $replica->url);
$refusal->('replica', qr/replica/, 'a replica is refused');
my $cluster = Sessauth::Redis->start_server(config => [ '--cluster-enabled', 'yes' ]);
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'cluster', $cluster->url);
$refusal->('cluster', qr/[Cc]luster/, 'Redis Cluster is refused');
my $evicting = Sessauth::Redis->start_server(config => [ '--maxmemory-policy', 'volatile-lru' ]);
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'evicting', $evicting->url);
like(wait_streaming($dba, 'evicting')->{warning}, qr/maxmemory-policy/, 'a Redis that may drop keys gets a warning');

# Servers that speak, but not like Redis: another protocol, an array that nobody could hold, silence, endless talk.
for my $case (
	[ ssh     => 'print $client "SSH-2.0-OpenSSH_9.2p1\r\n"; wait_for_end($client)' ],
	[ array   => 'print $client "*2000000000\r\n"; wait_for_end($client)' ],
	[ nested  => 'print $client "*1\r\n" x 1000; wait_for_end($client)' ],
	[ bulk    => 'print $client "\$999999999999\r\n"; wait_for_end($client)' ],
	[ silent  => 'wait_for_end($client)' ],
	[ closing => 'close $client' ],
	[ endless => '1 while print $client "x" x 65536' ],
	[ replies => 'print $client "+OK\r\n" x 100000; wait_for_end($client)' ])
{
	my ($name, $code) = @$case;
	my $port = free_port();
	Sessauth::Process->start($name, [ $^X, '-MIO::Socket::INET', '-e', <<"END", $port ]);
		\$SIG{PIPE} = 'IGNORE';
		sub wait_for_end { 1 while sysread(\$_[0], my \$bytes, 4096) }
		my \$listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => shift, Listen => 5, ReuseAddr => 1) or die;
		while (my \$client = \$listener->accept) { next if fork; \$client->autoflush(1); $code; exit }
END
	value($dba, 'SELECT sessauth.add_mirror(?, ?)', $name, "redis://127.0.0.1:$port/0");
	$refusal->($name, qr/\w/, "a server that is not Redis is reported: $name");
}
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'last')}));
pass('none of them delays the mirror that works');
my $names = join ' ', map { $_->{name} } rows($dba, 'SELECT name FROM sessauth.mirrors WHERE name <> ? ORDER BY 1', 'main');
ok(value($dba, 'SELECT sessauth.remove_mirror(?)', $_), "mirror $_ is removed") for split ' ', $names;
poll_until('only main to be left', sub { value($dba, 'SELECT count(*) FROM sessauth.mirror_status()') == 1 });
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'last')}));

# ---- a mirror that moves ----

my $new_home = Sessauth::Redis->start_server;
$dba->do('UPDATE sessauth.mirror SET url = ?', undef, $new_home->url);
wait_published($dba, $new_home);
check_stream($dba, $new_home, 'after the URL was changed by hand');
poll_until('a full sync of the new server', sub { $new_home->command('HEXISTS', 'sessauth:mirror', 'synced') });
$dba->do('UPDATE sessauth.mirror SET url = ?', undef, $redis->url);
wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'moved')}));
wait_published($dba, $redis);
check_stream($dba, $redis, 'after it was changed back');

# ---- a mirror of somebody else ----

my $foreign = Sessauth::Redis->start_server;
$foreign->command('HSET', 'sessauth:mirror', 'schema', 1, 'owner', '11111111-1111-4111-8111-111111111111',
	'generation', '22222222-2222-4222-8222-222222222222', 'timeline', 1, 'n', 7, 'tail', 'x' x 43, 'id', '1-1', 'low', 1);
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'foreign', $foreign->url);
$refusal->('foreign', qr/another ledger|belongs to/, 'a mirror of another ledger is refused');
is_deeply($foreign->command('KEYS', '*'), ['sessauth:mirror'], 'and nothing is written to it');

is(value($dba, q{SELECT count(*) FROM sessauth.mirror_status()}), 2, 'the worker is still alive');
unlike(slurp_file($ledger->logfile), qr/terminated by signal|PANIC|TRAP/, 'and nothing has crashed');
done_testing;
