# node_watch.t
#		What sessauth_watch() promises: whoever watches a session is told once when it ends, whatever the node
#		knew at that moment and whatever it lost afterwards. The node is built with the address sanitizer.

use strict;
use warnings;

use FindBin;
use IPC::Open2 ();
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('main');
my $app = $ledger->dbh('app');

# PostgreSQL answers questions about tokens only: the lease comes over Redis.
$dba->do('REVOKE EXECUTE ON FUNCTION sessauth.lease(text, interval, uuid, bigint, bigint) FROM gate');

my @nodes;	# [pid, to, from, number of the next watch, its directory of reports]

my $node = start_node(100_000);
my ($late, $refreshed, $twice, $user, $tenant, $other) = map { login($dba, $_) } qw(late refreshed twice user tenant other);
value($dba, q{SELECT sessauth.create_tenant('globex')});
my $globex = login($dba, 'tenant', 'globex');

subtest 'a node that knows everything' => sub {
	my %watch = (refreshed => watched($node, $refreshed, 'active'), twice => watched($node, $twice, 'active'), user => watched($node, $user, 'active'),
		tenant => watched($node, $globex, 'active'), other => watched($node, $other, 'active'), back => watched($node, $user, 'active'));
	revoke_user('late');
	poll_until('a revocation', sub { say_to($node, "wait $late->{access_token}") eq 'revoked' });
	is(watch($node, $late)->{said}, 'revoked alone', 'who was revoked before is refused, and not watched');

	my $rotated = row($app, 'SELECT * FROM sessauth.refresh_session(?)', $refreshed->{refresh_token});
	is($rotated->{outcome}, 'ok', 'a session is refreshed');
	say_to($node, "unwatch $watch{back}");
	value($app, q{SELECT sessauth.revoke_session('acme', ?)}, $twice->{session_id});
	told($node, $watch{twice}, 'a session that is revoked');
	value($app, q{SELECT sessauth.revoke_tenant('globex')});
	told($node, $watch{tenant}, 'a session of a tenant that is');
	revoke_user('twice');
	revoke_user('user');
	told($node, $watch{user}, 'a session of a user that is');
	is(say_to($node, "told $watch{twice}"), '1 revoked', 'what is revoked twice is told once');
	is(say_to($node, "told $watch{$_}"), '0 -', "$_ is not told") for qw(refreshed other back);
	value($app, 'SELECT sessauth.logout(?)', $rotated->{access_token});
	told($node, $watch{refreshed}, 'the session that was refreshed, by the logout of its new token');
	say_to($node, "unwatch $_") for values %watch;
};

# Three kinds of absence; after each of them the node hears of what it has missed.
for my $absence (
	[ 'Redis hangs', sub { $redis->pause }, sub { $redis->continue } ],
	[ 'Redis comes back empty, and the mirror in a new generation', sub { $redis->stop }, sub { $redis->restart } ],
	[ 'the worker stands still', sub { signal_worker('STOP') }, sub { signal_worker('CONT') } ])
{
	my ($name, $begins, $ends) = @$absence;
	subtest $name => sub {
		my %login = map { $_ => login($dba, "$_ " . ($name =~ s/ .*//r)) } qw(before meanwhile asked missed live);
		my %watch = (before => watched($node, $login{before}, 'active'));
		$begins->();
		poll_until('the lease to be over', sub { say_to($node, 'ready') == 0 });
		$watch{missed}    = watched($node, $login{missed}, 'cannot_tell');
		$watch{live}      = watched($node, $login{live}, 'cannot_tell');
		revoke_session($login{$_}) for qw(before meanwhile missed);
		$watch{meanwhile} = watched($node, $login{meanwhile}, 'cannot_tell');
		$watch{asked}     = watched($node, $login{asked}, 'cannot_tell');
		poll_until('PostgreSQL to have been asked', sub { say_to($node, "wait $login{asked}{access_token}") eq 'active' });
		is(say_to($node, "told $watch{$_}"), '0 -', "nobody has told the node of $_") for qw(before missed meanwhile);
		revoke_session($login{asked});
		$ends->();
		told($node, $watch{before},    'watched before, revoked meanwhile');
		told($node, $watch{missed},    'watched and then revoked meanwhile');
		told($node, $watch{meanwhile}, 'revoked and then watched meanwhile');
		told($node, $watch{asked},     'active when PostgreSQL was asked, and revoked after that');
		poll_until('the lease to be there again', sub { say_to($node, 'ready') == 1 });
		is(say_to($node, "told $watch{live}"), '0 -', 'a session that lives on is not told');
		revoke_session($login{live});
		told($node, $watch{live}, 'until it ends, too');
		is(say_to($node, "told $watch{$_}"), '1 revoked', "$_: once") for sort keys %watch;
		say_to($node, "unwatch $_") for values %watch;
	};
}

subtest 'more revocations than the node may remember' => sub {
	my %login = map { $_ => login($dba, "full $_") } qw(before missed later live);
	my $small = start_node(60);
	my %watch = map { $_ => watched($small, $login{$_}, 'active') } qw(before live);
	value($app, q{SELECT count(sessauth.revoke_user('acme', 'nobody' || i)) FROM generate_series(1, 100) i});
	poll_until('the node to be unsure', sub { say_to($small, 'ready') == 0 });
	revoke_session($login{before});
	told($small, $watch{before}, 'one that had watched before');
	revoke_session($login{missed});
	my $missed = watch($small, $login{missed});
	is($missed->{said}, 'cannot_tell watched', 'a session whose revocation the node could not keep can be watched');
	is(say_to($small, "wait $login{missed}{access_token}"), 'revoked', 'and who asks is told what happened before that');
	$watch{later} = watched($small, $login{later}, 'cannot_tell');
	revoke_session($login{later});
	told($small, $watch{later}, 'as is one that watched before its revocation');
	is(say_to($small, "told $watch{live}"), '0 -', 'and nobody else');
};

subtest 'closing' => sub {
	my %login = map { $_ => login($dba, "open $_") } qw(one two);
	watch($_, $login{one}) for @nodes;
	for my $of (@nodes)
	{
		my $watch = watch($of, $login{two})->{number};
		is(say_to($of, "unwatch $watch"), 'given back', 'a watch is given back');
		is(say_to($of, 'close'), 0, 'another one is not, and the node is closed all the same');
		is(readline($of->{from}), undef, 'nobody is told any more');
		waitpid $of->{pid}, 0;
		is($?, 0, 'it ends cleanly') or diag(map { slurp_file($_) } glob "$of->{dir}/report*");
	}
};

done_testing();

# ---- helpers ----

sub start_node
{
	my ($max_revocations) = @_;
	my $dir = private_dir();
	local $ENV{ASAN_OPTIONS} = "log_path=$dir/report";
	my $program = ($ENV{TESTDIR} // '.') . '/build/tools/node_watch-address';
	my $pid = IPC::Open2::open2(my $from, my $to, $program, $redis->url, $ledger->conninfo('gate'), $max_revocations);
	my $started = { pid => $pid, to => $to, from => $from, dir => $dir, next => 0 };
	push @nodes, $started;
	poll_until('the node to be ready', sub { say_to($started, 'ready') == 1 });
	return $started;
}

sub say_to
{
	my ($to, $command) = @_;
	print { $to->{to} } "$command\n";
	$to->{to}->flush;
	my $line = readline($to->{from}) // die 'the program has ended: ', map { slurp_file($_) } glob "$to->{dir}/report*";
	chomp $line;
	return $line;
}

# Watches the session of a login: a new number, and what was said.
sub watch
{
	my ($of, $login) = @_;
	my $number = $of->{next}++;
	return { number => $number, said => say_to($of, "watch $number $login->{access_token}") };
}

# The same, when this must be said; the number.
sub watched
{
	my ($of, $login, $code) = @_;
	my $watch = watch($of, $login);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($watch->{said}, "$code watched", "a watch while the answer is $code");
	return $watch->{number};
}

sub told
{
	my ($of, $number, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	poll_until("$what to be told", sub { say_to($of, "told $number") ne '0 -' });
	is(say_to($of, "told $number"), '1 revoked', "$what is told");
	return;
}

sub revoke_user    { return value($app, q{SELECT sessauth.revoke_user('acme', ?)}, $_[0]); }
sub revoke_session { return value($app, q{SELECT sessauth.revoke_session('acme', ?)}, $_[0]{session_id}); }

sub signal_worker
{
	my ($signal) = @_;
	my $pid = value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = 'postgres'});
	kill $signal, $pid or die "kill: $!";
	return;
}
