# worker_nodes.t
#		More nodes than sessauth.max_nodes: those beyond cannot tell, the others notice nothing; and
#		thousands of nodes, where there may be so many.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

use constant { MAX => 16, CROWD => 5000 };

my ($ledger, $dba, $redis) = worker_ledger('nodes', config => "sessauth.max_nodes = @{[MAX]}\nsessauth.max_lease = 5s\nsessauth.heartbeat_interval = 50ms\n");
my $key   = link_key($dba);
my $from  = -s $ledger->logfile;
my $alice = login($dba, 'alice');
my $full  = qr/WARNING:  sessauth: mirror "main" has more than @{[MAX]} nodes; the others get no answers/;

# ---- one gate, and others up to the limit ----

my $gate  = start_gate($ledger, $redis, node => 'early', redis_alone => 1)->wait_ready;
my @nodes = map { new_node($redis, $key, name => "n$_", max_staleness => 1000) } 2 .. MAX;
$_->ask->wait_answer for @nodes;
pass('as many nodes as there may be get answers');
unlike(substr(slurp_file($ledger->logfile), $from), $full, 'and nobody complains');

my $late  = start_gate($ledger, $redis, node => 'late', redis_alone => 1);
my $extra = new_node($redis, $key, name => 'extra', max_staleness => 1000)->ask;
wait_log($ledger, $full, $from);
like(wait_log($ledger, qr/HINT:  Raise sessauth.max_nodes/, $from), $full, 'one more is said in the log, with a hint');
for my $round (1 .. 3)
{
	$_->ask->wait_answer for @nodes;
}
pass('the others get their answers as before');
is($extra->answer, undef, 'it gets none');
is($late->auth($alice->{access_token}), 503, 'a gate beyond the limit cannot tell');
is($gate->auth($alice->{access_token}), 200, 'another can');
is(scalar(() = substr(slurp_file($ledger->logfile), $from) =~ /$full/g), 1, 'the log says it once');
is(value($dba, 'SELECT count(*) FROM sessauth.nodes'), MAX, 'the view has those that follow');

my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')});
is($gate->wait_auth($alice->{access_token}, 401), 401, 'a revocation reaches who follows');
is($late->auth($alice->{access_token}), 401, 'and even who gets no answers, as it refuses by what it reads');
$late->stop;
my $leaver = pop @nodes;
$redis->command('HDEL', $_, $leaver->{id}) for 'sessauth:nodes', 'sessauth:answers';
$extra->wait_answer;
pass('when one has gone, the next gets its place');
$gate->stop;

# ---- thousands ----

$ledger->append_conf('postgresql.conf', "sessauth.max_nodes = @{[2 * CROWD]}");
$ledger->restart;
$dba = $ledger->dbh;
wait_streaming($dba);
$from = -s $ledger->logfile;
my @crowd = map { new_node($redis, $key, name => "crowd$_") } 1 .. CROWD;
$_->ask for @crowd;
$_->wait_answer for @crowd;
pass(CROWD . ' nodes get their answers');
cmp_ok(value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name ~ '^crowd' AND mirror = 'main'}), '==', CROWD, 'the view has them all');
@$_{qw(g n)} = @{ $_->answer }{qw(g n)} for @crowd;
$_->ask for @crowd;
$_->wait_answer for @crowd;
poll_until('the view to say so', sub { value($dba, q{SELECT count(*) FROM sessauth.nodes WHERE name ~ '^crowd' AND behind = 0}) == CROWD });
pass('and their next ones');
unlike(substr(slurp_file($ledger->logfile), $from), qr/WARNING|ERROR|is down/, 'nothing complains');
done_testing;
