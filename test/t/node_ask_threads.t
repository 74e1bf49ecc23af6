# node_ask_threads.t
#		A node that cannot decide alone, asked from many threads, under ThreadSanitizer and the
#		address sanitizer: everybody is answered once, and nobody by what was true before the question.

use strict;
use warnings;

use IPC::Open2 ();
use FindBin;
use Sessauth;
use Test::More;

my $ledger = new_ledger('main');
my $redis  = Sessauth::Redis->start_server;
my $dba    = $ledger->dbh;
my $app    = $ledger->dbh('app');
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);

# PostgreSQL answers questions about tokens only: the lease comes over Redis.
$dba->do('REVOKE EXECUTE ON FUNCTION sessauth.lease(text, interval, uuid, bigint, bigint) FROM gate');

# As sessauth.h numbers them.
my ($local, $postgres) = ('[12]', 4);

for my $sanitizer ('thread', 'address')
{
	subtest "$sanitizer sanitizer" => sub { run_under($sanitizer) };
}

done_testing();

sub run_under
{
	my ($sanitizer) = @_;
	my $dir   = private_dir();
	my @users = map { "$sanitizer$_" } 0 .. 3;
	open my $file, '>', "$dir/tokens" or die $!;
	print $file row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', $_)->{access_token}, "\n" for @users;
	close $file;

	local $ENV{TSAN_OPTIONS} = "halt_on_error=1 exitcode=66 suppressions=$FindBin::Bin/../tools/tsan.supp log_path=$dir/report";
	local $ENV{ASAN_OPTIONS} = "log_path=$dir/report";
	my $program = ($ENV{TESTDIR} // '.') . "/build/tools/ask_threads-$sanitizer";
	my $pid = IPC::Open2::open2(my $from, my $to, $program, $redis->url, $ledger->conninfo('gate'), "$dir/tokens");
	my $becomes = sub {
		my ($name, $pattern, $tell) = @_;
		my $line = '';
		my $say  = sub {
			print $to "$_[0]\n";
			$to->flush;
			$line = <$from> // die 'the program has ended: ' . join '', map { slurp_file($_) } glob "$dir/report*";
		};
		$say->($tell) if defined $tell;
		poll_until($name, sub { $say->('?'); $line =~ $pattern });
		like($line, $pattern, $name);
	};

	$becomes->('with a lease nobody is asked', qr{^(active/$local ){4}$});
	my $worker = value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = 'postgres'});
	kill 'STOP', $worker or die "kill: $!";
	$becomes->('without one, PostgreSQL is', qr{^(active/$postgres ){4}$});
	value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', $users[1]);
	$becomes->('which knows of a revocation', qr{^active/$postgres revoked/$postgres active/$postgres active/$postgres $}, 1);
	value($dba, 'SELECT sessauth.revoke_access(?, ?)', 'gate', 'node');
	$becomes->('when it does not say, nobody can tell', qr{^(cannot_tell/\d ){4}$});
	value($dba, 'SELECT sessauth.grant_access(?, ?)', 'gate', 'node');
	$dba->do('REVOKE EXECUTE ON FUNCTION sessauth.lease(text, interval, uuid, bigint, bigint) FROM gate');
	$becomes->('until it does', qr{^active/$postgres revoked/$postgres active/$postgres active/$postgres $});

	close $to;
	my $last = <$from>;
	is($last, "revived=0 twice=0 unanswered=0 worked=1\n", 'and nothing happened that must never happen');
	waitpid $pid, 0;
	is($?, 0, 'it ends cleanly') or diag(map { slurp_file($_) } glob "$dir/report*");
	kill 'CONT', $worker or die "kill: $!";
	return;
}
