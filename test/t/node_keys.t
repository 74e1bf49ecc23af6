# node_keys.t
#		Signing keys from PostgreSQL: those of a standby may be old, so a gate does not judge by them; who
#		makes up names of keys keeps nobody from a new one; one that is revoked stops everywhere; and how a new one gets into files in time.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use HTTP::Tiny;
use IO::Socket::INET;
use MIME::Base64 qw(decode_base64url encode_base64url);
use POSIX ();
use Sessauth;
use Test::More;
use Time::HiRes ();
use Worker;

# ---- a standby ----

my $primary = new_ledger('primary', init => { allows_streaming => 1 });
value($primary->dbh, 'SELECT sessauth.create_signing_key()');
$primary->backup('base');
my $standby = Sessauth::Ledger->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $redis = Sessauth::Redis->start_server;
my $gate  = start_gate($standby, $redis);
poll_until('the gate to complain of keys', sub { $gate->log_contents =~ /keys: .*standby/ });
like($gate->log_contents, qr/target_session_attrs/, 'a gate whose PostgreSQL is a standby says what to do');
like($gate->get('/readyz')->{content}, qr/no keys yet/, 'and has no keys');
is($gate->get('/.well-known/jwks.json')->{status}, 503, 'nor publishes any');

$primary->stop('immediate');
$standby->promote;
poll_until('the keys', sub { $gate->log_contents =~ /the keys are up to date/ });
is($gate->get('/.well-known/jwks.json')->{status}, 200, 'once it is promoted, its keys are the keys');
$gate->stop;

# ---- a flood of made-up kids ----

my ($ledger, $dba) = worker_ledger('flooded', mirror => 0, config => "track_functions = all\nsessauth.max_lease = 2s\n");
my $alice = login($dba, 'alice');
$gate = start_gate($ledger, undef, arguments => [ '--admin-listen', '127.0.0.1:0' ])->wait_ready;
is($gate->auth($alice->{access_token}), 200, 'a token is good');

my $calls = sub { value($dba, q{SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'jwks'}) };
my @flood = map { flood($gate, $alice->{access_token}) } 1 .. 4;
my ($before, $begun) = ($calls->(), Time::HiRes::time());
for my $round (1 .. 3)
{
	is($gate->auth($alice->{access_token}), 200, 'meanwhile who has a known key is served');
	value($dba, 'SELECT sessauth.rotate_signing_key()');
	my $bob = login($dba, "bob$round");
	my %said;
	poll_until('the new key', sub { $said{ $gate->auth($bob->{access_token}) }++; $said{200} });
	ok(!$said{401}, 'and a new key is found, without one wrong answer');
}
my $elapsed = Time::HiRes::time() - $begun;
kill 'TERM', @flood;
waitpid $_, 0 for @flood;
poll_until('the server to have counted', sub { $calls->() > $before });
my ($admin) = $gate->log_contents =~ m{administration listening on (http://127\.0\.0\.1:\d+)};
my $made_up = 0;
$made_up += $_ for HTTP::Tiny->new->get("$admin/metrics")->{content} =~ /^sessauth_gate_requests_total\{decision="(?:unknown_key|cannot_tell)",source="\w+"\} (\d+)$/mg;
cmp_ok($made_up, '>', 100, 'hundreds of made-up kids were looked for');
cmp_ok($calls->() - $before, '<=', $elapsed + 3, 'PostgreSQL was asked for keys once a second, no more');

# ---- a key that is revoked ----

value($dba, q{SELECT sessauth.add_mirror('main', ?)}, $redis->url);
wait_streaming($dba);
my $stolen = login($dba, 'mallory')->{access_token};
my ($kid)  = $dba->selectrow_array(q{SELECT kid FROM sessauth.keys WHERE state = 'signing'});
value($dba, 'SELECT sessauth.rotate_signing_key()');
my $newer  = login($dba, 'carol')->{access_token};

# Their files of keys keep the revoked one: they hear of it over Redis, and of nothing else.
my %pinned = Sessauth::Gate::pinned_keys($dba);
my $start_pinned = sub { return Sessauth::Gate->start_gate(node => $_[0], redis => $redis->url, max_staleness => '2s', arguments => [%pinned])->wait_ready };
my @nodes  = ($gate, start_gate($ledger, $redis, node => 'both')->wait_ready, $start_pinned->('pinned'));
for my $node (@nodes) { $node->wait_auth($_, 200) for $stolen, $newer }
my $event = value($dba, 'SELECT sessauth.revoke_signing_key(?)', $kid);
ok(value($dba, q{SELECT sessauth.await_receipt(?, '60s')}, $event), 'a revoked key has a receipt');
my %said = map { $_->auth($stolen) => 1 } @nodes;
push @nodes, $start_pinned->('late');
for my $node (@nodes)
{
	poll_until('a revoked key to be refused', sub { my $status = $node->auth($stolen); $said{$status}++; $status == 401 });
	is($node->wait_auth($newer, 200), 200, $node->name . ' refuses its tokens, and no others');
}
ok(!$said{200}, 'after the receipt no node has accepted one');

# ---- a new key for a file ----

my $dir    = private_dir();
my $filed  = start_gate($ledger, undef, arguments => [ '--jwks', write_jwks($dba) ])->wait_ready;
my $carol  = login($dba, 'carol');
is($filed->auth($carol->{access_token}), 200, 'a gate with a file of keys serves');
my $rotator = $ledger->dbh;
$rotator->begin_work;
my $next = value($rotator, 'SELECT sessauth.rotate_signing_key()');
write_jwks($rotator);
kill 'HUP', $filed->pid;
poll_until('the gate to know the new key', sub { $filed->get('/.well-known/jwks.json')->{content} =~ /\Q$next\E/ });
my $dave = login($dba, 'dave');
unlike(kid_of($dave), qr/\Q$next\E/, 'until the rotation is committed, nobody gets a token of the new key');
is($filed->auth($dave->{access_token}), 200, 'nor has to wait');
$rotator->commit;
my $erin = login($dba, 'erin');
is(kid_of($erin), $next, 'then everybody does');
is_deeply([ map { $filed->auth($_->{access_token}) } $carol, $dave, $erin ], [ 200, 200, 200 ], 'and a gate that had the key in its file before accepts them from the first on');

value($dba, 'SELECT sessauth.rotate_signing_key()');
my $early = login($dba, 'frank');
$filed->wait_auth($early->{access_token}, 401);
is($filed->reason($early->{access_token}), 'unknown_key', 'a token of a key that is not in the file yet is refused: nobody could be asked');
write_jwks($dba);
is($filed->wait_auth($early->{access_token}, 200), 200, 'until it is');

done_testing;

# The keys as they are for this connection, put into the file at once.
sub write_jwks
{
	my ($dbh) = @_;
	open my $file, '>', "$dir/new" or die "$dir/new: $!";
	print $file value($dbh, 'SELECT sessauth.jwks()');
	close $file or die "$dir/new: $!";
	rename "$dir/new", "$dir/jwks.json" or die "$dir/jwks.json: $!";
	return "$dir/jwks.json";
}

sub kid_of { my ($login) = @_; return decode_base64url((split /\./, $login->{access_token})[0]) =~ /"kid":"([^"]+)"/ ? $1 : die 'no kid'; }

# Sends tokens that are right but for kid and signature, each with another kid, and waits for no answer; returns the process.
sub flood
{
	my ($gate, $token) = @_;
	my ($head, $body, $signature) = split /\./, $token;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;
	$SIG{TERM} = sub { POSIX::_exit(0) };
	my @open;
	for (;;)
	{
		my $made_up = encode_base64url(decode_base64url($head) =~ s/"kid":"[^"]*"/sprintf '"kid":"%s"', random_hex(16)/er);
		my $socket  = IO::Socket::INET->new(PeerAddr => $gate->url =~ s{^http://}{}r) or next;
		print $socket "GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer $made_up.$body.$signature\r\n\r\n";
		$socket->flush;
		push @open, $socket;
		shift @open if @open > 100;
		Time::HiRes::sleep(0.002);
	}
}
