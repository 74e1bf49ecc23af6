# dml.t
#		Prepared transactions, replica mode and logical replication: what is committed is
#		recorded once and revoked once, whoever commits it and when.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('main', config => "max_prepared_transactions = 10\nwal_level = logical\nmax_wal_senders = 4\nmax_replication_slots = 4");
my $dba    = $ledger->dbh;
my $redis  = Sessauth::Redis->start_server;
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);

# ---- prepared transactions ----

my %user = map { $_ => login($_) } qw(alice bob carol dave);
my $new;
prepared('p1', sub {
	$new = login('erin');
	$user{alice} = row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $user{alice}{refresh_token});
	value($dba, 'SELECT sessauth.authenticate(?)', $user{bob}{access_token});
	value($dba, 'SELECT sessauth.revoke_user(?, ?, ?)', 'acme', 'bob', 'prepared');
	value($dba, 'SELECT sessauth.revoke_session(?, ?)', 'acme', $user{carol}{session_id});
});
is(value($dba, 'SELECT sessauth.current_user_id()'), undef, 'an identity ends with PREPARE TRANSACTION');
is(outcome($user{bob}), 'active', 'prepared is not committed');
$ledger->restart;
$dba = $ledger->dbh;
$ledger->dbh->do(q{COMMIT PREPARED 'p1'});
is(outcome($new), 'active', 'after a restart another session commits: the login holds');
is(outcome($user{alice}), 'active', 'so does the refresh');
is(row($dba, 'SELECT * FROM sessauth.refresh_session(?)', $user{alice}{refresh_token})->{outcome}, 'ok', 'and its refresh token');
is(outcome($user{bob}), 'revoked', 'the user is revoked');
is(outcome($user{carol}), 'revoked', 'the session is revoked');
logged_once('user_revoked', 'bob');
logged_once('session_revoked', 'carol');

# ROLLBACK PREPARED: the limit that the README states. Nothing is left, and the token is unknown to the ledger.
my $lost;
prepared('p2', sub { $lost = login('frank'); value($dba, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'dave') });
$dba->do(q{ROLLBACK PREPARED 'p2'});
isnt(outcome($lost), 'active', 'a session of a transaction that was rolled back is not active');
is(outcome($user{dave}), 'active', 'and its revocation did not happen');
is(value($dba, q{SELECT count(*) FROM sessauth.event WHERE user_id = 'frank' AND kind <> 'token_lost'}), 0, 'the history has nothing of it');

# ---- replica mode ----

$dba->do('SET session_replication_role = replica');
is($dba->do(q{UPDATE sessauth.tenant_user SET epoch = epoch + 1 WHERE user_id = 'dave'}), 1, 'a change in replica mode');
$dba->do('RESET session_replication_role');
is(outcome($user{dave}), 'revoked', 'counts');
logged_once('user_revoked', 'dave');

# ---- logical replication ----

# The triggers run when rows are applied: the subscriber's ledger gives its own epochs, and tells its own nodes.
$dba->do('CREATE DATABASE there');
$ledger->create_extension('there');
my $there = $ledger->dbh(undef, 'there');
value($there, 'SELECT sessauth.create_tenant(?)', 'acme');
$there->do(q{INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES ('acme', 'gina')});
login('gina');
$dba->do('CREATE PUBLICATION users FOR TABLE sessauth.tenant_user');
$dba->do(q{SELECT pg_create_logical_replication_slot('users', 'pgoutput')});
$there->do("CREATE SUBSCRIPTION users CONNECTION '" . $ledger->conninfo
	  . q{' PUBLICATION users WITH (create_slot = false, slot_name = 'users', copy_data = false)});
my $before = value($there, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'gina'});
raise_gina($dba) for 1 .. 20;
poll_until('the revocation to be applied', sub { value($there, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'gina'}) > $before });
cmp_ok(value($there, q{SELECT count(*) FROM sessauth.event WHERE kind = 'user_revoked' AND revokes = 'user' AND user_id = 'gina'}),
	'>', 0, 'a revocation that is applied is recorded there');
poll_until('it to be numbered there', sub { value($there, q{SELECT count(*) FROM sessauth.revocation_log WHERE user_id = 'gina'}) });
pass('and published there');

# What would take a revocation back stops the replication, for somebody to see.
my $mark = -s $ledger->logfile;
raise_gina($there) for 1 .. 60;
$before = value($there, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'gina'});
raise_gina($dba);
poll_until('the refusal', sub { substr(slurp_file($ledger->logfile), $mark) =~ /ERROR:  an epoch can only grow/ });
is(value($there, q{SELECT epoch FROM sessauth.tenant_user WHERE user_id = 'gina'}), $before, 'a lower epoch is refused');
$there->do('DROP SUBSCRIPTION users');

done_testing;

# ---- helpers ----

sub prepared
{
	my ($name, $work) = @_;
	$dba->begin_work;
	$work->();
	$dba->do("PREPARE TRANSACTION '$name'");
	$dba->rollback;    # DBI believes that it is still open
	return;
}

sub login
{
	my ($user) = @_;
	return row($dba, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', $user);
}

sub outcome
{
	my ($session) = @_;
	return value($dba, 'SELECT outcome FROM sessauth.verify(?)', $session->{access_token});
}

sub raise_gina
{
	my ($dbh) = @_;
	$dbh->do(q{UPDATE sessauth.tenant_user SET epoch = epoch + 1 WHERE user_id = 'gina'});
	return;
}

# One event in the history, and one number in the log that nodes follow.
sub logged_once
{
	my ($kind, $user) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $event = value($dba, 'SELECT min(event_id) FROM sessauth.event WHERE kind = ? AND user_id = ? AND revokes IS NOT NULL', $kind, $user);
	is(value($dba, 'SELECT count(*) FROM sessauth.event WHERE kind = ? AND user_id = ?', $kind, $user), 1, "$kind of $user: once in the history");
	poll_until("$kind of $user to be numbered", sub { value($dba, 'SELECT count(*) FROM sessauth.revocation_log WHERE event_id = ?', $event) });
	is(value($dba, 'SELECT count(*) FROM sessauth.revocation_log WHERE event_id = ?', $event), 1, "$kind of $user: once in the log");
	return;
}
