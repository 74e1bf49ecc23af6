# upgrade.t
#		A ledger of 0.1 with data in it is updated: afterwards its catalog is the
#		same as a fresh one's, nothing is lost, and a dump of it carries the grants.
#
# test/upgrade holds what 0.1 installed. Its rows come from a ledger of today, cut down to the columns of 0.1.

use strict;
use warnings;

use File::Copy qw(copy);
use IPC::Run ();
use PostgreSQL::Test::Utils ();
use Sessauth;
use Sessauth::Catalog qw(catalog_of);
use Test::More;

chomp(my $sharedir = qx("$ENV{PG_CONFIG}" --sharedir));
copy('test/upgrade/sessauth--0.1.sql', "$sharedir/extension/") or die "sessauth--0.1.sql: $!";

my $ledger = new_ledger('upgrade', extension => 0);
my $root   = $ledger->dbh;
$root->do("CREATE DATABASE $_") for qw(fresh old restored);
$ledger->create_extension('fresh');

my $fresh = $ledger->dbh(undef, 'fresh');
my $app   = $ledger->dbh('app', 'fresh');
value($fresh, 'SELECT sessauth.create_signing_key()');
value($fresh, 'SELECT sessauth.create_tenant(?)', 'acme');
$fresh->do("CREATE ROLE $_ LOGIN") for qw(watcher chief);
value($fresh, 'SELECT sessauth.grant_access(?, ?)', 'watcher', 'auditor');
value($fresh, 'SELECT sessauth.grant_access(?, ?, ?)', 'chief', 'tenant_admin', 'acme');
my $alice = row($app, 'SELECT * FROM sessauth.issue_session(?, ?, ?)', 'acme', 'alice', 'phone');
my $bob   = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'bob');
value($app, 'SELECT sessauth.revoke_user(?, ?, ?, ?)', 'acme', 'bob', 'laptop lost', 'admin');
$app->disconnect;

my $old = $ledger->dbh(undef, 'old');
my ($past, $current, $next) = map {
	value($old, q{SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + ? * interval '1 month', 'YYYY_MM')}, $_)
} -6, 0, 1;
make_old();
isnt(join("\n", catalog_of($old)), join("\n", catalog_of($fresh)), 'the comparison sees a difference');
my $events = value($old, 'SELECT count(*) FROM sessauth.event');
cmp_ok($events, '>', 5, 'the old ledger has a history');

# The library of today refuses the SQL of 0.1: calls, what only reads, and a DBA's own statements.
$app = $ledger->dbh('app', 'old');
refused($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'alice');
refused($app, 'SELECT * FROM sessauth.verify(?)', $alice->{access_token});
refused($old, $_)
  for 'INSERT INTO sessauth.tenant (tenant_id) VALUES (1)', 'UPDATE sessauth.tenant_user SET blocked_at = now()',
  'DELETE FROM sessauth.session', q{UPDATE sessauth.session SET device = 'x'};
poll_until('the worker to say that it waits', sub { () = slurp_file($ledger->logfile) =~ /sessauth's worker waits/g });

dump_of_old_is_refused();

$old->do('ALTER EXTENSION sessauth UPDATE');
is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $alice->{access_token}), 'active', 'a session that was refused goes on after the update');
is(value($old, 'SELECT count(*) FROM sessauth.list_sessions(?, ?)', 'acme', 'alice'), 1, 'the one that made the update, too');
$app->disconnect;
poll_until('the worker to go on', sub { slurp_file($ledger->logfile) =~ /sessauth's worker goes on/ });
is(scalar(() = slurp_file($ledger->logfile) =~ /sessauth's worker waits/g), 1, 'the worker said so once');
is(value($old, q{SELECT extversion FROM pg_extension WHERE extname = 'sessauth'}),
	value($old, 'SELECT sessauth.library_version()'), 'ALTER EXTENSION sessauth UPDATE leads to the version of the library');
same_catalog('an updated ledger has the same catalog as a fresh one');
same_months();

is(value($old, 'SELECT count(*) FROM sessauth.event'), $events, 'the history is complete');
is(value($old, q{SELECT string_agg(name || sealed_by, ' ' ORDER BY name) FROM sessauth.secret}),
	value($fresh, q{SELECT string_agg(name || sealed_by, ' ' ORDER BY name) FROM sessauth.secret}), 'secrets of before name the master key that opens them');
$app = $ledger->dbh('app', 'old');
is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $alice->{access_token}), 'active', 'a token of before is good');
is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $bob->{access_token}), 'revoked', 'a revoked one stays revoked');
my $tokens = row($app, 'SELECT * FROM sessauth.refresh_session(?)', $alice->{refresh_token});
is($tokens->{outcome}, 'ok', 'a refresh token of before works');
cmp_ok(row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'bob')->{epoch}, '>', $bob->{epoch}, 'epochs go on');
cmp_ok(value($old, 'SELECT count(*) FROM sessauth.event'), '>', $events, 'and so does the history');
$app->disconnect;
poll_until('the worker to number what the updated ledger has', sub { value($old, 'SELECT n FROM sessauth.ledger_state') >= 1 });
same_catalog('what the updated ledger does changes nothing of that');

# PostgreSQL takes what a script grants for a part of the extension, and such grants are in no dump.
my $dir  = private_dir();
my $dump = "$dir/old.sql";
PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-f', $dump, '-d', $ledger->connstr('old'));
PostgreSQL::Test::Utils::system_or_bail('psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $ledger->connstr('restored'), '-f', $dump);
$app = $ledger->dbh('app', 'restored');
is(value($app, 'SELECT outcome FROM sessauth.refresh_session(?)', $tokens->{refresh_token}), 'ok', 'a dump of it carries sessions and grants');
$app->disconnect;
my $restored = $ledger->dbh(undef, 'restored');
is_deeply([ privileges_in($restored) ], [ privileges_in($fresh) ], 'and every privilege');

newer_sql();
under_load();

done_testing;

# Tables of today cannot take rows of 0.1. That must be told, and must leave no ledger without its keys.
sub dump_of_old_is_refused
{
	my $temporary = private_dir();
	my $dump      = "$temporary/0.1.sql";
	my $err;

	$root->do('CREATE DATABASE refused');
	PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-f', $dump, '-d', $ledger->connstr('old'));
	ok(!IPC::Run::run([ 'psql', '-qX', '--single-transaction', '-v', 'ON_ERROR_STOP=1', '-d', $ledger->connstr('refused'), '-f', $dump ],
		'>', \my $out, '2>', \$err), 'a dump of 0.1 is not restored into the version of today');
	like($err, qr/ERROR:.*client_addr/, 'and psql says what is missing');
	my $refused = $ledger->dbh(undef, 'refused');
	is(value($refused, q{SELECT to_regclass('sessauth.session')}), undef, 'nothing is left of the attempt');
	$refused->disconnect;
	return;
}

# The other way round: the package is new, its SQL too, and the server was not restarted.
sub newer_sql
{
	my $version = value($fresh, 'SELECT sessauth.library_version()');
	my $app     = $ledger->dbh('app', 'fresh');

	write_file("$sharedir/extension/sessauth--$_.sql", 'SELECT 1;') for "$version--99.0", "99.0--$version";
	is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $alice->{access_token}), 'active', 'a session that has found the versions equal');
	$fresh->do(q{ALTER EXTENSION sessauth UPDATE TO '99.0'});
	refused($app, 'SELECT * FROM sessauth.verify(?)', $alice->{access_token}, qr/is version \Q$version\E, .* is version 99\.0\..*Restart the server/s);
	refused($fresh, 'SELECT sessauth.create_tenant(?)', 'late', qr/Restart the server/);
	$fresh->begin_work;
	$fresh->do(qq{ALTER EXTENSION sessauth UPDATE TO '$version'});
	ok(value($fresh, 'SELECT sessauth.create_tenant(?)', 'inside'), 'within the transaction of the update its own session may go on');
	$fresh->rollback;
	refused($fresh, 'SELECT sessauth.create_tenant(?)', 'late', qr/Restart the server/);
	$fresh->do(qq{ALTER EXTENSION sessauth UPDATE TO '$version'});
	ok(value($fresh, 'SELECT sessauth.create_tenant(?)', 'late'), 'and everybody after it');
	is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $alice->{access_token}), 'active', 'the other one, too');
	$app->disconnect;
	return;
}

# Logins, refreshes and revocations go on while updates take the tables away: all of them succeed, and no call fails by a deadlock.
sub under_load
{
	my $version = value($fresh, 'SELECT sessauth.library_version()');
	my @tables  = reverse qw(session tenant_user tenant event mirror_state revocation_log);
	my ($out, $updates) = ('', 0);

	# As every update script does.
	write_file("$sharedir/extension/sessauth--$version--99.0.sql", 'LOCK TABLE sessauth.ledger_state IN ACCESS EXCLUSIVE MODE;',
		map { "ALTER TABLE sessauth.$_ ADD COLUMN later integer;" } @tables);
	write_file("$sharedir/extension/sessauth--99.0--$version.sql", map { "ALTER TABLE sessauth.$_ DROP COLUMN later;" } @tables);
	write_file("$dir/load.sql", '\set user random(1, 20)', 'BEGIN;', q{SELECT refresh_token FROM sessauth.issue_session('acme', 'u' || :user::text) \gset},
		'SELECT outcome FROM sessauth.refresh_session(:refresh_token);', q{SELECT sessauth.revoke_user('acme', 'u' || :user::text);}, 'COMMIT;');

	my $load = IPC::Run::start([ 'pgbench', '-n', '-M', 'prepared', '-c', 4, '-t', 200, '-f', "$dir/load.sql", $ledger->connstr('fresh') ], '>&', \$out);
	while ($load->pumpable)
	{
		$fresh->begin_work;
		$fresh->do("ALTER EXTENSION sessauth UPDATE TO '$_'") for '99.0', $version;
		$fresh->commit;
		$updates++;
		$load->pump_nb;
	}
	ok($load->finish, 'no client failed') or diag $out;
	like($out, qr{processed: 800/800\nnumber of failed transactions: 0 }, "nor any of its transactions, under $updates updates");
	my $n = value($fresh, q{SELECT count(*) FROM sessauth.event WHERE revokes IS NOT NULL});
	poll_until('the worker to have numbered all of it', sub { value($fresh, 'SELECT n FROM sessauth.ledger_state') == $n });
	return;
}

sub write_file
{
	my ($path, @lines) = @_;
	open(my $file, '>', $path) or die "$path: $!";
	print $file "$_\n" for @lines;
	close $file or die "$path: $!";
	return;
}

# The statement is refused because of the versions; the last argument may be what the error must match.
sub refused
{
	my ($dbh, $sql, @parameters) = @_;
	my $expected = ref $parameters[-1] ? pop @parameters : qr/is version 0\.1\..*ALTER EXTENSION sessauth UPDATE/s;
	my $error = error_of($dbh, $sql, @parameters);
	is($error->{sqlstate}, '55000', "refused: $sql");
	like($error->{message}, $expected, 'detail and hint say what to do');
	return;
}

# Database "old": the extension as 0.1 made it, with the rows and the grants of "fresh".
sub make_old
{
	$old->do(q{CREATE EXTENSION sessauth VERSION '0.1'});
	old_month($_) for $past, $current, $next;

	my @tables = qw(tenant tenant_user session event signing_key secret access mirror ledger_state revocation_log);
	for my $table (@tables)
	{
		my $columns = value($old, q{SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
			WHERE attrelid = ?::regclass AND attnum > 0 AND NOT attisdropped}, "sessauth.$table");
		$old->do("ALTER TABLE sessauth.$table DISABLE TRIGGER USER");
		my ($line, @lines);
		$fresh->do("COPY (SELECT $columns FROM sessauth.$table) TO STDOUT");
		push @lines, $line while $fresh->pg_getcopydata($line) >= 0;
		$old->do("COPY sessauth.$table ($columns) FROM STDIN");
		$old->pg_putcopydata($_) for @lines;
		$old->pg_putcopyend;
		$old->do(qq{ALTER TABLE sessauth.$table ENABLE ALWAYS TRIGGER "$_"})
		  for @{ $old->selectcol_arrayref(q{SELECT tgname FROM pg_trigger WHERE tgrelid = ?::regclass AND NOT tgisinternal}, undef, "sessauth.$table") };
	}
	$old->do(q{UPDATE sessauth.ledger_state SET database_oid = d.oid FROM pg_database d WHERE datname = 'old'});
	$old->do("SELECT setval('sessauth.$_', ?)", undef, value($fresh, "SELECT last_value FROM sessauth.$_")) for qw(epoch_seq event_seq);

	# In a dump's words; what 0.1 does not have, it cannot have granted.
	my ($dump) = PostgreSQL::Test::Utils::run_command([ 'pg_dump', '--schema-only', '-d', $ledger->connstr('fresh') ]);
	for my $grant ($dump =~ /^GRANT .*;$/mg)
	{
		next if eval { $old->do($grant) };
		die $@ unless $old->state =~ /^(42883|42P01|42703)$/;
	}
	return;
}

# A month of the history as 0.1 made it.
sub old_month
{
	my ($name) = @_;
	my ($from, $to) = $old->selectrow_array(q{SELECT to_char(m, 'YYYY-MM-DD'), to_char(m + interval '1 month', 'YYYY-MM-DD')
		FROM to_date(?, 'YYYY_MM') m}, undef, $name);

	$old->do($_) for "CREATE TABLE sessauth.event_$name PARTITION OF sessauth.event FOR VALUES FROM ('$from 00:00:00Z') TO ('$to 00:00:00Z')",
	  "ALTER TABLE sessauth.event_$name ADD PRIMARY KEY (event_id)",
	  "CREATE INDEX ON sessauth.event_$name (xid, event_id)",
	  "CREATE INDEX ON sessauth.event_$name (tenant_id, user_id, at)",
	  "CREATE TRIGGER no_truncate BEFORE TRUNCATE ON sessauth.event_$name FOR EACH STATEMENT EXECUTE FUNCTION sessauth.refuse_truncate()",
	  "ALTER TABLE sessauth.event_$name ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, ENABLE ALWAYS TRIGGER no_truncate";
	return;
}

# Line by line, so that a failure names what is missing and what is too much.
sub same_catalog
{
	my ($name) = @_;
	my $later = value($old, q{SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months', '"sessauth.event_"YYYY_MM')});
	for my $dbh ($old, $fresh)
	{
		poll_until('the worker to have made the months to come', sub { value($dbh, 'SELECT to_regclass(?)', $later) });
	}
	my %old   = map { $_ => 1 } grep { !/event_$past/ } catalog_of($old);
	my %fresh = map { $_ => 1 } catalog_of($fresh);

	ok(keys %old == grep({ $fresh{$_} } keys %old) && keys %old == keys %fresh, $name)
	  or diag join "\n", (map { "only fresh: $_" } grep { !$old{$_} } sort keys %fresh), (map { "only updated: $_" } grep { !$fresh{$_} } sort keys %old);
	return;
}

# Not those on the months: a dump has them all, the fresh ledger only its own.
sub privileges_in
{
	my ($dbh) = @_;
	return grep { /^(?:function|relation|column) / && !/event_\d/ } catalog_of($dbh);
}

# A month that only the updated ledger has looks like the current one, but for its bounds.
sub same_months
{
	my %lines;
	for my $line (catalog_of($old))
	{
		next unless $line =~ /event_($past|$current)/;
		my $month = $1;
		$line =~ s/event_$month/event_MONTH/g;
		$line =~ s/'\d{4}-\d\d-\d\d [^']*'/'...'/g;
		push @{ $lines{$month} }, $line;
	}
	is_deeply($lines{$past}, $lines{$current}, 'a month of 0.1 is brought to the shape of a new one');
	return;
}
