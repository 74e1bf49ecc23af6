# node_threads.t
#		One node under many threads that decide, watch and ask, while revocations, new
#		keys and an outage of Redis come in, and once more with Redis and PostgreSQL bringing them at the same time; under
#		ThreadSanitizer, under the address and undefined behaviour sanitizers, and as the library that is installed under valgrind.

use strict;
use warnings;

use FindBin;
use IPC::Open2 ();
use lib $FindBin::Bin;
use Sessauth;
use Sessauth::Publisher;
use Test::More;
use Worker;

my $redis = Sessauth::Redis->start_server;
my $alice = '11111111-0000-4000-8000-000000000001';

for my $sanitizer ('thread', 'address')
{
	subtest "$sanitizer sanitizer" => sub { run_under($sanitizer) };
	subtest "$sanitizer sanitizer, two transports" => sub { run_both($sanitizer) };
}
subtest 'valgrind' => sub { run_under('valgrind') };

done_testing();

sub run_under
{
	my ($sanitizer) = @_;
	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => "$sanitizer:");
	my @token  = (
		$ledger->token(user => 'alice', sid => $alice),
		$ledger->token(user => 'bob'),
		$ledger->token(user => 'carol', tenant => 'globex'),
		$ledger->token(user => 'dave', key => 'second'),
		$ledger->token(user => 'erin', exp => $ledger->now_s + 1800),
		$ledger->token(user => 'bob', epoch => 2),
		$ledger->token(user => 'frank', key => 'lost'));
	my $dir = private_dir();
	open my $file, '>', "$dir/tokens" or die $!;
	print $file "$_\n" for @token;
	close $file;
	my $jwks = $ledger->write_jwks('main', 'second', 'lost');

	my ($becomes, $ends) = program($sanitizer, $dir, sub { $ledger->work }, $ledger->url, $jwks, $ledger->write_link_key);

	$becomes->('all are active, watched, and known to the cache', qr{^(active/0 ){7}kept=1 heard=0 cached=1$});
	$ledger->revoke(session => 'acme', 'alice', $alice);
	$becomes->('a session ends: its watch is told once', qr{^revoked/1 (active/0 ){6}});
	$ledger->revoke(user => 'acme', 'bob', 2);
	$ledger->revoke(tenant => 'globex', 2);
	$becomes->('a user, but not the next login, and a tenant', qr{^(revoked/1 ){3}(active/0 ){4}});
	$ledger->write_jwks('main', 'second');
	$becomes->('a key that nobody hears of any more', qr{^(revoked/1 ){3}(active/0 ){3}(unknown_key|cannot_tell)/1 });
	$ledger->write_jwks('main', 'second', 'third');
	$ledger->revoke(key => $ledger->kid('second'));
	$becomes->('a key', qr{^(revoked/1 ){4}active/0 active/0 (unknown_key|cannot_tell)/1 kept=1 heard=4 });
	$ledger->advance(1801);
	$becomes->('an expiry ends no watch', qr{^(revoked/1 ){4}expired/0 active/0 });
	$redis->command('DEL', $ledger->{revocations_key});
	$redis->command('CLIENT', 'KILL', 'TYPE', 'normal');
	$ledger->change_generation;
	$becomes->('a node that cannot know what it missed ends the watches of expired tokens', qr{^(revoked/1 ){4}expired/1 active/0 });

	$ends->();
	return;
}

# The same program after a real ledger and its mirror: each revocation comes twice, from two threads.
sub run_both
{
	my ($sanitizer) = @_;
	my ($ledger, $dba, $mirror) = worker_ledger($sanitizer);
	my @login = map { login($dba, "user$_") } 0 .. 5;
	my $dir = private_dir();
	open my $file, '>', "$dir/tokens" or die $!;
	print $file "$_->{access_token}\n" for @login;
	close $file;
	my %keys = Sessauth::Gate::pinned_keys($dba);
	my ($becomes, $ends) = program($sanitizer, $dir, sub { }, $mirror->url, @keys{qw(--jwks --link-key-file)}, $ledger->conninfo('gate'));

	$becomes->('all are active and watched', qr{^(active/0 ){6}kept=1 });
	value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $login[0]{session_id});
	$becomes->('a session ends: its watch is told once', qr{^revoked/1 (active/0 ){5}});
	value($dba, q{SELECT count(sessauth.revoke_user('acme', 'other' || i)) FROM generate_series(1, 500) i});
	value($dba, q{SELECT sessauth.revoke_user('acme', 'user1')});
	$becomes->('a user, after 500 others', qr{^revoked/1 revoked/1 (active/0 ){4}});
	$dba->do(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'});
	value($dba, q{SELECT sessauth.revoke_user('acme', 'user2')});
	$becomes->('while PostgreSQL has to be found again', qr{^(revoked/1 ){3}(active/0 ){3}});
	$mirror->command('CLIENT', 'KILL', 'TYPE', 'normal');
	value($dba, q{SELECT sessauth.revoke_user('acme', 'user3')});
	$becomes->('while Redis has', qr{^(revoked/1 ){4}(active/0 ){2}});
	$mirror->pause;
	value($dba, q{SELECT sessauth.revoke_user('acme', 'user4')});
	$becomes->('without Redis', qr{^(revoked/1 ){5}active/0 });
	$mirror->continue;
	$ends->();
	return;
}

# Starts the program with these arguments and the file of tokens. Returns what waits for a line of it (while calling work), and what ends it.
sub program
{
	my ($sanitizer, $dir, $work, $url, $jwks, $link_key, @more) = @_;
	local $ENV{TSAN_OPTIONS} = "halt_on_error=1 exitcode=66 suppressions=$FindBin::Bin/../tools/tsan.supp log_path=$dir/report";
	local $ENV{ASAN_OPTIONS} = "log_path=$dir/report";
	my @command = (($ENV{TESTDIR} // '.') . "/build/tools/node_threads-$sanitizer", $url, $jwks, $link_key, "$dir/tokens", @more);

	# Its threads take turns, and without fair-sched one of them may have all.
	unshift @command, qw(valgrind --quiet --fair-sched=yes --error-exitcode=66 --leak-check=full), "--log-file=$dir/report" if $sanitizer eq 'valgrind';
	my $pid = IPC::Open2::open2(my $from, my $to, @command);
	my $report = sub { map { slurp_file($_) } glob "$dir/report*" };
	my $becomes = sub {
		my ($name, $pattern) = @_;
		my $line = '';
		poll_until($name, sub {
			$work->();
			print $to "?\n";
			$to->flush;
			$line = <$from> // die 'the program has ended: ', $report->();
			return $line =~ $pattern });
		like($line, $pattern, $name);
	};
	my $ends = sub {
		close $to;
		is(scalar <$from>, "revived=0 told_twice=0 told_late=0 worked=1\n", 'and nothing happened that must never happen');
		waitpid $pid, 0;
		is($?, 0, 'it ends cleanly') or diag($report->());
	};
	return ($becomes, $ends);
}
