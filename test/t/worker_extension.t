# worker_extension.t
#		DROP and CREATE EXTENSION while applications write and the worker publishes: each new ledger
#		works, the old one's worker has gone, and nothing but the calls of the moment fails.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Storm qw(storm);
use Test::More;
use Worker;

use constant { WRITERS => 3, ROUNDS => 8 };

my ($ledger, $dba, $redis) = worker_ledger('load', config => "deadlock_timeout = 50ms\n");
my $dir  = private_dir();
my $stop = "$dir/stop";

# Logs in and out until told to stop; how often it went well, and what else went wrong than that the ledger was not there.
sub write_on
{
	my ($dbh, $i) = @_;
	my $parent = getppid;
	my ($done, %wrong) = (0);
	until (-e $stop || getppid != $parent)
	{
		my $ok = eval { login($dbh, "user$i"); value($dbh, q{SELECT sessauth.revoke_user('acme', ?)}, "user$i") };
		$done++ if $ok;
		next if $ok;

		# No such schema, function, table or object, no key or tenant yet, a deadlock with DROP EXTENSION itself, or what was looked up has just gone.
		my $said = $dbh->state . ' ' . $dbh->errstr;
		$wrong{$said}++ unless $said =~ /^(?:(?:3F000|42883|42P01|42704|55000|40P01) |XX000 ERROR:  (?:cache lookup failed|a function of sessauth without its))/;
	}
	return { done => $done, wrong => \%wrong };
}

sub begin_anew
{
	# Applications hold locks on the tables, in an order of their own; the worker must not take part in that.
	poll_until('DROP EXTENSION', sub {
		return 1 if eval { $dba->do('DROP EXTENSION sessauth CASCADE') };
		die $@ if $dba->state ne '40P01';
		return 0 });
	$dba->do('CREATE EXTENSION sessauth');
	$dba->do('SELECT sessauth.create_signing_key()');
	$dba->do(q{SELECT sessauth.create_tenant('acme')});
	$dba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $redis->url);
	$redis->command('FLUSHALL');		# else it belongs to the ledger of before until that has been silent for long
	wait_streaming($dba);
	ok(wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'arrives')})), 'a ledger that was made under load publishes');
	return;
}

# In one transaction, so that the worker sees no moment without it. Its secrets are new ones.
$dba->begin_work;
$dba->do('DROP EXTENSION sessauth CASCADE');
$dba->do('CREATE EXTENSION sessauth');
$dba->commit;
$dba->do('SELECT sessauth.create_signing_key()');
$dba->do(q{SELECT sessauth.create_tenant('acme')});
$redis->command('FLUSHALL');
$dba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $redis->url);
wait_streaming($dba);
ok(wait_revocation($redis, value($dba, q{SELECT sessauth.revoke_user('acme', 'first')})), 'a ledger that took the place of another in one transaction publishes');
check_stream($dba, $redis, 'with its own link key');
ok(new_node($redis, link_key($dba))->ask->wait_answer, 'and its nodes are answered');
like(slurp_file($ledger->logfile), qr/worker begins anew: the extension is another one/, 'by another worker');

my @answers = storm(
	count     => WRITERS,
	connect   => sub { $ledger->dbh },
	run       => \&write_on,
	meanwhile => sub {
		my $ok = eval { begin_anew() for 1 .. ROUNDS; 1 };
		my $error = $@;
		open my $file, '>', $stop or die "$stop: $!";
		die $error unless $ok;
	});
cmp_ok($_->{done}, '>', 100, 'a writer has logged in and out all the time') for @answers;
is_deeply({ map { %{ $_->{wrong} } } @answers }, {}, 'and has seen no other error than that the ledger is not there');
wait_published($dba, $redis);
check_log($dba, 'the last ledger');
check_stream($dba, $redis, 'the last ledger');
is(value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sessauth worker'}), 1, 'it has one worker');
my $log = slurp_file($ledger->logfile);
unlike($log, qr/PANIC|TRAP|terminated by signal|stuck spinlock/, 'nothing has crashed');
unlike($log, qr/Process \d+: mirrors:|sessauth worker.*deadlock detected/, 'and the worker was in no deadlock');
done_testing;
