# node_protocol.t
#		What a gate makes of a mirror, by doc/protocol.md: when it may serve, what it
#		refuses, and what nobody who can write to Redis can do to it.
#
# There is no PostgreSQL here: the test is the worker (Sessauth::Publisher), and it works only when told to.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER);
use Sessauth::Gate;
use Sessauth::Process qw(free_port now_ms poll_until private_dir slurp_file);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis = Sessauth::Redis->start_server;
my $count = 0;

my $alice = '11111111-0000-4000-8000-000000000001';
my $bob   = '11111111-0000-4000-8000-000000000002';

# ---- joining ----

subtest 'a node serves nothing before its first answered nonce' => sub {
	my $ledger = ledger();
	$ledger->revoke(user => 'acme', 'mallory', 2);
	$ledger->beat;
	my $gate = $ledger->start_gate;

	becomes($ledger, 'a token that is known to be revoked is refused at once', sub { $gate->auth($ledger->token(user => 'mallory')) == 401 }, work => 0);
	is($gate->auth($ledger->token), 503, 'but a good one cannot be told yet');
	is($gate->get('/readyz')->{status}, 503, 'and the gate is not ready');
	is($gate->get('/healthz')->{status}, 200, 'only alive');
	my $node = $ledger->node;
	is("$node->{g}/$node->{n}", '/0', 'it claims no position');
	becomes($ledger, 'it is ready when its nonce has been answered', sub { $gate->is_ready });
	is($gate->auth($ledger->token), 200, 'and serves');
	becomes($ledger, 'it then claims what it has applied', sub { my $node = $ledger->node; "$node->{g}/$node->{n}" eq "$ledger->{g}/1" });
};

subtest 'every kind of revocation is obeyed, and touches nobody else' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my %token  = (
		'a session'              => $ledger->token(user => 'alice', sid => $alice),
		'another session'        => $ledger->token(user => 'alice', sid => $bob),
		'a user'                 => $ledger->token(user => 'bob', epoch => 3),
		'its next login'         => $ledger->token(user => 'bob', epoch => 4),
		'a namesake elsewhere'   => $ledger->token(user => 'bob', tenant => 'globex', epoch => 3),
		'a tenant'               => $ledger->token(tenant => 'initech', tepoch => 1),
		'its next login, too'    => $ledger->token(tenant => 'initech', tepoch => 2),
		'a key'                  => $ledger->token(key => 'second'));
	for my $name (sort keys %token)
	{
		becomes($ledger, "$name is served", sub { $gate->auth($token{$name}) == 200 });
	}

	$ledger->revoke(session => 'acme', 'alice', $alice);
	$ledger->revoke(user => 'acme', 'bob', 4);
	$ledger->revoke(tenant => 'initech', 2);
	$ledger->revoke(key => $ledger->kid('second'));
	for my $name ('a session', 'a user', 'a tenant', 'a key')
	{
		becomes($ledger, "$name is refused once revoked", sub { $gate->auth($token{$name}) == 401 });
		like($gate->get('/auth', $token{$name})->{headers}{'www-authenticate'}, qr/error="invalid_token".*revoked/, 'and the answer says why');
	}
	for my $name ('another session', 'its next login', 'a namesake elsewhere', 'its next login, too')
	{
		becomes($ledger, "$name is still served", sub { $gate->auth($token{$name}) == 200 });
	}
};

# ---- holes ----

subtest 'a key that was revoked stays so, whatever a thief signs with it' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $stolen = $ledger->token(key => 'second', exp => $ledger->now_s + 1_000_000);
	becomes($ledger, 'before, it is as good as any', sub { $gate->auth($stolen) == 200 });
	$ledger->revoke(key => $ledger->kid('second'));
	becomes($ledger, 'it stops', sub { $gate->auth($stolen) == 401 });
	$ledger->advance(100_000);
	$ledger->revoke(user => 'acme', "user$_", 2) for 1 .. 300;
	becomes($ledger, 'when all else of then is forgotten', sub { $gate->auth($ledger->token(user => 'user300')) == 401 });
	becomes($ledger, 'the node is sure', sub { $gate->auth($ledger->token(user => 'bob')) == 200 });
	is($gate->auth($stolen), 401, 'and the key is still dead');
};

subtest 'a node that was away does not go by keys of before' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger, max_staleness => '4s');	# each request with a key that is gone waits for the keys for up to a second
	my $stolen = $ledger->token(key => 'second');
	becomes($ledger, 'a key is as good as any', sub { $gate->auth($stolen) == 200 });
	becomes($ledger, 'the lease runs out', sub { $gate->auth($stolen) == 503 }, work => 0);

	# Its revocation came and went.
	$ledger->write_jwks('main');
	$redis->command('DEL', $ledger->{revocations_key});
	$ledger->change_generation;
	my %said;
	becomes($ledger, 'the node is sure again', sub { $said{ $gate->auth($stolen) }++; $gate->auth($ledger->token(user => 'bob')) == 200 });
	ok(!$said{200}, 'and has not let in anybody by the key that was gone');
	is($gate->auth($stolen), 401, 'nor does it now');
};

subtest 'a node never joins across a hole' => sub {
	my $ledger = ledger();
	my $lost   = $ledger->number(user => 'acme', 'alice', 2);
	$ledger->revoke(user => 'acme', 'mallory', 2);
	my $gate = $ledger->start_gate;
	becomes($ledger, 'it has read the stream', sub { $gate->auth($ledger->token(user => 'mallory')) == 401 });
	becomes($ledger, 'it says what is wrong', sub { $gate->get('/readyz')->{content} =~ /not synced yet: the stream does not show revocation 1 of 2/ });
	never_served($ledger, $gate, $ledger->token(user => 'bob'), 'it serves nobody, however often it is answered');
	$ledger->add($lost);
	becomes($ledger, 'it joins when the entry is there again, behind others', sub { $gate->is_ready });
	is($gate->auth($ledger->token(user => 'alice')), 401, 'and knows what the entry says');
};

subtest 'an entry that the node never saw ends its lease' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $entry  = $ledger->number(user => 'acme', 'alice', 2);
	$redis->command('EVAL', q{redis.call('XDEL', KEYS[1], redis.call('XADD', KEYS[1], '*', unpack(ARGV)))}, 1, $ledger->{revocations_key}, @$entry);
	becomes($ledger, 'it cannot tell when the answers ask for more than there is', sub { $gate->auth($ledger->token(user => 'bob')) == 503 });
	never_served($ledger, $gate, $ledger->token(user => 'alice'), 'the user whose revocation is missing is not served');
	$ledger->add($entry);
	becomes($ledger, 'it recovers when the entry has been added again', sub { $gate->auth($ledger->token(user => 'bob')) == 200 });
	is($gate->auth($ledger->token(user => 'alice')), 401, 'and that user is refused');
};

subtest 'a stream that begins again with lower ids is read from its start' => sub {
	my $ledger = ledger();
	my $first  = $ledger->revoke(user => 'acme', 'mallory', 2);
	my $gate   = ready($ledger);
	my $second = $ledger->number(user => 'acme', 'alice', 2);
	$redis->command('DEL', $ledger->{revocations_key});
	$ledger->add($first, '1-1');
	$ledger->add($second, '1-2');
	# Beats would be added behind; here only answers go on.
	poll_until('the entry to be found', sub { answer_all($ledger); $gate->auth($ledger->token(user => 'alice')) == 401 });
	pass('the new entry is found');
	poll_until('the lease to go on', sub { answer_all($ledger); $gate->auth($ledger->token(user => 'bob')) == 200 });
	pass('and the node goes on');
};

subtest 'an empty stream is asked for politely' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $entry  = $ledger->number(user => 'acme', 'alice', 2);
	$redis->command('DEL', $ledger->{revocations_key});
	$redis->command('CONFIG', 'RESETSTAT');
	my %nonces;
	poll_until('four nonces', sub {
		my $node = answer_all($ledger);
		$nonces{ $node->{nonce} } = 1;
		keys %nonces == 4;
	});
	my ($reads) = $redis->command('INFO', 'commandstats') =~ /cmdstat_xread:calls=(\d+)/;
	cmp_ok($reads, '<', 1000, 'waiting for an entry that is not there does not keep Redis busy');
	$ledger->add($entry);
	becomes($ledger, 'and ends when it comes', sub { $gate->auth($ledger->token(user => 'bob')) == 200 });
};

# ---- what an attacker in Redis can do ----

subtest 'an entry that is not authentic does nothing but leave a hole' => sub {
	my $ledger   = ledger();
	my $attacker = ledger(prefix => $ledger->{prefix}, g => $ledger->{g});
	my $gate     = ready($ledger);
	$attacker->revoke(user => 'acme', 'alice', 9);
	$attacker->revoke(tenant => 'acme', 9);
	my $changed = $ledger->number(user => 'acme', 'alice', 2);
	my %field = @$changed;
	$ledger->add([ map { $_ => $_ eq 'epoch' ? 9 : $field{$_} } @$changed[ grep { !($_ & 1) } 0 .. $#$changed ] ]);
	$ledger->add([ map { $_ => $_ eq 'uid' ? 'bob' : $field{$_} } @$changed[ grep { !($_ & 1) } 0 .. $#$changed ] ]);
	$ledger->add([ @$changed, 'extra', '1' ]);
	$ledger->add([ @$changed[ 2 .. $#$changed ] ]);
	$ledger->add([ ('x' => 'y' x 100_000) x 100 ]);
	$ledger->add([ 'g', $ledger->{g} ]);

	# Number 2 is authentic, and behind all of the above.
	$ledger->{n} = 0;
	$ledger->number(user => 'acme', 'nobody', 1);
	my $later = $ledger->number(user => 'acme', 'mallory', 2);
	$ledger->add($later);
	becomes($ledger, 'the node has read them all', sub { $gate->auth($ledger->token(user => 'mallory')) == 401 });
	isnt($gate->auth($ledger->token(user => 'alice')), 401, 'nobody was logged out by them');
	isnt($gate->auth($ledger->token(user => 'bob')), 401, 'nobody else either');
	becomes($ledger, 'they do not count for the number they took', sub { $gate->auth($ledger->token(user => 'carol')) == 503 });
	never_served($ledger, $gate, $ledger->token(user => 'carol'), 'however long');
	$ledger->add($changed);
	becomes($ledger, 'the authentic one does', sub { $gate->auth($ledger->token(user => 'carol')) == 200 });
	is($gate->auth($ledger->token(user => 'alice')), 401, 'and is obeyed');
	is($gate->auth($ledger->token(user => 'alice', epoch => 2)), 200, 'to the letter');
};

subtest 'an answer that is forged, replayed or for another node extends nothing' => sub {
	my $ledger   = ledger();
	my $attacker = ledger(prefix => $ledger->{prefix}, g => $ledger->{g});
	my $gate     = ready($ledger, max_staleness => '500ms');
	my $old      = $ledger->node;
	my $replay   = $ledger->answer_to($old->{id}, $old->{nonce});
	becomes($ledger, 'a nonce has been used', sub { $ledger->node->{nonce} ne $old->{nonce} });
	(my $other = $old->{id}) =~ s{/.*}{'/' . '0' x 32}e;

	my @kinds = (
		[ 'an answer under another key',    sub { $attacker->answer_to($old->{id}, $_[0]) } ],
		[ 'an earlier answer',              sub { $replay } ],
		[ 'an earlier answer with the new nonce', sub { $replay =~ s/^\S+/$_[0]/r } ],
		[ 'an answer to another node',      sub { $ledger->answer_to($other, $_[0]) } ],
		[ 'an answer with a higher number', sub { $ledger->answer_to($old->{id}, $_[0]) =~ s/^(\S+ \S+) \d+/$1 0/r =~ s/ \d+ (\S+)$/ 9999999999999 $1/r } ],
		[ 'an empty answer',                sub { '' } ],
		[ 'half an answer',                 sub { substr $ledger->answer_to($old->{id}, $_[0]), 0, -20 } ],
		[ 'a huge answer',                  sub { $ledger->answer_to($old->{id}, $_[0]) x 10_000 } ]);
	my $token = $ledger->token;
	for my $kind (@kinds)
	{
		my ($name, $line) = @$kind;
		becomes($ledger, 'the node serves', sub { $gate->auth($token) == 200 });
		poll_until("$name to be of no use", sub { put_all($ledger, $line); $gate->auth($token) == 503 });
		never_served($ledger, $gate, $token, "$name extends nothing", sub { put_all($ledger, $line) });
	}
};

subtest 'old beats and entries of an old generation neither revive nor revoke' => sub {
	my $ledger = ledger();
	my @old    = ($ledger->beat, $ledger->revoke(user => 'acme', 'alice', 2), $ledger->beat);
	my $gate   = ready($ledger);
	my $old_g  = $ledger->{g};
	is($gate->auth($ledger->token(user => 'alice')), 401, 'a revocation of the old generation');

	$ledger->change_generation;
	$ledger->revoke(user => 'acme', 'alice', 3);
	becomes($ledger, 'the node has changed over', sub { my $node = $ledger->node; $node->{g} eq $ledger->{g} && $node->{n} == 1 });
	my $token = $ledger->token(exp => $ledger->now_s + 100);
	$ledger->advance(200);
	becomes($ledger, 'and knows the time', sub { $gate->auth($token) == 401 });
	for (1 .. 3)
	{
		$ledger->add($_) for @old;
	}
	$ledger->revoke(user => 'acme', 'mallory', 2);
	becomes($ledger, 'it has read the replayed ones', sub { $gate->auth($ledger->token(user => 'mallory')) == 401 });
	is($gate->auth($ledger->token(user => 'alice', epoch => 2)), 401, 'the higher epoch stands');
	is($gate->auth($token), 401, 'time did not go back');
	my $node = $ledger->node;
	is($node->{g}, $ledger->{g}, 'the generation did not, either');
	becomes($ledger, 'the others are served', sub { $gate->auth($ledger->token(user => 'bob')) == 200 });
};

subtest 'a new generation counts only when it is complete' => sub {
	my $ledger = ledger();
	$ledger->revoke(user => 'acme', "user$_", 2) for 1 .. 3;
	my $gate = ready($ledger);

	$ledger->change_generation;
	my $first = $ledger->number(user => 'acme', 'alice', 2);
	$ledger->revoke(user => 'acme', 'mallory', 2);
	$ledger->revoke(user => 'acme', 'trent', 2);
	becomes($ledger, 'a hole in it ends the lease', sub { $gate->auth($ledger->token) == 503 });
	never_served($ledger, $gate, $ledger->token(user => 'bob'), 'the numbers of the old one do not fill it');
	isnt($ledger->node->{g}, $ledger->{g}, 'the node does not claim it');
	$ledger->add($first);
	becomes($ledger, 'it goes on when the hole is filled', sub { $gate->auth($ledger->token(user => 'bob')) == 200 });
	is($gate->auth($ledger->token), 401, 'with what was in it');
	is($gate->auth($ledger->token(user => 'user1')), 401, 'and remembers the old one');
	becomes($ledger, 'and claims the new one', sub { my $node = $ledger->node; $node->{g} eq $ledger->{g} && $node->{n} == 3 });
};

# ---- silence ----

subtest 'without answers the lease runs out, and stays so until there is one' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $token  = $ledger->token;
	becomes($ledger, 'at first it serves', sub { $gate->auth($token) == 200 });
	becomes($ledger, 'when nothing is answered it cannot tell', sub { $gate->auth($token) == 503 }, work => 0);
	my $response = $gate->get('/auth', $token);
	ok($response->{headers}{'retry-after'}, 'it says when to try again');
	is($response->{content}, "cannot tell: the lease is over\n", 'and no more');
	like($gate->get('/readyz')->{content}, qr/lease is over: the worker has not answered/, 'the administrator is told why');
	never_served($ledger, $gate, $token, 'beats alone change nothing', sub { $ledger->beat });
	is($gate->auth('nonsense'), 401, 'what is certain is still said');
	becomes($ledger, 'an answer does', sub { $gate->auth($token) == 200 });
};

subtest 'a node that was stopped does not serve on its old lease' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $token  = $ledger->token;
	becomes($ledger, 'at first it serves', sub { $gate->auth($token) == 200 });
	$gate->pause;
	my $paused = now_ms();
	poll_until('the lease to be over', sub { now_ms() > $paused + 1000 });
	$gate->continue;
	is($gate->auth($token), 503, 'its first answer after that is that it cannot tell');
	becomes($ledger, 'until it is answered again', sub { $gate->auth($token) == 200 });
};

subtest 'a Redis that stalls, is flushed or comes back empty is outlived' => sub {
	my $redis  = Sessauth::Redis->start_server;
	my $ledger = ledger(redis => $redis);
	$ledger->revoke(user => 'acme', 'alice', 2);
	my $gate  = ready($ledger);
	my $token = $ledger->token(user => 'bob');
	my $dead  = $ledger->token(user => 'alice');

	$redis->pause;
	becomes($ledger, 'while it stalls, the node cannot tell', sub { $gate->auth($token) == 503 }, work => 0);
	is($gate->auth($dead), 401, 'but forgets nothing');
	$redis->continue;
	becomes($ledger, 'afterwards it goes on', sub { $gate->auth($token) == 200 });

	my $before = $ledger->node;
	$redis->command('FLUSHALL');
	becomes($ledger, 'after a flush it asks again', sub { my $node = $ledger->node; $node && $node->{nonce} ne $before->{nonce} });
	becomes($ledger, 'and serves', sub { $gate->auth($token) == 200 });
	is($gate->auth($dead), 401, 'it forgets nothing');

	$redis->kill9;
	is($gate->auth($dead), 401, 'nor when Redis is gone');
	becomes($ledger, 'without Redis it cannot tell', sub { $gate->auth($token) == 503 }, work => 0);
	$redis->restart;
	becomes($ledger, 'with an empty one it goes on', sub { $gate->auth($token) == 200 });
	is($gate->auth($dead), 401, 'and still knows');
	$ledger->revoke(user => 'acme', 'bob', 2);
	becomes($ledger, 'it learns, too', sub { $gate->auth($token) == 401 });
};

subtest 'a key of the wrong type is said and outlived' => sub {
	for my $which (qw(revocations nodes answers))
	{
		my $ledger = ledger();
		my $gate   = ready($ledger);
		my $token  = $ledger->token;
		my $key    = $ledger->{"${which}_key"};
		becomes($ledger, "$which: at first it serves", sub { $gate->auth($token) == 200 });
		my $lost = $ledger->number(user => 'acme', 'alice', 2);
		$redis->command('DEL', $key);
		$redis->command('SET', $key, 'mine');
		becomes($ledger, "$which: a string in its place ends the lease", sub { $gate->auth($token) == 503 }, work => 0);
		becomes($ledger, "$which: the log says so", sub { $gate->log_contents =~ /WRONGTYPE/ }, work => 0);
		like($gate->get('/readyz')->{content}, qr/WRONGTYPE/, "$which: so does /readyz");
		$redis->command('DEL', $key);
		$ledger->add($lost);
		%{ $ledger->{answered} } = ();
		becomes($ledger, "$which: without it the node goes on", sub { $gate->auth($ledger->token(user => 'bob')) == 200 });
		is($gate->auth($token), 401, "$which: and knows what came meanwhile");
		my @said = $gate->log_contents =~ /WRONGTYPE/g;
		is(scalar @said, 1, "$which: it was said once");
	}
};

# ---- time ----

subtest 'expiry goes by the ledger\'s time' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $token  = $ledger->token(exp => $ledger->now_s + 3600);
	becomes($ledger, 'a token that expired years ago by our clock is good by the ledger\'s', sub { $gate->auth($token) == 200 });
	is($gate->auth($ledger->token(iat => time, exp => time + 3600)), 503, 'one of our time is from its future, or the ledger\'s clock was set just now');
	$ledger->advance(3590);
	becomes($ledger, 'it stays good until then', sub { $gate->auth($ledger->token(iat => $ledger->now_s)) == 200 });
	is($gate->auth($token), 200, 'until its own end');
	$ledger->advance(11);
	becomes($ledger, 'and no longer', sub { $gate->auth($token) == 401 });
	like($gate->get('/auth', $token)->{content}, qr/expired/, 'as the answer says');
};

subtest 'leeway revives nothing that was revoked' => sub {
	my $ledger = ledger(remember => 100);
	my $gate   = ready($ledger, arguments => [ '--leeway', '60s' ]);
	my $exp    = $ledger->now_s + 100;
	my $token  = $ledger->token(user => 'bob', exp => $exp);
	my $dead   = $ledger->token(user => 'alice', exp => $exp);
	$ledger->revoke(user => 'acme', 'alice', 2);
	becomes($ledger, 'a revoked token is refused', sub { $gate->auth($dead) == 401 });
	$ledger->advance(110);
	my $mark = $ledger->token(user => 'mallory', exp => $exp - 59);
	becomes($ledger, 'past the end of both', sub { $gate->auth($mark) == 401 });
	becomes($ledger, 'leeway lets the good one go on', sub { $gate->auth($token) == 200 });
	# The node looks for what it may forget every few seconds; so it is watched for longer than that.
	never_served($ledger, $gate, $dead, 'and not the revoked one', sub { $ledger->work }, nonces => 25);

	# What had expired is not in the stream any more; a node that joins now cannot know it.
	$ledger->{low} = $ledger->{n} + 1;
	$redis->command('DEL', $ledger->{revocations_key});
	my $late = $ledger->start_gate(arguments => [ '--leeway', '60s' ]);
	becomes($ledger, 'a node joins that was never told', sub { $late->is_ready });
	is($late->auth($dead), 401, 'it does not serve the revoked one either');
	becomes($ledger, 'nor is it shut', sub { $late->auth($ledger->token(user => 'bob')) == 200 });
};

# ---- keys and tokens ----

subtest 'an unknown key is certain only after the keys were read again' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger, jwks => ['main'], max_staleness => '1min');
	my $response = $gate->get('/auth', $ledger->token(key => 'other'));
	is($response->{status}, 401, 'a token of a key that nobody published is refused');
	like($response->{content}, qr/unknown_key/, 'as such');
	is($gate->auth($ledger->token(key => 'main') =~ s/.(?=.{10}\z)/$& eq 'A' ? 'B' : 'A'/er), 401, 'so is one with a broken signature');
	$ledger->write_jwks('main', 'new');
	is($gate->auth($ledger->token(key => 'new')), 200, 'a key that was added to the file a moment ago is known');
	like($gate->get('/.well-known/jwks.json')->{content}, qr/\Q@{[ $ledger->kid('new') ]}\E/, 'and published');
	is($gate->auth($ledger->token(key => 'main')), 200, 'the first one still is');
};

subtest 'clients that go away while they wait for keys are forgotten' => sub {
	my $ledger = ledger();
	my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 100) or die $!;
	for my $pg ('host=127.0.0.1 port=' . free_port(), 'host=127.0.0.1 port=' . $silent->sockport)
	{
		my $gate = Sessauth::Gate->start_gate(redis => $redis->url, pg => "$pg user=nobody dbname=none");
		my ($port) = $gate->url =~ /:(\d+)$/;
		my $request = 'GET /auth HTTP/1.1' . "\r\nHost: x\r\nAuthorization: Bearer " . $ledger->token . "\r\n\r\n";
		for my $round (1 .. 20)
		{
			my @clients = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) } 1 .. 20;
			$_->print($request) for @clients;
			$clients[$_]->print($request) for 0 .. 4;		# a second one, before the first was answered
			$clients[$_]->shutdown(1) for 5 .. 9;
			setsockopt($clients[$_], SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) for 10 .. 14;	# leaves by a reset
			$_->flush for @clients;
			is($gate->get('/healthz')->{status}, 200, 'alive') if $round == 1;
			close $_ for @clients;
		}
		my $response = $gate->get('/auth', $ledger->token);
		is($response->{status}, 503, 'who stays is told that nobody can tell');
		like($response->{content}, qr/keys/, 'and that the keys are missing');
		ok(!defined $gate->ended, 'the gate lives');
		is($gate->stop, 0, 'and ends cleanly');
	}
};

# ---- HTTP ----

subtest 'bad requests are refused one by one' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my ($port) = $gate->url =~ /:(\d+)$/;
	my $token  = $ledger->token;
	my $bare   = $gate->get('/auth');
	is($bare->{status}, 401, 'no token');
	is($bare->{headers}{'www-authenticate'}, 'Bearer', 'gets the bare challenge');
	is($gate->get('/auth', undef, Authorization => "Basic $token")->{status}, 401, 'another scheme is no token');
	is($gate->get('/auth', undef, Authorization => "bearer   $token")->{status}, 200, 'the scheme is of either case');
	is($gate->get('/auth', undef, Authorization => [ "Bearer $token", "Bearer $token" ])->{status}, 401, 'two tokens are none');
	like($gate->get('/auth', undef, Authorization => [ "Bearer $token", 'Basic x' ])->{headers}{'www-authenticate'}, qr/invalid_request/, 'not even of two schemes');
	is($gate->get('/auth', "$token$token")->{status}, 401, 'a token with something behind it');
	is($gate->get('/auth', '')->{status}, 401, 'an empty one');
	is($gate->get('/auth', 'x' x 20_000)->{status}, 401, 'a long one');
	is($gate->get('/nothing')->{status}, 404, 'another path');
	is($gate->get('/auth?x=y', $token)->{status}, 200, 'a query does not matter');
	for my $method (qw(GET HEAD POST PUT DELETE OPTIONS PATCH))
	{
		is($gate->{http}->request($method, $gate->url . '/auth', { headers => { Authorization => "Bearer $token" } })->{status}, 200, "$method works");
	}

	my %raw = (
		'headers without end' => "GET /auth HTTP/1.1\r\n" . "X: y\r\n" x 20_000,
		'a huge header'       => "GET /auth HTTP/1.1\r\nX: " . 'y' x 100_000 . "\r\n\r\n",
		'a huge path'         => 'GET /' . 'y' x 100_000 . " HTTP/1.1\r\n\r\n",
		'a huge body'         => "POST /auth HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n" . 'y' x 100_000,
		'a negative body'     => "POST /auth HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		'broken chunks'       => "POST /auth HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\nx\r\n",
		'no HTTP'             => "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . pack('C*', map { $_ * 7 % 256 } 1 .. 600),
		'zero bytes'          => "\0" x 1000,
		'an empty line'       => "\r\n\r\n",
		'a lone header'       => ": \r\n\r\n",
		'HTTP/9.9'            => "GET /auth HTTP/9.9\r\n\r\n",
		'nothing'             => '');
	for my $name (sort keys %raw)
	{
		my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $!;
		local $SIG{PIPE} = 'IGNORE';
		$socket->print($raw{$name});
		$socket->flush;
		$socket->shutdown(1);
		my $answer = do { local $/; <$socket> } // '';
		unlike($answer, qr{^HTTP/1.. 200}, "$name is not let through");
		is($gate->get('/healthz')->{status}, 200, "and the gate lives");
	}
	becomes($ledger, 'and serves', sub { $gate->auth($token) == 200 });
};

# ---- a Redis that is none ----

subtest 'whatever stands in for Redis, the gate lives and cannot tell' => sub {
	my $ledger = ledger();
	my $login  = "+OK\r\n";
	my $stream = 'x' x 20;
	my %says   = (
		'nothing'              => '',
		'a banner'             => "220 mail ESMTP\r\n",
		'bytes'                => join('', map { chr($_ * 13 % 256) } 1 .. 4000),
		'an error'             => "-ERR no\x01\x1b[31m\r\n",
		'a login, then bytes'  => $login . "\xff" x 100,
		'too many replies'     => $login x 50,
		'an empty array'       => $login . "*0\r\n" x 10,
		'a number'             => $login . ":1\r\n",
		'a status for a read'  => $login . "+QUEUED\r\n",
		'arrays in arrays'     => $login . "*1\r\n" x 1000,
		'a huge array'         => $login . "*2147483647\r\n",
		'a negative array'     => $login . "*-7\r\n",
		'a huge string'        => $login . "\$9223372036854775807\r\n",
		'a negative string'    => $login . "\$-9\r\n",
		'entries of no shape'  => $login . "*1\r\n*2\r\n+s\r\n*4\r\n:1\r\n*0\r\n*2\r\n\$3\r\n1-1\r\n:5\r\n*2\r\n\$-1\r\n\$-1\r\n",
		'an odd entry'         => $login . "*1\r\n*2\r\n+s\r\n*1\r\n*2\r\n\$3\r\n1-1\r\n*3\r\n\$1\r\ng\r\n:1\r\n*0\r\n",
		'an entry of 100 fields' => $login . "*1\r\n*2\r\n+s\r\n*1\r\n*2\r\n\$3\r\n1-1\r\n*100\r\n" . "\$1\r\ng\r\n" x 100,
		'an id that is long'   => $login . "*1\r\n*2\r\n+s\r\n*1\r\n*2\r\n\$60\r\n" . '1' x 60 . "\r\n*0\r\n",
		'an id too large'      => $login . "*1\r\n*2\r\n+s\r\n*1\r\n*2\r\n\$30\r\n" . '9' x 30 . "\r\n*0\r\n",
		'an id that is none'   => $login . "*1\r\n*2\r\n+s\r\n*1\r\n*2\r\n\$3\r\nx\0y\r\n*0\r\n");
	for my $name (sort keys %says)
	{
		my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 10) or die $!;
		my $gate = $ledger->start_gate(redis => 'redis://127.0.0.1:' . $listen->sockport . '/0');
		my $select = IO::Select->new($listen);
		my ($connections, $asked) = (0, 0);
		poll_until("$name to be heard on both links", sub {
			for my $socket ($select->can_read(0.01))
			{
				if ($socket == $listen)
				{
					$select->add(scalar $listen->accept);
					$connections++;
					next;
				}
				if (sysread($socket, my $bytes, 65536)) { syswrite($socket, $says{$name}); $asked++; }
				else { $select->remove($socket); close $socket; }
			}
			return $connections >= 2 && $asked >= 2;
		});
		is($gate->auth($ledger->token), 503, "$name: cannot tell");
		is($gate->stop, 0, "$name: and ends cleanly");
		unlike($gate->log_contents, qr/[^\x20-\x7e\n]/, "$name: the log is clean");
	}
};

subtest 'a stream position beyond everything is given up' => sub {
	my $ledger = ledger();
	my $port   = free_port();
	my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 10, ReuseAddr => 1) or die $!;
	my $gate   = $ledger->start_gate(redis => "redis://127.0.0.1:$port/0?prefix=$ledger->{prefix}");
	my $select = IO::Select->new($listen);
	my $wrong  = '18446744073709551615-18446744073709551615';
	my $length = length $wrong;
	my $poisoned;
	poll_until('the node to have taken a wrong id', sub {
		for my $socket ($select->can_read(0.01))
		{
			if ($socket == $listen) { $select->add(scalar $listen->accept); next; }
			my $bytes;
			if (!sysread($socket, $bytes, 65536)) { $select->remove($socket); next; }
			$poisoned ||= $bytes =~ /XREAD.*\b$wrong\b/s;
			syswrite($socket, $bytes =~ /SELECT/ ? "+OK\r\n"
				: $bytes =~ /XREAD/ ? "*1\r\n*2\r\n\$1\r\ns\r\n*1\r\n*2\r\n\$$length\r\n$wrong\r\n*0\r\n" : ":1\r\n");
		}
		return $poisoned;
	});
	close $_ for $select->handles;
	my $real = Sessauth::Redis->start_server(port => $port);
	$ledger->{redis} = $real;
	becomes($ledger, 'a Redis that is one is followed again', sub { $gate->is_ready });
	$ledger->revoke(user => 'acme', 'alice', 2);
	becomes($ledger, 'from its start', sub { $gate->auth($ledger->token) == 401 });
};

# ---- the process ----

subtest 'the threads of the library take no signals' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $pid    = $gate->pid;
	my @others = grep { !m{/$pid/status$} } glob "/proc/$pid/task/*/status";
	cmp_ok(scalar @others, '>=', 2, 'it has threads');
	for my $status (@others)
	{
		my ($blocked) = slurp_file($status) =~ /^SigBlk:\s*([0-9a-f]+)$/m;
		for my $signal ([ PIPE => 13 ], [ TERM => 15 ], [ CHLD => 17 ])
		{
			ok(hex(substr $blocked, -8) & 1 << $signal->[1] - 1, "one blocks SIG$signal->[0]");
		}
	}
};

subtest 'SIGTERM takes the node out of the mirror' => sub {
	my $ledger = ledger();
	my $gate   = ready($ledger);
	my $id     = $ledger->node->{id};
	becomes($ledger, 'it is in both hashes', sub { $redis->command('HEXISTS', $ledger->{nodes_key}, $id) && $redis->command('HEXISTS', $ledger->{answers_key}, $id) });
	is($gate->stop, 0, 'it exits with 0');
	is($redis->command('HEXISTS', $ledger->{$_}, $id), 0, "it is not in $_ any more") for qw(nodes_key answers_key);

	my $alone = ledger(redis => Sessauth::Redis->start_server);
	$gate = ready($alone);
	$alone->{redis}->pause;
	is($gate->stop, 0, 'it does not wait for a Redis that stalls');
	$alone->{redis}->continue;
};

subtest 'wrong options end the gate at once, with a reason' => sub {
	my $ledger = ledger();
	my @keys   = ('--jwks', $ledger->write_jwks, '--link-key-file', $ledger->write_link_key);
	my @url    = ('--redis', $redis->url);
	my @cases  = (
		[ 'nothing',                    qr/Redis URL or a PostgreSQL conninfo is needed/ ],
		[ 'no keys',                    qr/keys are needed/, @url ],
		[ 'half the keys',              qr/keys are needed/, @url, @keys[ 0, 1 ] ],
		[ 'a password in the URL',      qr/contains a password.*file/, '--redis', 'redis://me:secret@127.0.0.1:6379/0', @keys ],
		[ 'another scheme',             qr/must begin with redis/, '--redis', 'http://127.0.0.1', @keys ],
		[ 'an unknown option',          qr/unknown option --nonsense/, '--nonsense', 'x' ],
		[ 'an option without value',    qr/missing value of --redis/, '--redis' ],
		[ 'an argument',                qr/unknown option status/, 'status' ],
		[ 'a listener without port',    qr/invalid value of --listen/, '--listen', 'localhost' ],
		[ 'a port that is too high',    qr/invalid value of --listen/, '--listen', '127.0.0.1:65536' ],
		[ 'a duration without unit',    qr/invalid value of --max-staleness/, '--max-staleness', '5 parsecs' ],
		[ 'a staleness of nothing',     qr/max_staleness must be/, @url, @keys, '--max-staleness', '0s' ],
		[ 'a staleness of days',        qr/max_staleness must be/, @url, @keys, '--max-staleness', '48h' ],
		[ 'a long leeway',              qr/leeway must be/, @url, @keys, '--leeway', '1h' ],
		[ 'a name that is none',        qr/invalid node name/, @url, @keys, '--node', 'a/b' ],
		[ 'a prefix that is none',      qr/prefix contains/, '--redis', $redis->url . '?prefix={x}', @keys ],
		[ 'a CA without TLS',           qr/need TLS/, '--redis', $redis->url . '?cacert=/x', @keys ]);
	for my $case (@cases)
	{
		my ($name, $says, @arguments) = @$case;
		my $gate = Sessauth::Process->start('wrong', [ 'sessauth-gate', @arguments ]);
		poll_until("$name to end", sub { defined $gate->ended });
		is($gate->ended >> 8, 2, "$name: exit 2");
		like($gate->log_contents, $says, "$name: says so");
		unlike($gate->log_contents, qr/secret/, "$name: without a secret") if $name =~ /password/;
	}
	my $gate = Sessauth::Process->start('wrong', ['sessauth-gate'], SESSAUTH_MAX_STALENESS => 'soon');
	poll_until('a wrong variable to end it', sub { defined $gate->ended });
	is($gate->ended >> 8, 2, 'a wrong variable: exit 2');
	like($gate->log_contents, qr/SESSAUTH_MAX_STALENESS/, 'a wrong variable: is named');

	my $open = $ledger->write_link_key;
	chmod 0644, $open;
	$gate = Sessauth::Gate->start_gate(redis => $redis->url, arguments => \@keys);
	poll_until('the log', sub { $gate->log_contents =~ /link key file.*readable by others/ });
	isnt($gate->get('/readyz')->{status}, 200, 'a link key that others can read is not used');
	chmod 0600, $open;
	poll_until('the key', sub { $gate->log_contents =~ /keys are up to date/ });
	pass('until it is put right');
};

done_testing;

# ---- helpers ----

sub ledger
{
	my (%options) = @_;
	return Sessauth::Publisher->new(redis => $redis, prefix => 't' . ++$count . ':', %options);
}

# A gate that follows a ledger and is ready.
sub ready
{
	my ($ledger, %options) = @_;
	my $gate = $ledger->start_gate(jwks => [qw(main second)], %options);
	poll_until('the gate to be ready', sub { $ledger->work; $gate->is_ready });
	return $gate;
}

# Waits for a condition, the worker working all the while (work => 0: not).
sub becomes
{
	my ($ledger, $name, $condition, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll_until($name, sub { $ledger->work if $options{work} // 1; $condition->() });
	pass($name);
	return;
}

# True when a token is not served once while the node goes through some more nonces.
# Meanwhile $doing is done again and again; else the worker works.
sub never_served
{
	my ($ledger, $gate, $token, $name, $doing, %options) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (%nonces, $served);
	poll_until($name, sub {
		my $node = $ledger->node;
		$nonces{ $node->{nonce} } = 1 if $node;
		$doing ? $doing->() : $ledger->work;
		$served ||= $gate->auth($token) == 200;
		return $served || keys %nonces > ($options{nonces} // 3);
	});
	ok(!$served, $name);
	return;
}

# Answers the one node without a beat, and returns it.
sub answer_all
{
	my ($ledger) = @_;
	put_all($ledger, sub { $ledger->answer_to($_[1], $_[0]) });
	return $ledger->node;
}

# Puts a line, made of nonce and id, in the place of the answer to every node.
sub put_all
{
	my ($ledger, $line) = @_;
	my $nodes = $ledger->nodes;
	$ledger->put_answer($_, $line->($nodes->{$_}{nonce}, $_)) for keys %$nodes;
	return;
}
