# gate_metrics.t
#		What the gate counts: the text is what Prometheus reads, and numbers move when what they count happens. (Connections
#		are counted in node_reconnect.t, questions in node_ask.t.)

use strict;
use warnings;

use Sessauth::Process qw(poll_until);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis = Sessauth::Redis->start_server;
my $count = 0;

subtest 'the text' => sub {
	my $ledger = ledger();
	my $gate   = $ledger->ready_gate(admin => 1);
	my %token  = (good => $ledger->token, revoked => $ledger->token(user => 'bob'));
	$gate->auth($token{good}) for 1 .. 5;
	$gate->get('/auth');
	$gate->auth('nonsense');
	$ledger->revoke(user => 'acme', 'bob', 2);
	poll_until('the revocation', sub { $ledger->work; $gate->auth($token{revoked}) == 401 });
	my $text = $gate->admin('/metrics')->{content};
	my %value = $text =~ /^(sessauth_\S+(?: \S+(?=\}))?) (\S+)$/mg;
	is($value{'sessauth_gate_requests_total{decision="active",source="cache"}'} >= 4, 1, 'requests by decision and source') or diag $text;
	is($value{'sessauth_gate_requests_total{decision="no_token",source="request"}'}, 1, 'those without a token');
	is($value{'sessauth_gate_requests_total{decision="malformed",source="token"}'}, 1, 'those that are none');
	cmp_ok($value{'sessauth_gate_requests_total{decision="revoked",source="local"}'}
		+ ($value{'sessauth_gate_requests_total{decision="revoked",source="cache"}'} // 0), '>=', 1, 'those revoked');
	is($value{sessauth_node_applied_sequence}, 1, 'the applied sequence');
	is($value{sessauth_node_known_revocations}, 1, 'known revocations');
	is($value{sessauth_node_ready}, 1, 'ready');
	cmp_ok($value{sessauth_node_lease_age_seconds}, '<', 1, 'lease age');
	my @buckets = $text =~ /^sessauth_gate_request_duration_seconds_bucket\{le="[^"]+"\} (\d+)$/mg;
	is_deeply([ sort { $a <=> $b } @buckets ], \@buckets, 'the histogram only grows');
	is($buckets[-1], $value{sessauth_gate_request_duration_seconds_count}, 'and ends with the count');
	my %typed = map { $_ => 1 } $text =~ /^# TYPE (\S+) (?:counter|gauge|histogram)$/mg;
	is_deeply([ grep { !$typed{ s/\{.*| .*//r =~ s/_(bucket|sum|count)$//r } && !$typed{ s/\{.*| .*//r } } grep { /^[^#]/ } split /\n/, $text ], [], 'every line has a type');
	is($gate->admin('/auth')->{status}, 404, 'the administrator\'s listener has nothing else');
	for my $path ('/metrics', '/revocations', '/nothing')
	{
		my $socket = $gate->connect_socket($gate->admin_url);
		print $socket "HEAD $path HTTP/1.1\r\nHost: x\r\n\r\n", "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
		like(do { local $/; <$socket> }, qr{^HTTP/1.1 \d+ [^\r]*\r\n(?:\S[^\r]*\r\n)+\r\nHTTP/1.1 404 .*the endpoints are}s, "the answer to HEAD $path has no body");
	}
	is($gate->get('/metrics')->{status}, 404, 'and the public one has no metrics');
	is($gate->get('/revocations')->{status}, 404, 'nor revocations');
};

subtest 'tokens that were seen before' => sub {
	my $ledger = ledger();
	my $gate   = $ledger->ready_gate(admin => 1, max_staleness => '1min', arguments => [ '--max-cached-tokens', 256 ]);
	my %before = cache($gate);
	is($gate->auth($ledger->token(user => 'alice')), 200, 'a new token');
	is_deeply({ cache($gate) }, { hits => $before{hits}, misses => $before{misses} + 1, kept => $before{kept} + 1 }, 'is a miss, and kept');
	my $token = $ledger->token(user => 'bob');
	is($gate->auth($token), 200, 'a token comes') for 1 .. 5;
	is_deeply({ cache($gate) }, { hits => $before{hits} + 4, misses => $before{misses} + 2, kept => $before{kept} + 2 }, 'again and again: one miss, and hits');
	my $none = $ledger->ready_gate(admin => 1, max_staleness => '1min', arguments => [ '--max-cached-tokens', 0 ]);
	is($none->auth($token), 200, 'without a cache it comes') for 1 .. 2;
	my %without = cache($none);
	is_deeply([ @without{qw(hits kept)} ], [ 0, 0 ], 'each time anew');
};

subtest 'the stream' => sub {
	my $ledger = ledger();
	my $gate   = $ledger->ready_gate(admin => 1);
	my $resyncs = $gate->metric('sessauth_node_resyncs_total');
	my $entry = $ledger->number(user => 'acme', 'alice', 2);
	$redis->command('DEL', $ledger->{revocations_key});
	$ledger->add($entry, '1-1');
	poll_until('the node to read it from its start', sub { $ledger->work; $gate->auth($ledger->token(user => 'alice')) == 401 });
	cmp_ok($gate->metric('sessauth_node_resyncs_total'), '>', $resyncs, 'a stream that was reset is read again, which is counted');
	is($gate->metric('sessauth_node_applied_sequence'), 1, 'what it says is applied');

	is($gate->metric('sessauth_node_refused_entries_total'), 0, 'until now all was authentic');
	my $attacker = Sessauth::Publisher->new(redis => $redis, prefix => $ledger->{prefix}, g => $ledger->{g});
	$attacker->revoke(user => 'acme', 'bob', 9) for 1 .. 3;
	poll_until('what is not to be counted', sub { $ledger->work; $gate->metric('sessauth_node_refused_entries_total') == 3 });
	is($gate->metric('sessauth_node_known_revocations'), 1, 'and it is not obeyed');
};

subtest 'keys' => sub {
	my $ledger = ledger();
	my $gate   = $ledger->ready_gate(admin => 1);
	my $read   = $gate->metric('sessauth_node_key_refreshes_total');
	cmp_ok($read, '>=', 1, 'have been read');
	kill 'HUP', $gate->pid;
	poll_until('them to be read again', sub { $gate->metric('sessauth_node_key_refreshes_total') > $read });
	pass('and are read again when the administrator says so');
};

done_testing();

# ---- helpers ----

sub ledger { return Sessauth::Publisher->new(redis => $redis, prefix => 'metrics' . ++$count . ':'); }

sub cache
{
	my ($gate) = @_;
	return (hits => $gate->metric('sessauth_node_cache_hits_total'), misses => $gate->metric('sessauth_node_cache_misses_total'),
		kept => $gate->metric('sessauth_node_cached_tokens'));
}
