# mixed_storm.t
#		Every call that changes something, in any order, from several connections at
#		once: nothing deadlocks, nothing fails in a way that the manual does not name, and in the
#		end tables, tokens, history and revocation log tell one story.

use strict;
use warnings;

use IO::Handle;
use JSON::PP ();
use List::Util qw(sum0);
use Sessauth;
use Sessauth::Storm qw(storm);
use Test::More;

my $clients    = 8;
my $operations = 250;
my @tenants    = qw(acme globex);
my @users      = qw(alice bob carol);

my $ledger = new_ledger('mix', config => "deadlock_timeout = 50ms\nfsync = off\n");
my $dba    = $ledger->dbh;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?, ?)', $_, policy()) for @tenants;

# Tokens that all clients know from the beginning, so that they meet at one session.
my @common = map { my $tenant = $_; map { my $user = $_; map { issue($dba, $tenant, $user) } 1 .. 3 } @users } @tenants;

# The calls, by how often they are made. Each returns what changed: kind => how often; and puts tokens into @$tokens.
my %calls = (
	login => [ 20, sub { my ($dbh, $tenant, $user, $tokens) = @_; return granted($tokens, issue($dbh, $tenant, $user), 'login') } ],
	lost_login => [ 3, sub {
		my ($dbh, $tenant, $user, $tokens) = @_;
		$dbh->begin_work;
		my $lost = attempt($dbh, $tenant, $user);
		$dbh->rollback;
		granted($tokens, $lost, 'login');
		return { session_rolled_back => $lost->{outcome} eq 'ok' ? 1 : 0 };
	} ],
	savepoint_login => [ 3, sub {
		my ($dbh, $tenant, $user, $tokens) = @_;
		$dbh->begin_work;
		$dbh->pg_savepoint('s');
		my $lost = attempt($dbh, $tenant, $user);
		$dbh->pg_rollback_to('s');
		my $kept = attempt($dbh, $tenant, $user);
		$dbh->commit;	# which is a rollback when the second has failed
		granted($tokens, $lost, 'login');
		return { %{ granted($tokens, $kept, 'login') }, session_rolled_back => $lost->{outcome} eq 'ok' ? 1 : 0 };
	} ],
	refresh => [ 20, sub {
		my ($dbh, undef, undef, $tokens) = @_;
		my $presented = recent($tokens);
		my $answer = row($dbh, 'SELECT * FROM sessauth.refresh_session(?)', $presented->{refresh_token});
		return { refresh_reused => 1 } if $answer->{outcome} eq 'reused';
		return granted($tokens, { %$answer, tenant => $presented->{tenant} }, 'refresh');
	} ],
	theft => [ 3, sub {
		my ($dbh, $tenant, $user, $tokens) = @_;
		my $login = my $token = issue($dbh, $tenant, $user);
		my @changes = granted($tokens, $login, 'login');
		for (1 .. 2)
		{
			return sum_up(@changes) if $token->{outcome} ne 'ok';
			$token = row($dbh, 'SELECT * FROM sessauth.refresh_session(?)', $token->{refresh_token});
			push @changes, granted($tokens, { %$token, tenant => $tenant }, 'refresh');
		}
		return sum_up(@changes, { refresh_reused =>
			value($dbh, 'SELECT outcome FROM sessauth.refresh_session(?)', $login->{refresh_token}) eq 'reused' ? 1 : 0 });
	} ],
	logout => [ 3, sub {
		my ($dbh, undef, undef, $tokens) = @_;
		return { session_logged_out => value($dbh, 'SELECT sessauth.logout(?)', recent($tokens)->{access_token}) ? 1 : 0 };
	} ],
	revoke_session => [ 3, sub {
		my ($dbh, undef, undef, $tokens) = @_;
		my $one = recent($tokens);
		return counted(session_revoked => value($dbh, 'SELECT sessauth.revoke_session(?, ?)', @{$one}{qw(tenant session_id)}));
	} ],
	revoke_other_sessions => [ 12, sub {
		my ($dbh, $tenant, $user, $tokens) = @_;
		value($dbh, 'SELECT sessauth.revoke_other_sessions(?, ?, ?)', $tenant, $user, recent($tokens)->{session_id});
		return {};	# how many it ended, only the history says
	} ],
	revoke_user  => [ 2, sub { return counted(user_revoked => value($_[0], 'SELECT sessauth.revoke_user(?, ?)', @_[ 1, 2 ])) } ],
	block_user   => [ 1, sub { return counted(user_blocked => value($_[0], 'SELECT sessauth.block_user(?, ?)', @_[ 1, 2 ])) } ],
	unblock_user => [ 6, sub { return counted(user_unblocked => value($_[0], 'SELECT sessauth.unblock_user(?, ?)', @_[ 1, 2 ])) } ],
	revoke_tenant  => [ 1, sub { return counted(tenant_revoked => value($_[0], 'SELECT sessauth.revoke_tenant(?)', $_[1])) } ],
	suspend_tenant => [ 1, sub { return counted(tenant_suspended => value($_[0], 'SELECT sessauth.suspend_tenant(?)', $_[1])) } ],
	resume_tenant  => [ 5, sub { return counted(tenant_resumed => value($_[0], 'SELECT sessauth.resume_tenant(?)', $_[1])) } ],
	set_policy => [ 2, sub {
		value($_[0], 'SELECT sessauth.set_policy(?, ?)', $_[1], policy());
		return { 'tenant updated' => 1 };
	} ],
	drop_tenant   => [ 1, sub { return counted(tenant_dropped => value($_[0], 'SELECT sessauth.drop_tenant(?)', $_[1])) } ],
	create_tenant => [ 5, sub { return counted(tenant_created => value($_[0], 'SELECT sessauth.create_tenant(?, ?)::text', $_[1], policy())) } ],
	plain_dml => [ 2, sub {
		my ($dbh, $tenant, $user) = @_;
		return { user_revoked => $dbh->do('UPDATE sessauth.tenant_user SET epoch = epoch + 1 WHERE tenant_id = ? AND user_id = ?', undef, $tenant, $user) + 0 };
	} ]);
my @failed;
my @deck = map { ($_) x $calls{$_}[0] } sort keys %calls;

my $seed = $ENV{SESSAUTH_TEST_SEED} // time;
note("SESSAUTH_TEST_SEED=$seed");
my @results = storm(count => $clients, connect => sub { $ledger->dbh }, run => \&play);

# What a call may refuse with: there is no such tenant just now, or there is one already.
my %expected = map { $_ => 1 } qw(42704 42710);
my @errors = map { @{ $_->{errors} // [ [ 'everything', $_->{sqlstate}, $_->{died} ] ] } } @results;
is_deeply([ map { "@$_" } grep { $_->[1] eq '40P01' } @errors ], [], 'nothing deadlocked');
is_deeply([ map { "@$_" } grep { $_->[1] ne '40P01' && !$expected{ $_->[1] } } @errors ], [], 'nothing failed in a way that it must not');
my %done = %{ sum_up(map { $_->{changes} } @results) };
is_deeply([ grep { !$done{"call $_"} } sort keys %calls ], [], 'every call has been made');
cmp_ok($done{$_} // 0, '>', 0, "$_ has happened") for qw(login session_logged_out refresh_reused session_rolled_back tenant_dropped tenant_created user_blocked);

# ---- one story ----

poll_until('the worker to record what was rolled back', sub { count_of("kind = 'session_rolled_back'") >= $done{session_rolled_back} });
my %history = map { $_->{kind} => $_->{count} } rows($dba, 'SELECT kind, count(*) FROM sessauth.history GROUP BY 1');
my %before = (login => scalar @common, tenant_created => scalar @tenants);
is($history{session_issued}, $done{login} + $before{login}, 'the history has every login');
is(($history{session_refreshed} // 0) + ($history{session_refresh_retried} // 0), $done{refresh}, 'every refresh');
is($history{$_} // 0, ($done{$_} // 0) + ($before{$_} // 0), "$_, as often as it was done")
  for qw(refresh_reused session_logged_out session_rolled_back user_revoked user_blocked user_unblocked
  tenant_revoked tenant_suspended tenant_resumed tenant_dropped tenant_created);
is(sum0(map { $history{$_} // 0 } qw(policy_changed access_ttl_raised tenant_changed)), $done{'tenant updated'}, 'every change of a policy');
is($history{session_evicted} // 0, $done{evicted} // 0, 'everybody who was evicted');
cmp_ok($history{session_revoked}, '>=', $done{session_revoked}, 'every session that was revoked');

is(value($dba, q{SELECT count(*) FROM (SELECT session_id, array_agg(version ORDER BY version) AS versions FROM sessauth.event
	WHERE kind <> 'session_rolled_back' AND session_id IS NOT NULL GROUP BY 1) s
	WHERE versions <> (SELECT array_agg(n::bigint) FROM generate_series(1, cardinality(versions)) n)}), 0,
	'no change of a session is recorded twice, or not at all');
is(value($dba, q{SELECT count(*) FROM sessauth.session s WHERE version <>
	(SELECT count(*) FROM sessauth.event e WHERE e.session_id = s.session_id AND kind <> 'session_rolled_back')}), 0, 'nor the last one');
is(value($dba, q{SELECT count(*) FROM sessauth.session s WHERE (ended_at IS NOT NULL)::int <>
	(SELECT count(*) FROM sessauth.event e WHERE e.session_id = s.session_id AND revokes = 'session')}), 0, 'a session ends once');

for my $whose ([ 'tenant', 'tenant_id', q{kind LIKE 'tenant%' AND user_id IS NULL} ], [ 'user', 'tenant_id, user_id', q{kind LIKE 'user%'} ])
{
	my ($name, $key, $events) = @$whose;
	is(value($dba, qq{SELECT count(*) FROM (SELECT revokes, epoch, lag(epoch) OVER (PARTITION BY $key ORDER BY event_id) AS before
		FROM sessauth.event WHERE $events) e WHERE epoch < before OR revokes IS NOT NULL AND epoch = before}), 0,
		"the epoch of a $name never goes down, and every revocation raises it");
}
is(value($dba, q{SELECT count(*) FROM sessauth.tenant_user u WHERE epoch <>
	(SELECT max(epoch) FROM sessauth.event e WHERE (e.tenant_id, e.user_id) = (u.tenant_id, u.user_id) AND kind LIKE 'user%')}), 0,
	'and is what the history says last');

poll_until('the worker to have numbered everything', sub {
	value($dba, 'SELECT count(*) FROM sessauth.revocation_log') >= count_of('revokes IS NOT NULL') });
is(value($dba, q{SELECT count(*) FROM sessauth.event e FULL JOIN sessauth.revocation_log l USING (event_id)
	WHERE (e.revokes IS NOT NULL) IS DISTINCT FROM (l.n IS NOT NULL)}), 0, 'every revocation is in the log, and nothing else');
is_deeply([ value($dba, 'SELECT count(*) FROM sessauth.revocation_log'), value($dba, 'SELECT count(DISTINCT event_id) FROM sessauth.revocation_log'),
	value($dba, 'SELECT max(n) FROM sessauth.revocation_log') ], [ (count_of('revokes IS NOT NULL')) x 3 ], 'once, and without a gap');

# The tokens, of both kinds, and the views say the same of every session.
my %state = map { $_->{session_id} => $_->{state} } rows($dba, 'SELECT session_id, state FROM sessauth.sessions');
my %listed = map { $_->{session_id} => 1 } map { my $tenant = $_; map { rows($dba, 'SELECT session_id FROM sessauth.list_sessions(?, ?)', $tenant, $_) } @users } @tenants;
is_deeply([ sort keys %listed ], [ sort grep { $state{$_} eq 'live' } keys %state ], 'list_sessions() lists what the view calls live');
my %known = map { $_->{access_token} => $_->{session_id} } @common, map { @{ $_->{tokens} } } @results;
my (%wrong, %seen);
while (my ($token, $session_id) = each %known)
{
	my $live    = ($state{$session_id} // 'gone') eq 'live' ? 'active' : 'revoked';
	my $outcome = value($dba, 'SELECT outcome FROM sessauth.verify(?)', $token);
	my $active  = JSON::PP->new->decode(value($dba, 'SELECT sessauth.introspect(?)', $token))->{active} ? 'active' : 'revoked';
	$seen{$live}++;
	$wrong{"$live, but verify() says $outcome and introspect() $active"}++ if $outcome ne $live || $active ne $live;
}
is_deeply(\%wrong, {}, 'verify() and introspect() agree with the view on every token that was ever given out');
cmp_ok($seen{$_} // 0, '>', 0, "some of them are $_") for qw(active revoked);

done_testing;

# ---- helpers ----

# One client's part.
sub play
{
	my ($dbh, $i) = @_;
	my @tokens = @common;
	my %changes;
	srand($seed + $i);
	for my $n (1 .. $operations)
	{
		my $call    = one_of(@deck);
		# Towards the end nobody drops, blocks or suspends any more, so that somebody is left.
		$call = 'login' if $n > $operations - 30 && $call =~ /^(drop|suspend|revoke|block|logout)/;
		$call = one_of(qw(create_tenant resume_tenant unblock_user)) if $n > $operations - 30 && $n % 3 == 0;
		my $changed = eval { $calls{$call}[1]->($dbh, one_of(@tenants), one_of(@users), \@tokens) };
		push @failed, [ $call, $dbh->state, "$@" ] unless $changed;
		$changes{"call $call"}++;
		%changes = %{ sum_up(\%changes, $changed // {}) };
	}
	return { changes => \%changes, errors => \@failed, tokens => [ @tokens[ @common .. $#tokens ] ] };
}

sub issue
{
	my ($dbh, $tenant, $user) = @_;
	return { %{ row($dbh, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, $user) }, tenant => $tenant };
}

# A login in a transaction that goes on, whatever becomes of it.
sub attempt
{
	my ($dbh, $tenant, $user) = @_;
	my $login = eval { issue($dbh, $tenant, $user) };
	push @failed, [ 'login', $dbh->state, "$@" ] unless $login;
	return $login // { outcome => 'error' };
}

# Keeps what was given out, and says what has changed.
sub granted
{
	my ($tokens, $answer, $kind) = @_;
	return {} if $answer->{outcome} ne 'ok';
	push @$tokens, { map { $_ => $answer->{$_} } qw(session_id access_token refresh_token tenant) };
	return { $kind => 1, evicted => scalar @{ $answer->{evicted} // [] } };
}

sub counted { my ($kind, $event) = @_; return { $kind => defined $event ? 1 : 0 }; }

sub count_of { return value($dba, "SELECT count(*) FROM sessauth.event WHERE $_[0]"); }

# One of the last tokens, which may still be good, or any that this client knows.
sub recent
{
	my ($tokens) = @_;
	return one_of(rand() < 0.8 ? @$tokens[ -8 .. -1 ] : @$tokens);
}

sub policy
{
	return JSON::PP->new->encode({ max_sessions => 3 + int rand 4, on_limit => rand() < 0.9 ? 'evict_oldest' : 'reject',
		refresh_grace => rand() < 0.8 ? 0 : 60, idle_ttl => 3600 + int rand 1_000_000 });
}

sub one_of { return $_[ int rand @_ ]; }

sub sum_up
{
	my %sum;
	for my $part (@_)
	{
		$sum{$_} += $part->{$_} for keys %{ $part // {} };
	}
	return \%sum;
}
