# worker_clock.t
#		The worker goes on, whatever the wall clock does.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;
use Worker;

my $clock = PostgreSQL::Test::Utils::tempdir() . '/wall_clock';
set_clock(0);
my $ledger = do {
	local @ENV{qw(LD_PRELOAD WALL_CLOCK)} = (($ENV{TESTDIR} // '.') . '/build/tools/wall_clock.so', $clock);
	new_ledger('clock');
};
my $dba = $ledger->dbh;
$dba->do(q{SELECT sessauth.create_signing_key()});
$dba->do(q{SELECT sessauth.create_tenant('acme')});
my $redis = Sessauth::Redis->start_server;
$dba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $redis->url);
wait_streaming($dba);
my $key = link_key($dba);

# In seconds; in place, because the servers have mapped it.
sub set_clock
{
	my ($ahead) = @_;
	open my $file, (-e $clock ? '+<' : '>'), $clock or die "$clock: $!";
	syswrite($file, pack('q', $ahead * 1_000_000)) == 8 or die "$clock: $!";
	close $file;
	return;
}

sub worker_pid { return value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = 'postgres'}); }

sub all_is_well
{
	my ($when) = @_;
	my $beat = poll_until('a beat', sub { (reverse beats($redis))[0] })->{b};
	ok(poll_until('five beats', sub { (reverse beats($redis))[0]{b} >= $beat + 5 }), "$when: beats go on");
	ok(wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'alice')})), "$when: a revocation arrives");
	ok(new_node($redis, $key)->ask->wait_answer, "$when: a node is answered");

	my $synced = value($dba, q{SELECT synced_at FROM sessauth.mirror_state});
	$dba->do('SELECT sessauth.resync()');
	ok(poll_until('a full sync', sub { (value($dba, q{SELECT synced_at FROM sessauth.mirror_state}) // $synced) ne $synced }), "$when: resync() is heard");
	my $reconciled = mirror_row($dba)->{reconciled_at} // '';
	$dba->do('SELECT sessauth.reconcile()');
	ok(poll_until('a comparison', sub { (mirror_row($dba)->{reconciled_at} // '') ne $reconciled }), "$when: and reconcile()");

	$redis->kill9;
	poll_until('the outage in the view', sub { mirror_row($dba)->{state} eq 'down' });
	$redis->restart;
	ok(wait_streaming($dba), "$when: a mirror that was away is found again");

	my $pid = worker_pid();
	$dba->do('SELECT pg_terminate_backend(?)', undef, $pid);
	ok(poll_until('another worker', sub { my $new = worker_pid(); $new && $new != $pid }), "$when: and a worker that has ended is replaced");
	wait_streaming($dba);
	$dba->do('CREATE DATABASE other');
	ok(eval { $dba->do('DROP DATABASE other') }, "$when: DROP DATABASE waits for nothing");
	return;
}

all_is_well('a right clock');
set_clock(-86400);
is(value($dba, q{SELECT extract(epoch FROM clock_timestamp()) < ?}, time - 80000), 1, 'the wall clock of the server was set back by a day');
all_is_well('a clock that was set back');
set_clock(86400);
is(value($dba, q{SELECT extract(epoch FROM clock_timestamp()) > ?}, time + 80000), 1, 'and forward by two');
all_is_well('a clock that was set forward');

# What the worker had no time to number before a restart with a wrong clock is not told as if it were over.
kill 'STOP', worker_pid() or die "kill: $!";
my $event = value($dba, q{SELECT sessauth.revoke_user('acme', 'bob')});
$ledger->stop('immediate');
set_clock(0);
{
	local @ENV{qw(LD_PRELOAD WALL_CLOCK)} = (($ENV{TESTDIR} // '.') . '/build/tools/wall_clock.so', $clock);
	$ledger->start;
}
$dba = $ledger->dbh;
is(value($dba, q{SELECT extract(epoch FROM clock_timestamp()) < ?}, time + 80000), 1, 'a restart takes the wall clock back by a day');
poll_until('its number', sub { value($dba, 'SELECT n FROM sessauth.revocation_log WHERE event_id = ?', $event) });
is(value($dba, q{SELECT until > at FROM sessauth.revocation_log WHERE event_id = ?}, $event), 1, 'a revocation of before matters as long as one of now');
ok(wait_revocation($redis, $event), 'and arrives');
done_testing;
