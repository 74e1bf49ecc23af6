# tenant_secrecy.t
#		What somebody of one tenant can learn about another one: nothing. Each
#		question is asked about a user and a session that are there, about ones that are not, and about a
#		tenant that is not; the answers, errors word for word, must be the same, and the
#		ledger must have run the same statements.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('secrecy', config => "autovacuum = off\ntrack_functions = all\n");
my $dba = $ledger->dbh;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', $_) for 'acme', 'other';
my %login = map { $_ => row($dba, 'SELECT * FROM sessauth.issue_session(?, ?, ?)', $_, 'oscar', 'Device of Oscar') } 'acme', 'other';
$dba->do(q{SELECT sessauth.issue_session('other', 'user' || n % 20, 'Device of somebody', '198.51.100.7') FROM generate_series(1, 400) n});
value($dba, q{SELECT sessauth.revoke_user('other', 'oscar2', 'the reason of other', 'the actor of other')});
my @roles = ([ 'service', 'acme' ], [ 'tenant_admin', 'acme' ], [ 'auditor', 'acme' ]);
my %as;
for my $role (@roles)
{
	$dba->do("CREATE ROLE a_$role->[0] LOGIN");
	value($dba, 'SELECT sessauth.grant_access(?, ?, ?)', "a_$role->[0]", @$role);
	$as{ $role->[0] } = $ledger->dbh("a_$role->[0]");
}
$dba->do('ANALYZE');
my $no_session = '01890a5d-ac96-774b-bcce-b302099a8057';

# ---- calls that name a tenant ----

# The pairs: what is there, and what is not, in words that are replaced before answers are compared.
my @there = ('other', 'oscar', $login{other}{session_id});
my @absent = ([ 'other', 'nemo', $no_session ], [ 'nowhere', 'oscar', $login{other}{session_id} ], [ 'nowhere', 'nemo', $no_session ]);
my @calls = rows($dba, <<'END');
	SELECT proname AS name, proargnames[1 : pronargs] AS arguments, proargtypes::oid[]::regtype[]::text[] AS types, pronargs - pronargdefaults AS required, oid
	FROM pg_proc WHERE pronamespace = 'sessauth'::regnamespace AND 'tenant_id' = ANY (proargnames[1 : pronargs]) ORDER BY 1
END
for my $access (sort keys %as)
{
	for my $call (@calls)
	{
		next if !value($dba, q{SELECT has_function_privilege(?, ?::oid, 'EXECUTE')}, "a_$access", $call->{oid});
		my $answer = asked($as{$access}, $call, @there);
		like($answer, qr/^42501 /, "$access: $call->{name} of another tenant is refused");
		is(asked($as{$access}, $call, @$_), $answer, "... in the same words for @$_[0, 1]") for @absent;
	}
}

# In the own tenant, the session of another one is like one that does not exist.
for my $access ('service', 'tenant_admin')
{
	for my $name ('revoke_session')
	{
		is(answer($as{$access}, "SELECT sessauth.$name(?, ?)", 'acme', $login{other}{session_id}),
			answer($as{$access}, "SELECT sessauth.$name(?, ?)", 'acme', $no_session), "$access: $name in the own tenant of a session of another one");
	}
	is(answer($as{$access}, 'SELECT count(*) FROM sessauth.list_sessions(?, ?)', 'acme', 'user1'),
		answer($as{$access}, 'SELECT count(*) FROM sessauth.list_sessions(?, ?)', 'acme', 'nemo'), "$access: the devices of another tenant's user");
}
is(value($dba, 'SELECT outcome FROM sessauth.verify(?)', $login{other}{access_token}), 'active', 'none of it has touched the other tenant');

# A genuine token of a live session there, of one that has ended, and of a tenant that is gone.
value($dba, 'SELECT sessauth.create_tenant(?)', 'gone');
my %token = (live => $login{other}, map { $_ => row($dba, 'SELECT * FROM sessauth.issue_session(?, ?)', $_ eq 'gone' ? 'gone' : 'other', $_) } 'ended', 'revoked', 'gone');
value($dba, q{SELECT sessauth.revoke_session('other', ?)}, $token{ended}{session_id});
value($dba, q{SELECT sessauth.revoke_user('other', 'revoked')});
value($dba, q{SELECT sessauth.drop_tenant('gone')});
for my $call ([ 'verify', 'access_token' ], [ 'introspect', 'access_token' ], [ 'introspect', 'refresh_token' ], [ 'refresh_session', 'refresh_token' ],
	[ 'logout', 'refresh_token' ], [ 'logout', 'access_token' ], [ 'authenticate', 'access_token' ])
{
	my ($name, $kind) = @$call;
	my %answers = map { $_ => answer($as{service}, "SELECT sessauth.$name(?)", $token{$_}{$kind}) } sort keys %token;
	is($answers{$_}, $answers{live}, "$name: a stranger's $kind whose session is $_ looks like one that is live") for sort keys %answers;
}

# ---- the same statements ----

for my $case (
	[ 'service',      'SELECT sessauth.revoke_session(?, ?)', [ 'acme', $login{other}{session_id} ], [ 'acme', $no_session ] ],
	[ 'tenant_admin', 'SELECT sessauth.revoke_session(?, ?)', [ 'acme', $login{other}{session_id} ], [ 'acme', $no_session ] ],
	[ 'tenant_admin', 'SELECT sessauth.revoke_user(?, ?)', [ 'other', 'oscar' ], [ 'nowhere', 'nemo' ] ],
	[ 'service',      'SELECT sessauth.issue_session(?, ?)', [ 'other', 'oscar' ], [ 'nowhere', 'nemo' ] ],
	[ 'service',      'SELECT sessauth.list_sessions(?, ?)', [ 'other', 'oscar' ], [ 'nowhere', 'nemo' ] ],
	[ 'service',      'SELECT sessauth.refresh_session(?)', [ $token{live}{refresh_token} ], [ $token{ended}{refresh_token} ] ],
	[ 'service',      'SELECT sessauth.verify(?)', [ $token{live}{access_token} ], [ $token{gone}{access_token} ] ])
{
	my ($access, $statement, $there, $not) = @$case;
	my $dbh = $as{$access};
	answer($dbh, $statement, @$_) for ($there, $not) x 2;    # caches are warm
	is(scans($access, $statement, @$there), scans($access, $statement, @$not), "$access: $statement reads the same tables as often");
}

# ---- views and tables ----

for my $access ('tenant_admin', 'auditor')
{
	my $dbh = $as{$access};
	for my $relation (map { $_->{name} } rows($dba, <<'END', "a_$access"))
		SELECT relname AS name FROM pg_class c WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v')
			AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id') AND has_any_column_privilege(?, c.oid, 'SELECT') ORDER BY 1
END
	{
		is(value($dbh, "SELECT count(*) FROM sessauth.$relation WHERE tenant_id = 'other'"), 0, "$access: $relation has no row of another tenant");
		is(error_of($dbh, "SELECT count(*) FROM sessauth.$relation WHERE tenant_id <> 'acme' AND 1 / (length(tenant_id) - 5) > 0"), undef,
			'... and evaluates nothing on them');
		for my $column ('tenant_id', 'user_id', 'device', 'ip', 'actor', 'reason')
		{
			next if !value($dba, q{SELECT count(*) FROM pg_attribute WHERE attrelid = ('sessauth.' || ?)::regclass AND attname = ?}, $relation, $column);
			my ($there, $not) = $column eq 'ip' ? ('198.51.100.7', '203.0.113.9') : ({ tenant_id => 'other', user_id => 'user1', device => 'Device of somebody',
					actor => 'the actor of other', reason => 'the reason of other' }->{$column}, 'nemo');
			is(estimate($dbh, $relation, "$column = '$there'"), estimate($dbh, $relation, "$column = '$not'"),
				"$access: how many rows of $relation the planner expects does not tell whether $column is there");
			next if $column eq 'ip';
			is(estimate($dbh, $relation, "$column >= '$there' AND $column < '$there~'"), estimate($dbh, $relation, "$column >= 'nemo' AND $column < 'nemo~'"),
				'... not by a range, either');
		}
	}
	# By name, whatever way the planner takes to it: what is there costs what is not there costs, and no row is touched.
	for my $way ('enable_seqscan', 'enable_bitmapscan', 'enable_indexscan')
	{
		my @off = $way eq 'enable_seqscan' ? ($way) : ('enable_seqscan', $way);
		for my $relation ('session', 'sessions', 'tenant_user', 'event', 'history', 'revocations')
		{
			next if !value($dba, q{SELECT has_any_column_privilege(?, ?::regclass, 'SELECT')}, "a_$access", "sessauth.$relation");
			my ($there, $not) = map { touched($dbh, "SELECT count(*) FROM sessauth.$relation WHERE tenant_id = 'other' AND user_id = '$_'", @off) } 'user1', 'nemo';
			is($there, $not, "$access: a user of another tenant in $relation costs as much as one who is not there (without @off)");
			is($there =~ s/ .*//r, 0, '... no row of theirs is read');
		}
	}
	is(value($dbh, q{SELECT count(*) FROM pg_stats WHERE schemaname = 'sessauth' AND (most_common_vals IS NOT NULL OR histogram_bounds IS NOT NULL)}), 0,
		"$access: pg_stats shows no value of the ledger");
}

done_testing;

# ---- helpers ----

# What a call answers, rolled back: its first value, or SQLSTATE, message, detail and hint, with the asked words taken out.
sub asked
{
	my ($dbh, $call, $tenant, $user, $session) = @_;
	my @names = @{ $call->{arguments} }[ 0 .. $call->{required} - 1 ];
	my @values = map { /^tenant_id$/ ? $tenant : /^(session_id|keep)$/ ? $session : $user } @names;
	my $answer = answer($dbh, "SELECT sessauth.$call->{name}(" . join(', ', ('?') x @values) . ')', @values);
	$answer =~ s/\b\Q$tenant\E\b/TENANT/g;
	$answer =~ s/\b\Q$user\E\b/USER/g;
	$answer =~ s/\Q$session\E/SESSION/g;
	return $answer;
}

sub answer
{
	my ($dbh, $statement, @values) = @_;
	$dbh->begin_work;
	my $answer;
	eval { $answer = value($dbh, $statement, @values) // 'null'; 1 } or $answer = $dbh->state . ' ' . $dbh->errstr;
	$dbh->rollback;
	return $answer;
}

# How often a call scanned each table and index of the ledger.
sub scans
{
	my ($access, $statement, @values) = @_;
	my $dbh = $ledger->dbh;
	my %scans;
	for my $warm (1, 0)
	{
		$dbh->begin_work;
		$dbh->do('SET LOCAL SESSION AUTHORIZATION a_' . $access);
		$dbh->do('SAVEPOINT s');
		eval { value($dbh, $statement, @values) };
		$dbh->do('ROLLBACK TO s');
		$dbh->do('RESET SESSION AUTHORIZATION');
		%scans = map { $_->{relname} => $_->{scans} } rows($dbh, <<'END');
			SELECT relname, pg_stat_get_xact_numscans(oid) AS scans FROM pg_class
			WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'i') AND pg_stat_get_xact_numscans(oid) > 0
END
		$dbh->rollback;
		$dbh->do('SELECT pg_stat_force_next_flush()');
	}
	$dbh->disconnect;
	return join ' ', map { "$_=$scans{$_}" } sort keys %scans;
}

sub estimate
{
	my ($dbh, $relation, $condition) = @_;
	my ($rows) = value($dbh, "EXPLAIN SELECT tenant_id FROM sessauth.$relation WHERE $condition") =~ /rows=(\d+)/;
	return $rows;
}

# How many rows a query threw away that it had read by an index, and how many pages it needed.
sub touched
{
	my ($dbh, $query, @off) = @_;
	$dbh->begin_work;
	$dbh->do("SET LOCAL $_ = off") for @off;
	my $plan = join "\n", map { $_->[0] } @{ $dbh->selectall_arrayref("EXPLAIN (ANALYZE, BUFFERS, COSTS off, TIMING off, SUMMARY off) $query") };
	$plan    = join "\n", map { $_->[0] } @{ $dbh->selectall_arrayref("EXPLAIN (ANALYZE, BUFFERS, COSTS off, TIMING off, SUMMARY off) $query") };
	$dbh->rollback;
	my $rows = 0;
	$rows += $_ for $plan =~ /Rows Removed by (?:Filter|Index Recheck): (\d+)/g;
	my ($pages) = $plan =~ /Buffers: shared hit=(\d+)/;
	return "$rows rows, " . ($pages // 0) . ' pages';
}
