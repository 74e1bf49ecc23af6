# errors.t
#		Every error that is raised on purpose: it has a SQLSTATE, one lower-case line, and a detail or a
#		hint, and it is provoked here. The messages are read from the sources, so that an error that
#		nobody provokes fails this test.

use strict;
use warnings;

use Sessauth;
use Test::More;

# What no statement provokes on a server that is set up, or what another test needs a server of its own for.
my %elsewhere = (
	'sessauth must be loaded by shared_preload_libraries'          => 'test/t/bad_input.t',
	'the library and the SQL of sessauth are of different versions' => 'test/t/upgrade.t',
	'a standby cannot tell whether a token is active'              => 'test/t/standby.t',
	'a standby gives no leases'                                    => 'test/t/standby.t',
	'sessauth\'s worker begins anew: the extension is another one' => 'test/t/worker_extension.t',
	'no more than %d nodes get leases over SQL'                    => 'test/t/lease_sql.t',
	'no node gets a lease before %s'                               => 'test/t/handover_overflow.t',
	'%s'                                                           => 'test/t/master_key.t',
	'the master key does not open the secret \"%s\"'               => 'test/t/master_key.t');
my %reason = (
	'a trigger function of sessauth was not called as a trigger'             => 'PostgreSQL refuses such a call before',
	'set-valued function called in context that cannot accept a set'         => 'every place for a call in SQL accepts a set',
	'could not %s'                                         => 'needs a failure of OpenSSL',
	'could not sign an access token'                       => 'needs a failure of OpenSSL: ids and claims have limits',
	'could not make a signing key with %s'                 => 'needs a failure of OpenSSL',
	'could not make a random secret'                       => 'needs a failure of OpenSSL',
	'could not compute the id of the master key'           => 'needs a failure of OpenSSL',
	'out of memory'                                        => 'needs a failure of malloc');

my $ledger = new_ledger('main');
my %as = (dba => $ledger->dbh, app => $ledger->dbh('app'), gate => $ledger->dbh('gate'));
my $dba = $as{dba};
$dba->do('CREATE ROLE nobody_at_all LOGIN');
$as{nobody} = $ledger->dbh('nobody_at_all');
$dba->do('GRANT USAGE ON SCHEMA sessauth TO nobody_at_all');
$dba->do('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sessauth TO nobody_at_all');
$dba->do('GRANT SELECT, UPDATE ON sessauth.event TO nobody_at_all');
$dba->do(q{CREATE POLICY errors ON sessauth.event TO nobody_at_all USING (true)});

my $marker = 'errors-test-marker-' . random_hex(16);
my %provoked;

# What comes before the first write call, and before there is a key.
provoke('this ledger has not been written to yet', '55000', qr/has not been written to yet/, 'dba', q{SELECT sessauth.lease('n/' || repeat('0', 32), '1s', NULL, 0)},
	'DELETE FROM sessauth.ledger_state');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
provoke('there is no signing key', '55000', qr/there is no signing key/, 'app', q{SELECT sessauth.issue_session('acme', 'alice')});
provoke('the ledger has no link key yet', '55000', qr/the ledger has no link key yet/, 'gate', 'SELECT sessauth.link_key()');
value($dba, 'SELECT sessauth.create_signing_key()');

my $alice = row($dba, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'alice');
my $id    = $alice->{session_id};
value($dba, 'SELECT sessauth.create_tenant(?)', 'other');

for my $case (
	[ 'permission denied for tenant \"%s\"', '42501', qr/permission denied for tenant "acme"/, 'nobody', q{SELECT sessauth.revoke_user('acme', 'x')} ],
	[ 'permission denied for this call of sessauth', '42501', qr/permission denied for this call of sessauth/, 'nobody', q{SELECT sessauth.link_key()} ],
	[ 'permission denied for function %s', '42501', qr/permission denied for function create_tenant/, 'nobody', q{SELECT sessauth.create_tenant('x')} ],
	[ 'permission denied for every tenant', '42501', qr/permission denied for every tenant/, 'dba', 'SELECT sessauth.resync()',
		qq{SELECT sessauth.authenticate('$alice->{access_token}')} ],
	[ 'permission denied for tenant \"%s\"', '42501', qr/permission denied for tenant "other"/, 'dba', q{SELECT sessauth.revoke_tenant('other')},
		qq{SELECT sessauth.authenticate('$alice->{access_token}')} ],
	[ 'access \"tenant_admin\" needs a tenant', '22023', qr/access "tenant_admin" needs a tenant/, 'dba', q{SELECT sessauth.grant_access('app', 'tenant_admin')} ],
	[ 'access \"node\" cannot be limited to a tenant', '22023', qr/access "node" cannot/, 'dba', q{SELECT sessauth.grant_access('app', 'node', 'acme')} ],
	[ 'unknown access \"%s\"', '22023', qr/unknown access "king"/, 'dba', q{SELECT sessauth.grant_access('app', 'king')} ],
	[ 'unknown kind of revocation \"%s\"', '22023', qr/unknown kind/, 'dba', q{SELECT sessauth.adopt('all', 'acme', NULL, NULL, NULL, 1, now())} ],
	[ 'cannot truncate table \"%s\"', '0A000', qr/cannot truncate table "session"/, 'dba', 'TRUNCATE sessauth.session' ],
	[ 'cannot truncate table \"%s\"', '0A000', qr/cannot truncate table "event\w*"/, 'dba', 'TRUNCATE sessauth.event CASCADE' ],
	[ 'an ended session cannot be brought back', '55000', qr/brought back/, 'dba', "UPDATE sessauth.session SET ended_at = NULL WHERE session_id = '$id'",
		"UPDATE sessauth.session SET ended_at = now() WHERE session_id = '$id'" ],
	[ 'an epoch can only grow', '55000', qr/an epoch can only grow/, 'dba', 'UPDATE sessauth.tenant SET epoch = 0 - epoch' ],
	[ 'column \"%s\" of table \"%s\" cannot be changed', '55000', qr/column "session_id" of table "session"/, 'dba',
		'UPDATE sessauth.session SET session_id = gen_random_uuid()' ],
	[ 'the history cannot be changed', '42501', qr/the history cannot be changed/, 'nobody', 'UPDATE sessauth.event SET reason = NULL' ],
	[ 'the access token is not active', '28000', qr/the access token is not active/, 'app', "SELECT sessauth.authenticate('$marker')" ],
	[ '%s must not be null', '22004', qr/tenant_id must not be null/, 'app', q{SELECT sessauth.issue_session(NULL, 'alice')} ],
	[ 'invalid %s', '22023', qr/invalid user_id/, 'app', q{SELECT sessauth.issue_session('acme', '')} ],
	[ '%s is too long', '22023', qr/device is too long/, 'app', q{SELECT sessauth.issue_session('acme', 'alice', repeat('x', 513))} ],
	[ 'tenant \"%s\" does not exist', '42704', qr/tenant "nowhere" does not exist/, 'app', q{SELECT sessauth.issue_session('nowhere', 'alice')} ],
	[ 'tenant \"%s\" already exists', '42710', qr/tenant "acme" already exists/, 'dba', q{SELECT sessauth.create_tenant('acme')} ],
	[ 'invalid claims', '22023', qr/invalid claims/, 'app', qq{SELECT sessauth.issue_session('acme', 'alice', claims => '{"sub": "$marker"}')} ],
	[ 'invalid name of a mirror', '22023', qr/invalid name of a mirror/, 'dba', q{SELECT sessauth.add_mirror('a b', 'redis://127.0.0.1')} ],
	[ 'invalid URL of a mirror', '22023', qr/invalid URL of a mirror/, 'dba', qq{SELECT sessauth.add_mirror('m', 'redis://me:$marker\@127.0.0.1')} ],
	[ 'the path of the password file must be absolute', '22023', qr/must be absolute/, 'dba', qq{SELECT sessauth.add_mirror('m', 'redis://127.0.0.1', '$marker')} ],
	[ 'mirror \"%s\" already exists', '42710', qr/mirror "m" already exists/, 'dba', q{SELECT sessauth.add_mirror('m', 'redis://127.0.0.1:1')},
		q{SELECT sessauth.add_mirror('m', 'redis://127.0.0.1:1')} ],
	[ 'there is already a mirror at this place', '42710', qr/there is already a mirror at this place/, 'dba', q{SELECT sessauth.add_mirror('n', 'redis://me@Somewhere:6379/0')},
		q{SELECT sessauth.add_mirror('m', 'redis://somewhere')} ],
	[ 'there is no enabled mirror \"%s\"', '42704', qr/there is no enabled mirror "none"/, 'dba', q{SELECT sessauth.resync('none')} ],
	[ 'a policy must be a JSON object', '22023', qr/a policy must be a JSON object/, 'dba', q{SELECT sessauth.set_policy('acme', '[]')} ],
	[ 'unknown policy key \"%.*s\"', '22023', qr/unknown policy key "x"/, 'dba', q{SELECT sessauth.set_policy('acme', '{"x": 1}')} ],
	[ 'invalid value for policy key \"%s\"', '22023', qr/invalid value for policy key "max_sessions"/, 'dba', q{SELECT sessauth.set_policy('acme', '{"max_sessions": -1}')} ],
	[ 'invalid number of sessions to visit', '22023', qr/invalid number of sessions/, 'dba', q{SELECT sessauth.sweep_sessions('00000000-0000-0000-0000-000000000000', 0)} ],
	[ 'unknown signature algorithm', '22023', qr/unknown signature algorithm/, 'dba', q{SELECT sessauth.create_signing_key('HS256')} ],
	[ 'unknown signature algorithm', '22023', qr/unknown signature algorithm/, 'dba', q{SELECT sessauth.rotate_signing_key('HS256')} ],
	[ 'there is no such signing key', '42704', qr/there is no such signing key/, 'dba', qq{SELECT sessauth.revoke_signing_key('$marker')} ],
	[ 'the node knows more revocations than this ledger', '55000', qr/knows more revocations than this ledger/, 'dba',
		q{SELECT sessauth.lease('n/' || repeat('0', 32), '1s', generation, 1000000) FROM sessauth.ledger_state} ],
	[ 'invalid node', '22023', qr/invalid node/, 'gate', q{SELECT sessauth.lease('nameless', '1s', NULL, 0)} ],
	[ 'max_staleness must be from 1 ms to sessauth.max_lease', '22023', qr/max_staleness must be/, 'gate', q{SELECT sessauth.lease('n/' || repeat('0', 32), '1h', NULL, 0)} ],
	[ 'the timeout must not be negative', '22023', qr/the timeout must not be negative/, 'dba', q{SELECT sessauth.await_receipt(1, '-1 s')} ],
	[ 'event %lld has not been committed', '55000', qr/event \d+ has not been committed/, 'dba',
		q{SELECT sessauth.await_receipt(max(event_id)) FROM sessauth.event}, q{SELECT sessauth.revoke_tenant('acme')} ],
	[ 'no partition of \"%s\" is for this time', '23514', qr/no partition of "event" is for this time/, 'dba', q{SELECT sessauth.revoke_user('acme', 'x')},
		q{DO $$ DECLARE p regclass; BEGIN
			FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass
			LOOP EXECUTE format('ALTER TABLE sessauth.event DETACH PARTITION %s', p); END LOOP; END $$} ],
	[ 'partition \"%s\" does not have the columns of \"%s\" in their order', '55000', qr/partition "odd" does not have the columns of "event"/, 'dba',
		q{SELECT sessauth.revoke_user('acme', 'x')},
		q{DO $$ DECLARE p regclass; columns text; BEGIN
			FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sessauth.event'::regclass
			LOOP EXECUTE format('ALTER TABLE sessauth.event DETACH PARTITION %s', p); END LOOP;
			SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum DESC) INTO columns
				FROM pg_attribute WHERE attrelid = 'sessauth.event'::regclass AND attnum > 0;
			EXECUTE 'CREATE TABLE odd AS SELECT ' || columns || ' FROM sessauth.event';
			FOR columns IN SELECT attname FROM pg_attribute WHERE attrelid = 'sessauth.event'::regclass AND attnum > 0 AND attnotnull
			LOOP EXECUTE format('ALTER TABLE odd ALTER %I SET NOT NULL', columns); END LOOP;
			FOR columns IN SELECT format('ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint
				WHERE conrelid = 'sessauth.event'::regclass AND contype = 'c'
			LOOP EXECUTE 'ALTER TABLE odd ' || columns; END LOOP;
			ALTER TABLE sessauth.event ATTACH PARTITION odd DEFAULT; END $$} ])
{
	my ($template, $sqlstate, $message, $who, $statement, @before) = @$case;
	provoke($template, $sqlstate, $message, $who, $statement, @before);
}

# A key that is sealed under another master key, in a connection that has not opened it yet.
$dba->do(q{UPDATE sessauth.signing_key SET sealed = set_byte(sealed, length(sealed) - 1, 255 - get_byte(sealed, length(sealed) - 1))});
$as{app} = $ledger->dbh('app');
provoke('the master key does not open signing key \"%s\"', 'F0000', qr/the master key does not open signing key/, 'app', q{SELECT sessauth.issue_session('acme', 'alice')});

# ---- the sources ----

my %written = templates();
for my $template (sort keys %written)
{
	if (my $file = $elsewhere{$template})
	{
		ok(-e $file, "\"$template\" is provoked by $file");
	}
	else
	{
		ok($provoked{$template} || $reason{$template}, "\"$template\" is provoked, or cannot be ($written{$template}[0])");
	}
	like($template, qr/^(?:[a-z%]|sessauth)/, 'it begins in lower case');
	unlike($template, qr/\\n|[.]$/, 'and is one line without a full stop');
}
for my $template (sort(keys %elsewhere, keys %reason, keys %provoked))
{
	ok($written{$template}, "\"$template\" is in the sources");
}

# The one error of the installation script.
{
	$dba->do('CREATE DATABASE trap');
	my $trap = $ledger->dbh(undef, 'trap');
	$trap->do('CREATE SCHEMA sessauth');
	$trap->do('CREATE TABLE sessauth.trap ()');
	my $error = error_of($trap, 'CREATE EXTENSION sessauth');
	is($error->{sqlstate}, '42P06', 'a schema with traps in it: refused');
	like($error->{message}, qr/^ERROR:  schema "sessauth" exists already.*\nHINT:  Look/, 'with a hint');
}
my $raised = join '', map { slurp_file($_) } glob('sql/*.sql');
is(scalar(() = $raised =~ /\bRAISE\s+EXCEPTION\b/g), 1, 'the SQL raises no other');

done_testing;

# ---- helpers ----

# In a transaction of its own, which is rolled back, with statements before that must succeed.
sub provoke
{
	my ($template, $sqlstate, $message, $who, $statement, @before) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $dbh = $as{$who};
	$dbh->begin_work;
	$dbh->do($_) for @before;
	my $error = error_of($dbh, $statement) // { sqlstate => 'none', message => 'no error' };
	$dbh->rollback;
	my ($first) = $error->{message} =~ /^ERROR:  (.*)/;
	is($error->{sqlstate}, $sqlstate, "$template: SQLSTATE");
	like($first // $error->{message}, $message, "$template: message");
	like($error->{message}, qr/^(?:DETAIL|HINT):  [A-Z<].*[.]$/m, "$template: detail or hint, in sentences");
	$error->{message} =~ s/^LINE \d+:.*//ms;
	unlike($error->{message}, qr/\Q$marker\E/, "$template: nothing of what may be secret");
	$provoked{$template} = 1;
	return;
}

# The message templates of ereport(ERROR, ...) and where they are; each call must have its SQLSTATE and a detail or a hint.
sub templates
{
	my %templates;
	for my $file (glob('src/ledger/*.[ch] src/server/*.[ch] src/worker/*.[ch] src/*.c'))
	{
		my $text = slurp_file($file);
		my $string = qr/"(?:[^"\\]|\\.)*"/;
		my $parens;
		$parens = qr/\((?:[^()"]++|$string|(??{ $parens }))*\)/;
		while ($text =~ /\bereport(?=\()($parens)/g)
		{
			my $call = $1;
			my $line = 1 + (substr($text, 0, $-[0]) =~ tr/\n//);
			next unless $call =~ /^\(\s*(?:ERROR|FATAL|PANIC)\b/;
			like($call, qr/errcode\(ERRCODE_/, "$file:$line: has a SQLSTATE");
			like($call, qr/errdetail\(|errhint\(/, "$file:$line: has a detail or a hint");
			$call =~ s/" INT64_FORMAT "/%lld/g;
			my @messages = $call =~ /errmsg\("((?:[^"\\]|\\.)*)"/g;
			ok(@messages > 0, "$file:$line: has a message");
			push @{ $templates{$_} }, "$file:$line" for @messages;
		}
	}
	return %templates;
}
