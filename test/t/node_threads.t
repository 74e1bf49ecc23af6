# node_threads.t
#		One node under many threads that decide, watch and ask, while revocations, new
#		keys and an outage of Redis come in; under ThreadSanitizer, and under the address and undefined
#		behaviour sanitizers.

use strict;
use warnings;

use IPC::Open2 ();
use Sessauth::Process qw(poll_until private_dir);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis = Sessauth::Redis->start_server;
my $alice = '11111111-0000-4000-8000-000000000001';

for my $sanitizer ('thread', 'address')
{
	subtest "$sanitizer sanitizer" => sub { run_under($sanitizer) };
}

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
		$ledger->token(user => 'bob', epoch => 2));
	my $dir = private_dir();
	open my $file, '>', "$dir/tokens" or die $!;
	print $file "$_\n" for @token;
	close $file;
	my $jwks = $ledger->write_jwks('main', 'second');

	local $ENV{TSAN_OPTIONS} = "halt_on_error=1 exitcode=66 log_path=$dir/report";
	local $ENV{ASAN_OPTIONS} = "log_path=$dir/report";
	my $program = ($ENV{TESTDIR} // '.') . "/build/tools/node_threads-$sanitizer";
	my $pid = IPC::Open2::open2(my $from, my $to, $program, $ledger->url, $jwks, $ledger->write_link_key, "$dir/tokens");
	my $ask = sub {
		$ledger->work;
		print $to "?\n";
		$to->flush;
		my $line = <$from> // die 'the program has ended: ' . join '', map { Sessauth::Process::slurp_file($_) } glob "$dir/report*";
		return $line;
	};
	my $becomes = sub {
		my ($name, $pattern) = @_;
		my $line = '';
		poll_until($name, sub { ($line = $ask->()) =~ $pattern });
		like($line, $pattern, $name);
	};

	$becomes->('all are active, watched, and known to the cache', qr{^(active/0 ){6}kept=1 heard=0 cached=1$});
	$ledger->revoke(session => 'acme', 'alice', $alice);
	$becomes->('a session ends: its watch is told once', qr{^revoked/1 (active/0 ){5}});
	$ledger->revoke(user => 'acme', 'bob', 2);
	$ledger->revoke(tenant => 'globex', 2);
	$becomes->('a user, but not the next login, and a tenant', qr{^revoked/1 revoked/1 revoked/1 active/0 active/0 active/0 });
	$ledger->write_jwks('main', 'second', 'third');
	$ledger->revoke(key => $ledger->kid('second'));
	$becomes->('a key', qr{^revoked/1 revoked/1 revoked/1 revoked/1 active/0 active/0 kept=1 heard=4 });
	$ledger->advance(1801);
	$becomes->('an expiry ends no watch', qr{^(revoked/1 ){4}expired/0 active/0 });
	$redis->command('DEL', $ledger->{revocations_key});
	$redis->command('CLIENT', 'KILL', 'TYPE', 'normal');
	$ledger->change_generation;
	$becomes->('a node that cannot know what it missed ends the watches of expired tokens', qr{^(revoked/1 ){4}expired/1 active/0 });

	close $to;
	my $last = <$from>;
	is($last, "revived=0 told_twice=0 told_late=0 worked=1\n", 'and nothing happened that must never happen');
	waitpid $pid, 0;
	is($?, 0, 'it ends cleanly') or diag(map { Sessauth::Process::slurp_file($_) } glob "$dir/report*");
	return;
}
