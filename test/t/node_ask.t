# node_ask.t
#		What a node does when it cannot decide alone: it asks PostgreSQL, says what
#		that says, leaves a server alone that does not answer, and never guesses.

use strict;
use warnings;

use IO::Socket::INET;
use Sessauth;
use Test::More;

my $ledger = new_ledger('main', config => "track_functions = all\n");
my $redis  = Sessauth::Redis->start_server;
my $dba    = $ledger->dbh;
my $app    = $ledger->dbh('app');
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);

no_leases();
my %token = map { $_ => login($_) } qw(alice bob carol dave);
my $admin = '--admin-listen';
my $gate  = start_gate($ledger, $redis, max_staleness => '1s', arguments => [ $admin, '127.0.0.1:0' ])->wait_ready;
my $alone = start_gate($ledger, $redis, max_staleness => '1s', arguments => [ $admin, '127.0.0.1:0', '--ask-connections', 0 ])->wait_ready;
is($gate->auth($token{alice}), 200, 'a node that is sure says yes');
is(metric($gate, 'sessauth_node_asked_postgres_total'), 0, 'and has asked nobody');

subtest 'without a worker, PostgreSQL is asked' => sub {
	signal_worker('STOP');
	my %said;
	poll_until('the lease to be over', sub { $said{ $gate->auth($token{alice}) }++; asked('active') > 0 });
	ok(!$said{401}, 'a live session is never refused');
	is($gate->auth($token{alice}), 200, 'its token is accepted');
	is($gate->get('/auth', $token{alice})->{headers}{'x-sessauth-user'}, 'alice', 'with who it is');
	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'bob');
	is($gate->auth($token{bob}), 401, 'a user that has just been revoked is refused');
	like($gate->get('/auth', $token{bob})->{headers}{'www-authenticate'}, qr/revoked/, 'and told why');
	cmp_ok(asked('revoked'), '>=', 2, 'because PostgreSQL said so');
	is($gate->get('/readyz')->{status}, 503, 'the node is not ready meanwhile');
	poll_until('the other lease to be over', sub { $alone->auth($token{alice}) == 503 });
	isnt($alone->auth($token{bob}), 200, 'a node that may not ask says yes to nobody');
	like($alone->get('/auth', $token{alice})->{content}, qr/^cannot tell: the lease is over/, 'and why');
	is(metric($alone, 'sessauth_node_asked_postgres_total'), 0, 'it has not asked');
};

subtest 'what is no token of ours loads nobody' => sub {
	my $before = metric($gate, 'sessauth_node_asked_postgres_total');
	my ($head, $body, $signature) = split /\./, $token{alice};
	(my $other = $signature) =~ tr/A-Za-z/B-ZAb-za/;
	is($gate->auth("$head.$body.$other"), 401, 'a forged one');
	is($gate->auth("$head.$body"), 401, 'half of one');
	is($gate->auth('x' x 9000), 401, 'a huge one');
	is($gate->auth($token{alice}), 200, 'and then a real one');
	is(metric($gate, 'sessauth_node_asked_postgres_total'), $before + 1, 'only that is asked about');
	poll_until('the server to have counted', sub { calls_of_verify() >= $before + 1 });
	is(calls_of_verify(), $before + 1, 'and PostgreSQL has heard of no more');
};

subtest 'many requests with the same token share questions' => sub {
	my $before  = metric($gate, 'sessauth_node_asked_postgres_total');
	my $blocker = $ledger->dbh;
	$blocker->begin_work;
	$blocker->do('LOCK TABLE sessauth.session IN ACCESS EXCLUSIVE MODE');
	my @clients = map { request($gate, $token{alice}) } 1 .. 40;
	my $gone    = request($gate, $token{carol});
	poll_until('questions to be under way', sub { metric($gate, 'sessauth_node_asked_postgres_total') >= $before + 1 });
	close $gone;
	$blocker->commit;
	my %status;
	for my $socket (@clients)
	{
		sysread($socket, my $answer, 4096);
		$status{ $answer =~ m{^HTTP/1.1 (\d+)} ? $1 : 'none' }++;
	}
	is_deeply(\%status, { 200 => 40 }, 'all of them are answered');
	cmp_ok(metric($gate, 'sessauth_node_asked_postgres_total') - $before, '<', 20, 'by a few questions');
	is($gate->auth($token{carol}), 200, 'a client that went away meanwhile has harmed nobody');
};

subtest 'PostgreSQL that refuses to say' => sub {
	value($dba, 'SELECT sessauth.revoke_access(?, ?)', 'gate', 'node');
	poll_until('nobody to be able to tell', sub { $gate->auth($token{alice}) == 503 });
	like($gate->get('/auth', $token{alice})->{content}, qr/^cannot tell: the lease is over/, 'the client is told why');
	poll_until('the breaker to open', sub { $gate->auth($token{alice}); metric($gate, 'sessauth_node_ask_breaker_open') });
	like($gate->log_contents, qr/questions about tokens: PostgreSQL: ERROR:.*permission/, 'so is the administrator');
	$dba->begin_work;
	value($dba, 'SELECT sessauth.grant_access(?, ?)', 'gate', 'node');
	no_leases();
	$dba->commit;
	poll_until('it to be asked again', sub { $gate->auth($token{alice}) == 200 });
	pass('it recovers');
};

subtest 'PostgreSQL that is gone' => sub {
	$redis->pause;
	signal_worker('CONT');
	$_->disconnect for $dba, $app;
	$ledger->stop('immediate');
	is($gate->auth($token{alice}), 503, 'a live token cannot be told');
	my $refused = metric($gate, 'sessauth_node_asks_refused_total');
	my %said;
	poll_until('the breaker to open', sub { $said{ $gate->auth($token{$_}) }++ for keys %token; metric($gate, 'sessauth_node_ask_breaker_open') });
	poll_until('questions to be refused at once', sub { $said{ $gate->auth($token{$_}) }++ for keys %token; metric($gate, 'sessauth_node_asks_refused_total') > $refused + 10 });
	is_deeply([ keys %said ], [503], 'nobody is let in, nobody is logged out');
	cmp_ok(metric($gate, 'sessauth_node_ask_failures_total'), '>=', 3, 'failures are counted');
	$ledger->start;
	$dba = $ledger->dbh;
	$app = $ledger->dbh('app');
	my $before = asked('active');
	poll_until('it to be asked again', sub { $gate->auth($token{alice}) == 200 });
	cmp_ok(asked('active'), '>', $before, 'by PostgreSQL, because Redis is still away');
	is(metric($gate, 'sessauth_node_ask_breaker_open'), 0, 'the breaker has closed');
	is($gate->auth($token{bob}), 401, 'who was revoked is refused');
	like($gate->log_contents, qr/PostgreSQL answers questions about tokens again/, 'the log says so');
	$redis->continue;
	poll_until('the node to be sure again', sub { $gate->is_ready && $alone->is_ready });
	is($alone->auth($token{alice}), 200, 'and everybody goes on');
};

subtest 'more revocations than a node may remember' => sub {
	my $small = start_gate($ledger, $redis, max_staleness => '1s', arguments => [ $admin, '127.0.0.1:0', '--max-revocations', 20 ])->wait_ready;
	is($small->auth($token{dave}), 200, 'a small node is sure');
	my $key    = 'user_epoch:{acme}:dave';
	my $before = $redis->hash($key);
	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', "nobody$_") for 1 .. 40;
	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'dave');
	my %said;
	poll_until('it to be unsure', sub { $said{ $small->auth($token{alice}) }++; asked('active', $small) > 0 });
	ok(!$said{401}, 'a live session is never refused');
	is($small->auth($token{dave}), 401, 'a user whose revocation it could not keep is refused');
	is($small->auth($token{alice}), 200, 'the others are let in');
	like($small->get('/readyz')->{content}, qr/memory for revocations is full/, 'it is not ready, and says why');

	# Reading the stream again would bring the same, every other second.
	my $beat = sub { my ($last) = @{ $redis->command('XREVRANGE', 'sessauth:revocations', '+', '-', 'COUNT', 1) }; return { @{ $last->[1] } }->{b} // 0 };
	my ($read, $first) = (metric($small, 'sessauth_node_resyncs_total'), $beat->());
	poll_until('some beats', sub { $beat->() > $first + 20 });
	is(metric($small, 'sessauth_node_resyncs_total'), $read, 'it does not read the stream again for what cannot fit');

	my $by_redis = sub { metric($small, 'sessauth_gate_requests_total{decision="revoked",source="redis"}') };
	poll_until('Redis to know', sub { die 'accepted' if $small->auth($token{dave}) != 401; $by_redis->() > 0 });
	pass('Redis refuses, because its keys are authentic');
	cmp_ok(metric($small, 'sessauth_node_asked_redis_total'), '>', 2, 'it was asked first');

	my $revoked = $redis->hash($key);
	my $redis_said = $by_redis->();
	$redis->command('HSET', $key, %$before);
	is($small->auth($token{dave}), 401, 'an older value does not let him in');
	$redis->command('HSET', $key, epoch => $revoked->{epoch});
	is($small->auth($token{dave}), 401, 'nor does one without its own MAC');
	is($by_redis->(), $redis_said, 'neither says anything');

	my %login = %{ row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'erin') };
	my $session = "session:{acme}:$login{session_id}";
	poll_until('her keys', sub { $redis->command('EXISTS', $session) });
	my $accepted = asked('active', $small);
	my $tenant   = $redis->hash('tenant_epoch:{acme}');
	for my $forged (
		[ 'a session that is revoked', sub { $redis->command('HSET', $session, state => 'revoked') } ],
		[ 'a session with another one\'s value', sub { $redis->command('HSET', $session, %{ $redis->hash('user_epoch:{acme}:dave') }) } ],
		[ 'an epoch that is higher', sub { $redis->command('HSET', 'user_epoch:{acme}:erin', epoch => 999_999) } ],
		[ 'an epoch with another one\'s value', sub { $redis->command('HSET', 'user_epoch:{acme}:erin', %$revoked) } ],
		[ 'a tenant\'s epoch without a MAC', sub { $redis->command('HDEL', 'tenant_epoch:{acme}', 'm') } ],
		[ 'a key of another type', sub { $redis->command('DEL', $session); $redis->command('SET', $session, 'revoked') } ],
		[ 'a key with a thousand fields', sub { $redis->command('DEL', $session); $redis->command('HSET', $session, map { ("f$_" => 'revoked') } 1 .. 1000) } ],
		[ 'no key at all', sub { $redis->command('DEL', $session) } ])
	{
		my ($name, $forge) = @$forged;
		$forge->();
		is($small->auth($login{access_token}), 200, "$name refuses nobody");
		is(asked('active', $small), ++$accepted, 'and PostgreSQL decides');
	}

	$redis->command('HSET', 'tenant_epoch:{acme}', %$tenant);

	$redis->pause;
	my %hanging;
	my @clients = map { request($small, $_) } map { ($login{access_token}, @token{qw(alice carol)}, login("late$_")) } 1 .. 15;
	for my $socket (@clients)
	{
		sysread($socket, my $answer, 4096);
		$hanging{ $answer =~ m{^HTTP/1.1 (\d+)} ? $1 : 'none' }++;
	}
	is_deeply(\%hanging, { 200 => 60 }, 'when Redis hangs, PostgreSQL is asked soon, however many wait');
	$redis->continue;
	is($small->stop, 0, 'it ends cleanly');
};

subtest 'a Redis that is trusted' => sub {
	# Neither of them will ever know all revocations that matter.
	my @small = ($admin, '127.0.0.1:0', '--max-revocations', 20, '--ask-connections', 0);
	my $wary  = start_gate($ledger, $redis, max_staleness => '3s', arguments => \@small);
	my $trust = start_gate($ledger, $redis, max_staleness => '3s', arguments => [ @small, '--trust-redis' ]);
	my %login = %{ row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'frank') };
	my $token = $login{access_token};
	my ($session, $epoch) = ("session:{acme}:$login{session_id}", 'user_epoch:{acme}:frank');
	my $by_redis = sub { metric($trust, qq{sessauth_gate_requests_total{decision="$_[0]",source="redis"}}) };
	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', "somebody$_") for 1 .. 40;
	poll_until('a token to be accepted by its keys', sub { die 'refused' if $trust->auth($token) == 401; $by_redis->('active') > 0 });
	pass('is let in by its keys');
	poll_until('the wary one to be unsure', sub { $wary->auth($token) == 503 });
	pass('which for others is not enough');

	my %kept = ($session => $redis->hash($session), $epoch => $redis->hash($epoch));
	my $never = sub {
		my ($name, $change) = @_;
		my $before = $by_redis->('active');
		$change->();
		is($trust->auth($token), 503, "$name is not enough");
		is($by_redis->('active'), $before, 'and nobody was let in by it');
		$redis->command('DEL', $_), $redis->command('HSET', $_, %{ $kept{$_} }) for keys %kept;
	};
	$never->('a session without its user', sub { $redis->command('DEL', $epoch) });
	$never->('a session with a changed expiry', sub { $redis->command('HSET', $session, exp => 9_999_999_999) });
	$never->('no session', sub { $redis->command('DEL', $session) });
	poll_until('it to be let in again', sub { $trust->auth($token) == 200 });

	signal_worker('STOP');
	my $keys = $redis->command('HGET', 'sessauth:mirror', 'keys');
	$never->('what the worker has not finished', sub { $redis->command('HSET', 'sessauth:mirror', keys => 0) });
	$never->('what is of another generation', sub { $redis->command('HSET', 'sessauth:mirror', keys => $keys, generation => '11111111-0000-4000-8000-000000000001') });
	$redis->command('HSET', 'sessauth:mirror', generation => value($dba, 'SELECT generation FROM sessauth.ledger_state'));
	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'frank');
	poll_until('the answers to be too old', sub { $trust->auth($token) == 503 });
	signal_worker('CONT');
	poll_until('the revocation', sub { my $status = $trust->auth($token); die 'let in again' if $status == 200; $status == 401 });
	pass('a revocation is obeyed');
	poll_until('Redis to have said so', sub { $trust->auth($token); $by_redis->('revoked') > 0 });

	my %other = %{ row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'grace') };
	poll_until('another one to be let in', sub { $trust->auth($other{access_token}) == 200 });
	value($app, 'SELECT sessauth.logout(?)', $other{access_token});
	poll_until('her logout', sub { $trust->auth($other{access_token}) == 401 });
	pass('so is a logout');
	is($_->stop, 0, 'it ends cleanly') for $wary, $trust;
};

subtest 'stopping with questions under way' => sub {
	signal_worker('STOP');
	poll_until('the lease to be over', sub { asked('active', $gate) && !$gate->is_ready });
	my $blocker = $ledger->dbh;
	$blocker->begin_work;
	$blocker->do('LOCK TABLE sessauth.session IN ACCESS EXCLUSIVE MODE');
	my $before  = metric($gate, 'sessauth_node_asked_postgres_total');
	my @clients = map { request($gate, $token{$_}) } qw(alice carol) x 10;
	poll_until('questions to be under way', sub { metric($gate, 'sessauth_node_asked_postgres_total') > $before });
	kill 'TERM', $gate->pid;
	my %status;
	for my $socket (@clients)
	{
		my $answer = '';
		1 while sysread($socket, $answer, 4096, length $answer);
		$status{ $answer =~ m{^HTTP/1.1 (\d+)} ? $1 : 'none' }++;
	}
	is_deeply(\%status, { 503 => 20 }, 'clients are told that nobody can tell');
	poll_until('it to end', sub { defined $gate->ended });
	is($gate->ended, 0, 'and it ends cleanly');
	$blocker->rollback;
	signal_worker('CONT');
};

my @logs = map { slurp_file($_) } glob Sessauth::Process::log_dir() . '/*';
for my $name (sort keys %token)
{
	my ($signature) = $token{$name} =~ /([^.]+)$/;
	is(scalar(grep { index($_, $signature) >= 0 } @logs, slurp_file($ledger->logfile)), 0, "no log has the token of $name");
}

done_testing();

# ---- helpers ----

sub login { return row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', $_[0])->{access_token}; }

# PostgreSQL answers questions about tokens only: the lease comes over Redis.
sub no_leases { $dba->do('REVOKE EXECUTE ON FUNCTION sessauth.lease(text, interval, uuid, bigint, bigint) FROM gate'); return; }

sub signal_worker
{
	my ($signal) = @_;
	my $pid = value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = 'postgres'});
	kill $signal, $pid or die "kill: $!";
	return;
}

sub calls_of_verify { return value($dba, q{SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE schemaname = 'sessauth' AND funcname = 'verify'}); }

# A request on its way.
sub request
{
	my ($gate, $token) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $gate->url =~ s{^http://}{}r) or die "connect: $!";
	$socket->autoflush;
	print $socket "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $token\r\n\r\n";
	return $socket;
}

sub metric { my ($gate, $name) = @_; return $gate->metric($name); }

# How many requests PostgreSQL has decided so.
sub asked { my ($decision, $of) = @_; return metric($of // $gate, qq{sessauth_gate_requests_total{decision="$decision",source="postgres"}}); }
