# redis_silent_host.t
#		A host that is switched off says nothing, not even that it goes. Worker and gate ask the kernel to find out:
#		strace shows what they ask for when they connect anew.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Process;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('main');
my $gate = start_gate($ledger, $redis, redis_alone => 1)->wait_ready;
my %pid  = (
	worker => value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker'}),
	gate   => $gate->pid,
);
my %strace;
for my $who (sort keys %pid)
{
	my $strace = $strace{$who} = Sessauth::Process->start("strace-$who", [ 'strace', '-f', '-p', $pid{$who}, '-e', 'trace=setsockopt' ]);
	poll_until('strace to look', sub { defined $strace->ended || $strace->log_contents =~ /attached/ });
	plan skip_all => 'strace may not look at another process here: ' . $strace->log_contents if defined $strace->ended;
}
$redis->kill9;
poll_until('the outage to be seen', sub { mirror_row($dba)->{state} eq 'down' });
$redis->restart;
wait_streaming($dba);
poll_until('another beat', sub { (beats($redis))[0] });
is($gate->wait_auth(login($dba, 'alice')->{access_token}, 200), 200, 'both are there again');

for my $who (sort keys %strace)
{
	poll_until("the $who to connect anew", sub { $strace{$who}->log_contents =~ /TCP_USER_TIMEOUT/ });
	my $log = $strace{$who}->log_contents;
	$strace{$who}->stop;
	like($log, qr/\Q$_\E\], 4\) *= 0/, "the $who asks for $_")
		for 'SO_KEEPALIVE, [1', 'TCP_KEEPIDLE, [10', 'TCP_KEEPINTVL, [5', 'TCP_KEEPCNT, [3', 'TCP_USER_TIMEOUT, [10000';
}

done_testing();
