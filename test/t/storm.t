# storm.t
#		Many clients at once: limits hold, one refresh token has one successor, a
#		revocation beats whatever races with it, and no mix of calls deadlocks or loses a record.

use strict;
use warnings;

use IO::Handle;
use Sessauth;
use Sessauth::Storm qw(storm);
use Test::More;

my $ledger = new_ledger('storm', config => <<'END');
max_connections = 260
deadlock_timeout = 100ms
fsync = off
END
my ($dba, $app) = ($ledger->dbh, $ledger->dbh('app'));
value($dba, 'SELECT sessauth.create_signing_key()');

# ---- the first calls of a ledger ----

subtest 'the first calls of a new ledger, twelve at once' => sub {
	for my $round (1 .. 3)
	{
		$dba->do("CREATE DATABASE fresh$round");
		$ledger->dbh(undef, "fresh$round")->do('CREATE EXTENSION sessauth');
		my @answers = storm(count => 12, connect => sub { $ledger->dbh(undef, "fresh$round") },
			run => sub { my ($dbh, $i) = @_; value($dbh, 'SELECT sessauth.create_tenant(?)', "t$i"); return 'made' });
		is_deeply([ map { ref $_ ? $_->{died} : $_ } @answers ], [ ('made') x 12 ], "round $round: all of them succeed");
	}
};

# ---- logins at the limit ----

subtest '200 logins at once, a limit of 5, the rest refused' => sub {
	tenant('reject', '{"max_sessions": 5}');
	my @answers = logins('reject', 'alice', 200);
	is_deeply(tally(@answers), { ok => 5, limit_reached => 195 }, 'five got in');
	is_deeply([ sort map { $_->{session_id} } grep { $_->{outcome} eq 'ok' } @answers ], [ live('reject', 'alice') ], 'and just these are live');
	is_deeply(events('reject', 'alice'), { user_revoked => 1, session_issued => 5 }, 'the history tells the same');
	is(scalar(grep { defined $_->{access_token} } @answers), 5, 'and nobody else got a token');
};

subtest '200 logins at once, a limit of 5, the oldest out' => sub {
	tenant('evict', '{"max_sessions": 5, "on_limit": "evict_oldest"}');
	my @answers = logins('evict', 'alice', 200);
	is_deeply(tally(@answers), { ok => 200 }, 'everybody got in');
	my @live    = live('evict', 'alice');
	my @evicted = map { @{ $_->{evicted} // [] } } @answers;
	is(scalar @live, 5, 'five are live');
	is(scalar @evicted, 195, 'the answers name 195 that were evicted');
	is_deeply([ sort @live, @evicted ], [ sort map { $_->{session_id} } @answers ], 'nobody twice, and nobody who is live');
	is_deeply(events('evict', 'alice'), { user_revoked => 1, session_issued => 200, session_evicted => 195 }, 'the history tells the same');
	my %active = map { $_ => 1 } @live;
	is(scalar(grep { outcome($_->{access_token}) ne ($active{ $_->{session_id} } ? 'active' : 'revoked') } @answers), 0,
		'verify() knows who is live and who is not');
};

for my $case ([ 'without a limit', '{}', { ok => 50 }, 50 ], [ 'with a limit of 5', '{"max_sessions": 5}', { ok => 5, limit_reached => 45 }, 5 ])
{
	my ($what, $policy, $outcomes, $live) = @$case;
	my $tenant = "first $live";
	subtest "50 first logins at once of a user who was never seen, $what" => sub {
		tenant($tenant, $policy);
		# Somebody has begun to create the user, lets all of them wait for that, and thinks better of it.
		my $owner = $ledger->dbh;
		$owner->begin_work;
		$owner->do(q{INSERT INTO sessauth.tenant_user (tenant_id, user_id) VALUES (?, 'newcomer')}, undef, $tenant);
		my @answers = storm(
			count     => 50,
			connect   => \&connect_app,
			run       => sub { return row($_[0], 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, 'newcomer') },
			meanwhile => sub { wait_for_waiting(50); $owner->rollback });
		is_deeply(tally(@answers), $outcomes, 'as many got in as may');
		is(scalar live($tenant, 'newcomer'), $live, 'and are live');
		is_deeply(events($tenant, 'newcomer'), { user_created => 1, session_issued => $live }, 'the user was created once');
		my %epochs = map { $_->{epoch} => 1 } grep { $_->{outcome} eq 'ok' } @answers;
		is(scalar keys %epochs, 1, 'all of them have the one epoch');
	};
}

# ---- refreshes of one token ----

subtest '64 refreshes at once of one token, within the grace window' => sub {
	tenant('grace', '{"refresh_grace": "1 min"}');
	my $login   = login('grace', 'alice');
	my @answers = refreshes($login, 64);
	is_deeply(tally(@answers), { ok => 64 }, 'each got an answer, nobody was logged out');
	is(distinct(refresh_token => @answers), 1, 'all of them the one successor');
	is(distinct(session_id => @answers), 1, 'of the one session');
	is(distinct(access_token => @answers), 64, 'and an access token each');
	is_deeply(outcomes(@answers), { active => 64 }, 'which are good');
	is_deeply(events('grace', 'alice'), { user_created => 1, session_issued => 1, session_refreshed => 1, session_refresh_retried => 63 },
		'the history has the rotation once, and each further answer');
	is_deeply([ live('grace', 'alice') ], [ $login->{session_id} ], 'one session is live');
	my $next = refresh($answers[0]);
	is($next->{outcome}, 'ok', 'its successor works');
	is(refresh($answers[1])->{refresh_token}, $next->{refresh_token}, 'and is now the parent');
	is(refresh($login)->{outcome}, 'reused', 'while the token of the storm is too old for that');
};

subtest '64 refreshes at once of one token, without a grace window' => sub {
	tenant('strict', '{"refresh_grace": 0}');
	for my $round (1 .. 4)
	{
		my $user    = "alice $round";
		my $login   = login('strict', $user);
		my @answers = refreshes($login, 64);
		is_deeply(tally(@answers), { ok => 1, reused => 1, revoked => 62 }, 'one wins, one is noticed, the rest come too late');
		is_deeply(events('strict', $user), { user_created => 1, session_issued => 1, session_refreshed => 1, refresh_reused => 1 },
			'the theft is recorded once');
		is_deeply([ live('strict', $user) ], [], 'and has ended the session');
		my ($winner) = grep { $_->{outcome} eq 'ok' } @answers;
		is_deeply([ outcome($winner->{access_token}), refresh($winner)->{outcome} ], [ 'revoked', 'revoked' ], 'for the winner, too');
		is(scalar(grep { defined $_->{refresh_token} } @answers), 1, 'nobody else got a token');
	}
};

# ---- what races with a refresh ----

my %rivals = (
	revoke_user => sub { value($_[0], 'SELECT sessauth.revoke_user(?, ?)', 'race', $_[1]{user}) },
	revoke_session => sub { value($_[0], 'SELECT sessauth.revoke_session(?, ?)', 'race', $_[1]{session_id}) },
	revoke_others => sub { value($_[0], 'SELECT sessauth.revoke_other_sessions(?, ?, gen_random_uuid())', 'race', $_[1]{user}) },
	logout => sub { value($_[0], 'SELECT sessauth.logout(?)', $_[1]{access_token}) || undef },
	evict => sub { row($_[0], 'SELECT * FROM sessauth.issue_session(?, ?)', 'race', $_[1]{user})->{evicted} });
tenant('race', '{"max_sessions": 1, "on_limit": "evict_oldest"}');
for my $rival (sort keys %rivals)
{
	subtest "refreshes race with $rival" => sub {
		my $recorded = { revoke_user => 'user_revoked', logout => 'session_logged_out', evict => 'session_evicted' }->{$rival} // 'session_revoked';
		for my $round (1 .. 10)
		{
			my $user  = "$rival $round";
			my $login = { %{ login('race', $user) }, user => $user };
			my @answers = storm(
				count   => 8,
				connect => \&connect_app,
				run     => sub {
					my ($dbh, $i) = @_;
					return { ended => $rivals{$rival}->($dbh, $login) } if $i == $round % 8 || $i == ($round + 3) % 8 && $rival eq 'logout';
					return row($dbh, 'SELECT * FROM sessauth.refresh_session(?)', $login->{refresh_token});
				});
			my @ended = grep { exists $_->{ended} } @answers;
			my @refreshed = grep { !exists $_->{ended} } @answers;
			is(scalar(grep { defined $_->{ended} } @ended), 1, "it ended the session, once");
			is(scalar(grep { $_->{outcome} !~ /^(ok|revoked)$/ } @refreshed), 0, 'the others refreshed, or were told');
			is(scalar(grep { $_ ne 'revoked' } map { outcome($_->{access_token}) } $login, grep { $_->{access_token} } @refreshed), 0,
				'no token of the session is good');
			is(scalar(grep { refresh($_)->{outcome} ne 'revoked' } $login, grep { $_->{refresh_token} } @refreshed), 0, 'of either kind');
			is(events('race', $user)->{$recorded}, 1, 'and that is recorded once');
			is(scalar live('race', $user), $rival eq 'evict' ? 1 : 0, 'nobody else was logged out');
		}
	};
}

# ---- a policy that changes under the logins ----

subtest 'a policy changes while users log in' => sub {
	tenant('policy', '{"max_sessions": 3}');
	my @answers = storm(
		count   => 8,
		connect => sub { return $_[0] == 0 ? $ledger->dbh : connect_app() },
		run     => sub {
			my ($dbh, $i) = @_;
			if ($i == 0)
			{
				value($dbh, 'SELECT sessauth.set_policy(?, ?)', 'policy', $_)
				  for map { ('{"max_sessions": 7, "on_limit": "evict_oldest", "access_ttl": "10 min"}', '{"max_sessions": 3, "access_ttl": "1 min"}') } 1 .. 30;
				return [];
			}
			return [ map { row($dbh, 'SELECT * FROM sessauth.issue_session(?, ?)', 'policy', 'alice') } 1 .. 20 ];
		});
	my @logins = map { ref $_ eq 'ARRAY' ? @$_ : $_ } @answers;
	is_deeply([ grep { $_->{died} } @logins ], [], 'nobody was refused with an error');
	my $outcomes = tally(@logins);
	is(($outcomes->{ok} // 0) + ($outcomes->{limit_reached} // 0), 140, 'each was let in or refused');
	cmp_ok(scalar live('policy', 'alice'), '<=', 7, 'never more than the larger limit');
	is(scalar live('policy', 'alice'), value($dba, q{SELECT count(*) FROM sessauth.session WHERE tenant_id = 'policy' AND ended_at IS NULL}),
		'and nobody is half out');
	is(events('policy', undef)->{policy_changed}, 60, 'each change is recorded');
	is(value($dba, q{SELECT count(*) FROM sessauth.session s JOIN sessauth.tenant t USING (tenant_id) WHERE tenant_id = 'policy'
		AND s.access_expires_at > s.created_at + t.access_ttl_max}), 0, 'no token outlives what a revocation reckons with');
};

done_testing;

# ---- helpers ----

# A connection that has used the library before the storm begins.
sub connect_app
{
	my $dbh = $ledger->dbh('app');
	value($dbh, 'SELECT outcome FROM sessauth.verify(?)', 'x');
	return $dbh;
}

sub tenant { my ($tenant, $policy) = @_; value($dba, 'SELECT sessauth.create_tenant(?, ?)', $tenant, $policy); return; }

sub login
{
	my ($tenant, $user) = @_;
	return row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, $user);
}

sub refresh { return row($app, 'SELECT * FROM sessauth.refresh_session(?)', $_[0]{refresh_token}); }

sub outcome { return value($app, 'SELECT outcome FROM sessauth.verify(?)', $_[0]); }

# That many logins of a user, all of them waiting for the user's row until the last has come.
sub logins
{
	my ($tenant, $user, $count) = @_;
	value($app, 'SELECT sessauth.revoke_user(?, ?)', $tenant, $user);
	return held('SELECT 1 FROM sessauth.tenant_user WHERE tenant_id = ? AND user_id = ? FOR UPDATE', [ $tenant, $user ], $count,
		sub { return row($_[0], 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, $user) });
}

# That many refreshes with a login's token, all of them waiting for the session's row until the last has come.
sub refreshes
{
	my ($login, $count) = @_;
	return held('SELECT 1 FROM sessauth.session WHERE session_id = ? FOR UPDATE', [ $login->{session_id} ], $count,
		sub { return row($_[0], 'SELECT * FROM sessauth.refresh_session(?)', $login->{refresh_token}) });
}

sub held
{
	my ($lock, $parameters, $count, $run) = @_;
	my $holder = $ledger->dbh;
	$holder->begin_work;
	value($holder, $lock, @$parameters);
	return storm(count => $count, connect => \&connect_app, run => $run,
		meanwhile => sub { wait_for_waiting($count); $holder->commit });
}

sub wait_for_waiting
{
	my ($count) = @_;
	poll_until("$count clients to wait", sub {
		value($dba, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'}) >= $count });
	return;
}

sub live
{
	my ($tenant, $user) = @_;
	my @live = sort map { $_->{session_id} } rows($app, 'SELECT session_id FROM sessauth.list_sessions(?, ?)', $tenant, $user);
	return @live;
}

# Kind => how many, of a user's history, or (no user) of the tenant's own.
sub events
{
	my ($tenant, $user) = @_;
	return { map { $_->{kind} => $_->{count} }
		rows($dba, 'SELECT kind, count(*) FROM sessauth.history WHERE tenant_id = ? AND user_id IS NOT DISTINCT FROM ? GROUP BY 1', $tenant, $user) };
}

sub tally { my %count; $count{ $_->{outcome} // "died: $_->{died}" }++ for @_; return \%count; }

sub outcomes { my %count; $count{ outcome($_->{access_token}) }++ for @_; return \%count; }

sub distinct { my ($name, @rows) = @_; my %seen = map { $_->{$name} // '' => 1 } @rows; return scalar keys %seen; }
