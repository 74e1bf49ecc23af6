# authenticated.t
#		Who acts in an authenticated transaction: the bound user, within the own
#		tenant, for every call that names a tenant or shows a token, whatever the role may do.
#		And when the binding ends.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('authenticated', config => "max_prepared_transactions = 2\n");
my $dba = $ledger->dbh;
my $app = $ledger->dbh('app');
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', $_) for 'acme', 'other';
$dba->do('CREATE ROLE guest');
my $admin = login('acme', 'administrator');

# What to pass, by the name of the argument.
my %pass = (user_id => 'somebody', session_id => undef, keep => undef, role => 'guest', access => 'tenant_admin',
	policy => '{}', refresh_token => undef, token => undef,
	kind => 'user', kid => undef, epoch => 1, until => undef);

# ---- every call that names a tenant ----

my @calls = rows($dba, <<'END');
	SELECT proname AS name, (proargnames)[1 : greatest(pronargs - pronargdefaults, array_position(proargnames[1 : pronargs], 'tenant_id'))] AS arguments
	FROM pg_proc WHERE pronamespace = 'sessauth'::regnamespace AND 'tenant_id' = ANY (proargnames[1 : pronargs]) ORDER BY 1
END
cmp_ok(scalar @calls, '>=', 13, 'there are calls that name a tenant');
for my $call (@calls)
{
	my $name = $call->{name};
	for my $dbh ($dba, $app)
	{
		my $who = $dbh == $dba ? 'a superuser' : 'a service';
		next if $dbh == $app && !value($dba, q{SELECT has_function_privilege('app', (SELECT oid FROM pg_proc WHERE proname = ? AND pronamespace = 'sessauth'::regnamespace), 'EXECUTE')}, $name);
		for my $tenant ('other', 'nowhere')
		{
			my $error = attempt($dbh, $call, $tenant);
			is($error->{sqlstate}, '42501', "$name: $who that is authenticated for acme is refused for $tenant");
			like($error->{message}, qr/permission denied for tenant "$tenant"\nDETAIL:.*another tenant/, '... in the same words');
		}
		my $error = attempt($dbh, $call, 'acme');
		isnt($error->{sqlstate}, '42501', "$name: $who is not refused for acme");
	}
}
is(value($dba, q{SELECT count(*) FROM sessauth.event WHERE tenant_id = 'other' AND kind <> 'tenant_created'}), 0, 'nothing happened to the other tenant');
for my $everybody ('grant_access(?, ?)', 'revoke_access(?, ?)')
{
	is(in_transaction_of($dba, $admin, "SELECT sessauth.$everybody", 'guest', 'service')->{sqlstate}, '42501', "$everybody for every tenant is refused");
}
is(in_transaction_of($dba, $admin, 'SELECT sessauth.activate(true)')->{sqlstate}, '42501', 'so is ending every session of every tenant');

# ---- every call that shows a token ----

my $stranger = login('other', 'stranger');
for my $call ([ 'refresh_session', 'refresh_token' ], [ 'logout', 'refresh_token' ], [ 'logout', 'access_token' ])
{
	my ($name, $token) = @$call;
	is(in_transaction_of($app, $admin, "SELECT sessauth.$name(?)", $stranger->{$token})->{sqlstate}, '42501', "$name of another tenant's $token is refused");
}
is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $stranger->{access_token}), 'active', 'and ended nothing');

# ---- the history names the bound user, whatever the caller says ----

login('acme', 'c');
for my $call (
	[ 'issue_session',         [ 'acme', 'kim' ] ],
	[ 'revoke_user',           [ 'acme', 'kim', 'why', 'somebody else' ] ],
	[ 'block_user',            [ 'acme', 'kim', 'why', 'somebody else' ] ],
	[ 'unblock_user',          [ 'acme', 'kim', 'why', 'somebody else' ] ],
	[ 'revoke_session',        [ 'acme', login('acme', 'a')->{session_id}, 'why', 'somebody else' ] ],
	[ 'revoke_other_sessions', [ 'acme', 'c', $admin->{session_id}, 'why', 'somebody else' ] ],
	[ 'refresh_session',       [ login('acme', 'b')->{refresh_token} ] ],
	[ 'logout',                [ login('acme', 'b')->{refresh_token} ] ],
	[ 'revoke_tenant',         [ 'acme', 'why', 'somebody else' ] ],
	[ 'suspend_tenant',        [ 'acme', 'why', 'somebody else' ], $dba ],
	[ 'set_policy',            [ 'acme', '{"access_ttl": 60}' ], $dba ],
	[ 'grant_access',          [ 'guest', 'tenant_admin', 'acme' ], $dba ],
	[ 'revoke_access',         [ 'guest', 'tenant_admin', 'acme' ], $dba ],
	[ 'drop_tenant',           ['acme'], $dba ])
{
	my ($name, $arguments, $dbh) = @$call;
	$dbh //= $app;
	value($dba, 'SELECT sessauth.resume_tenant(?)', 'acme') if $name eq 'set_policy';
	$admin = login('acme', 'administrator');
	$dbh->begin_work;
	$dbh->do('SELECT sessauth.authenticate(?)', undef, $admin->{access_token});
	value($dbh, "SELECT sessauth.$name(" . join(', ', ('?') x @$arguments) . ')', @$arguments);
	my $xid = value($dbh, 'SELECT pg_current_xact_id()');
	$dbh->commit;
	my @actors = map { $_->{actor} // 'null' } rows($dba, 'SELECT actor FROM sessauth.event WHERE xid = ?::xid8', $xid);
	cmp_ok(scalar @actors, '>=', 1, "$name is in the history");
	is_deeply(\@actors, [ ('administrator') x @actors ], "... and names the bound user as actor");
}

# ---- when the binding ends ----

value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
$admin = login('acme', 'administrator');
for my $end ('COMMIT', 'ROLLBACK', q{PREPARE TRANSACTION 'bound'})
{
	$app->do('BEGIN');
	$app->do('SELECT sessauth.authenticate(?)', undef, $admin->{access_token});
	is(bound(), 'acme administrator', "bound, before $end");
	$app->do($end);
	is(bound(), 'nobody', "$end ends the binding");
}
$dba->do(q{ROLLBACK PREPARED 'bound'});
$app->do('SELECT sessauth.authenticate(?)', undef, $admin->{access_token});
is(bound(), 'nobody', 'a statement of its own is a transaction of its own');

$app->do('BEGIN');
$app->do('SELECT sessauth.authenticate(?)', undef, $admin->{access_token});
$app->do('SAVEPOINT s');
is(bound(), 'acme administrator', 'a savepoint does not unbind');
$app->do('ROLLBACK TO s');
is(bound(), 'acme administrator', 'nor does rolling back to one that was made later');
$app->do('COMMIT');

# An exception block is a savepoint: what was bound in it goes, what was bound before stays.
$app->do('BEGIN');
$app->do(do_block("PERFORM sessauth.authenticate('$admin->{access_token}'); RAISE EXCEPTION 'x'"));
is(bound(), 'nobody', 'a binding made in a block that fails is gone');
$app->do('SELECT sessauth.authenticate(?)', undef, $admin->{access_token});
$app->do(do_block("RAISE EXCEPTION 'x'"));
is(bound(), 'acme administrator', 'one that was made before stays');
$app->do(do_block("PERFORM sessauth.authenticate('forged')"));
is(bound(), 'nobody', 'a token that is not active leaves nobody bound');
$app->do('ROLLBACK');

# Nothing that a session can set is looked at.
for my $setting ('sessauth.tenant', 'sessauth.current_tenant', 'sessauth.identity', 'request.jwt.claims', 'app.tenant')
{
	eval { $app->do("SET $setting = 'acme'") };
	is(bound(), 'nobody', "SET $setting binds nobody");
}
$app->do('BEGIN');
$app->do('SELECT sessauth.authenticate(?)', undef, $admin->{access_token});
$app->do('RESET ALL');
is(bound(), 'acme administrator', 'RESET ALL does not unbind, within the transaction');
$app->do('COMMIT');

done_testing;

# ---- helpers ----

sub login
{
	my ($tenant, $user) = @_;
	my $session = row($dba, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, $user);
	return $session->{outcome} eq 'ok' ? $session : die "login of $tenant/$user: $session->{outcome}";
}

# What a statement raises in a transaction that is authenticated; rolled back. SQLSTATE 00000 for nothing.
sub in_transaction_of
{
	my ($dbh, $session, $statement, @values) = @_;
	$dbh->begin_work;
	$dbh->do('SELECT sessauth.authenticate(?)', undef, $session->{access_token});
	my $error = error_of($dbh, $statement, @values);
	$dbh->rollback;
	return $error // { sqlstate => '00000', message => '' };
}

sub attempt
{
	my ($dbh, $call, $tenant) = @_;
	my @values = map {
		    $_ eq 'tenant_id' ? $tenant
		  : /^(session_id|keep)$/ ? $admin->{session_id}
		  : exists $pass{$_} ? $pass{$_}
		  : die "teach this test what to pass as $_ of $call->{name}\n"
	} @{ $call->{arguments} };
	return in_transaction_of($dbh, $admin, "SELECT sessauth.$call->{name}(" . join(', ', ('?') x @values) . ')', @values);
}

sub bound
{
	return value($app, q{SELECT coalesce(sessauth.current_tenant() || ' ' || sessauth.current_user_id(), 'nobody')});
}

sub do_block
{
	my ($statements) = @_;
	return "DO \$block\$ BEGIN BEGIN $statements; EXCEPTION WHEN OTHERS THEN NULL; END; END \$block\$";
}
