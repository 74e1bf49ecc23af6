# status.t
#		status() on a server that something is wrong with. (What can be wrong in
#		the tables is in test/sql/status.sql, a standby in standby.t.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('status', config => <<'END');
fsync = on
full_page_writes = on
max_worker_processes = 8
END

# In a session of its own, as the settings are now: check => its row (of mirrors, the last).
sub status { return map { $_->{check_name} => $_ } rows($ledger->dbh, 'SELECT * FROM sessauth.status()'); }

sub finds
{
	my ($check, $state, $detail, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %status = status();
	is($status{$check}{state}, $state, "$what: $check is $state");
	like($status{$check}{detail}, $detail, "$what: the detail");
	$state eq 'ok' ? is($status{$check}{hint}, undef, "$what: no hint") : ok(length $status{$check}{hint}, "$what: a hint");
	return;
}

# Appends settings, restarts, and waits for the worker unless there is to be none.
sub with_settings
{
	my ($settings, %options) = @_;
	$ledger->append_conf('postgresql.conf', $settings);
	$dba->disconnect;
	$ledger->restart;
	$dba = $ledger->dbh;
	wait_streaming($dba) unless $options{no_worker};
	return;
}

my %status = status();
is_deeply([ map { "$_: $status{$_}{detail}" } grep { $status{$_}{state} ne 'ok' } sort keys %status ], [], 'everything is in order');
is(scalar keys %status, 14, 'and everything was looked at');
like($status{worker}{detail}, qr/process \d+/, 'it names the worker');

# ---- the worker and its mirrors ----

$redis->stop;
poll_until('the mirror to be down', sub { mirror_row($dba)->{state} ne 'streaming' });
%status = status();
isnt($status{mirrors}{state}, 'ok', 'a Redis that is gone is found');
$redis->restart;
wait_streaming($dba);
finds('mirrors', 'ok', qr/"main" is streaming/, 'when it is back');

with_settings('max_worker_processes = 2', no_worker => 1);
finds('worker', 'error', qr/no worker of this database/, 'too few slots');
finds('worker_slots', 'warning', qr/max_worker_processes = 2/, 'too few slots');
finds('mirrors', 'warning', qr/"main" is waiting/, 'too few slots');
with_settings('max_worker_processes = 8');
finds('worker', 'ok', qr/is running/, 'enough slots');

# ---- a lock that somebody holds ----

my $other = $ledger->dbh;
$other->begin_work;
$other->do('LOCK TABLE sessauth.signing_key IN ACCESS EXCLUSIVE MODE');
finds('signing_keys', 'error', qr/check itself failed: canceling statement due to lock timeout/, 'a locked table');
finds('ledger', 'ok', qr/active since/, 'the others');
$other->rollback;
finds('signing_keys', 'ok', qr/days old/, 'when it is free');

# Who cancels the call means the call, and not one of its checks.
$other->begin_work;
$other->do('LOCK TABLE sessauth.signing_key IN ACCESS EXCLUSIVE MODE');
$dba->do('SET statement_timeout = 100');
is(error_of($dba, 'SELECT * FROM sessauth.status()')->{sqlstate}, '57014', 'a cancelled call ends');
$dba->do('RESET statement_timeout');
is(value($dba, 'SELECT current_user = session_user'), 1, 'and leaves the session as it was');
$other->rollback;

# ---- settings ----

with_settings("synchronous_commit = off");
finds('durability', 'warning', qr/synchronous_commit is off/, 'asynchronous commits');
with_settings("fsync = off");
finds('durability', 'error', qr/fsync/, 'no fsync');
with_settings("fsync = on\nsynchronous_commit = local");
finds('durability', 'ok', qr/synchronous_commit = local/, 'local commits');

with_settings("log_statement = all\nlog_parameter_max_length_on_error = 100\nshared_preload_libraries = 'auto_explain, sessauth'\nauto_explain.log_min_duration = 0");
finds('log', 'ok', qr/\(log_parameter_max_length, log_parameter_max_length_on_error, auto_explain\.log_parameter_max_length\); tokens in them are redacted/, 'parameters are logged');
with_settings("auto_explain.log_min_duration = -1\nlog_statement = none\nlog_parameter_max_length_on_error = 0");
finds('log', 'ok', qr/Bound parameters are not logged/, 'they are not');

with_settings("shared_preload_libraries = 'sessauth, pg_stat_statements'");
finds('statement_statistics', 'warning', qr/track_utility is on/, 'pg_stat_statements');
with_settings('pg_stat_statements.track_utility = off');
finds('statement_statistics', 'ok', qr/no literals/, 'without utility statements');

# ---- the master key ----

my $key = slurp_file($ledger->{master_key_file});
make_master_key($ledger->{master_key_file});
finds('master_key', 'warning', qr/would not have it after a restart.*holds another key/, 'a file that was replaced');
chmod 0644, $ledger->{master_key_file};
finds('master_key', 'warning', qr/would not have it after a restart.*is not private/, 'a file that anybody may read');
unlink $ledger->{master_key_file};
finds('master_key', 'warning', qr/would not have it after a restart.*could not open/, 'a file that is gone');
make_master_key($ledger->{master_key_file});
with_settings('log_statement = none', no_worker => 1);
finds('master_key', 'error', qr/not the one that sealed/, 'another key');
open(my $file, '>', $ledger->{master_key_file}) or die $!;
print $file $key;
close $file;
with_settings('log_statement = none');
finds('master_key', 'ok', qr/master key with id [0-9a-f]{16}/, 'the right one');

# ---- not preloaded ----

with_settings("shared_preload_libraries = ''\nlog_statement = all", no_worker => 1);
is(error_of($dba, 'SELECT sessauth.jwks()')->{sqlstate}, '55000', 'without the preloaded library calls refuse to work');
finds('preload', 'error', qr/not loaded when the server started/, 'but status() says why');
finds('worker', 'error', qr/none without the preloaded library/, 'not preloaded');
finds('log', 'error', qr/logged as they are, because of log_parameter_max_length\b/, 'not preloaded');
finds('signing_keys', 'ok', qr/0 days old/, 'not preloaded');
finds('master_key', 'ok', qr/with id/, 'not preloaded');
with_settings('log_statement = none', no_worker => 1);
finds('log', 'warning', qr/as they are/, 'not preloaded, and nothing logged');

done_testing;
