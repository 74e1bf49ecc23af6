# restore_months.t
#		Dumps of a ledger that has been in use for months: into another cluster, over a ledger that is
#		there, twice, and in parts. What cannot work is refused before it has changed anything.

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;

my $ledger = new_ledger('months');
my $dba    = $ledger->dbh;
my $app    = $ledger->dbh('app');
my $dir    = private_dir();

value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
my ($this, $after, $later) = map { month($_) } 0 .. 2;
poll_until('the months to come', sub { value($dba, 'SELECT to_regclass(?)', "sessauth.$later") });

# A mirror that waits for activate(): from here on the worker leaves the months alone.
$dba->do(q{INSERT INTO sessauth.mirror (name, url) VALUES ('parked', 'unix:///nowhere')});
poll_until('the last step of the worker to end', sub {
	value($dba, q{SELECT state FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = 'postgres'}) eq 'idle' });

my $live    = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'alice');
my $revoked = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'bob');
value($app, 'SELECT sessauth.revoke_user(?, ?, ?)', 'acme', 'bob', 'before the dump');
past_month($_) for 1 .. 5;
dump_to('today');

# As if the worker had been away since the month before: its partitions are missing, and the default one has this month's events.
$dba->begin_work;
$dba->do('LOCK TABLE sessauth.event');
$dba->do("ALTER TABLE sessauth.event DETACH PARTITION sessauth.$this");
$dba->do("INSERT INTO sessauth.event SELECT * FROM sessauth.$this");
$dba->do("DROP TABLE sessauth.$_") for $this, $after, $later;
$dba->commit;
cmp_ok(value($dba, 'SELECT count(*) FROM sessauth.event_default'), '>', 3, 'events of this month are in the default partition');
dump_to('late');
my $history = history($dba);
my $last    = value($dba, 'SELECT max(event_id) FROM sessauth.event');

# ---- another cluster, which has another ledger and other things ----

my $other = new_ledger('other', start => 0);
PostgreSQL::Test::Utils::system_or_bail('cp', $ledger->{master_key_file}, $other->{master_key_file});
$other->start;
$other->create_extension;
my $root = $other->dbh;
value($root, 'SELECT sessauth.create_tenant(?)', 'neighbour');
my $neighbour = history($root);
$root->do("CREATE DATABASE $_") for qw(plain custom today twice part data);

for my $database (qw(plain custom))
{
	my $copy = $other->dbh(undef, $database);
	$copy->do($_) for 'CREATE EXTENSION pg_stat_statements', 'CREATE SCHEMA shop', 'CREATE TABLE shop.event AS SELECT 1 AS event_id';
	is(restore($other, $database, 'late', $database eq 'plain' ? () : '-j4'), 0, "$database: a dump goes beside what a database has");
	is(history($copy), $history, "$database: the history of all months is the same, to the letter");

	my $service = $other->dbh('app', $database);
	my $new = eval { row($service, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'bob') };
	is($@, '', "$database: the first login succeeds, with this month's events in the default partition");
	$new //= {};
	is($new->{outcome}, 'ok', "$database: and is answered");
	cmp_ok($new->{epoch} // 0, '>', $revoked->{epoch}, "$database: epochs go on");
	is(value($copy, 'SELECT floor FROM sessauth.ledger_state'), $last, "$database: what came with the dump is history");
	is(value($copy, 'SELECT min(event_id) > ? FROM sessauth.event WHERE event_id > ?', $last, $last), 1, "$database: event ids go on");
	is(value($service, 'SELECT outcome FROM sessauth.verify(?)', $live->{access_token}), 'active', "$database: a live token is active");
	is(value($service, 'SELECT outcome FROM sessauth.verify(?)', $revoked->{access_token}), 'revoked', "$database: a revoked one is revoked");
	is(value($service, 'SELECT outcome FROM sessauth.refresh_session(?)', $live->{refresh_token}), 'ok', "$database: a refresh token works");
	is(value($copy, 'SELECT count(*) FROM sessauth.event_default WHERE event_id > ?', $last) > 0, 1, "$database: until the month is there, events join the others of it");

	# Mirrors wait for activate(), and so does the worker's upkeep.
	is(value($copy, 'SELECT state FROM sessauth.mirrors'), 'disabled', "$database: the mirror is disabled");
	value($copy, 'SELECT sessauth.activate()');
	poll_until('the worker to make the months', sub { value($copy, 'SELECT to_regclass(?)', "sessauth.$later") });
	is(value($copy, 'SELECT count(*) FROM sessauth.event_default'), 0, "$database: then the worker moves them into it");
	is(history($copy, $last), $history, "$database: and loses none");
	poll_until('what happens here to be numbered', sub { value($service, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'carol') && value($copy, 'SELECT count(*) FROM sessauth.revocation_log WHERE event_id > ?', $last) });
	is(value($copy, q{SELECT string_agg(user_id || ' ' || at, ',') FROM sessauth.revocation_log WHERE event_id <= ?}, $last),
		value($copy, q{SELECT string_agg(user_id || ' ' || at, ',') FROM sessauth.event WHERE revokes = 'user' AND event_id <= ? AND at > now() - interval '1 day'}, $last),
		"$database: nodes hear once of the last day's revocation, which tokens may need, and of none before");
	is(value($copy, 'SELECT count(*) FROM shop.event'), 1, "$database: the neighbours are unhurt");
	$service->disconnect;
	$copy->disconnect;
}
is(history($root), $neighbour, 'so is the other ledger of the cluster');
is(statistics_kept('plain'), 0, 'no month keeps statistics on whom its rows are about');

# ---- over a ledger that is there ----

is(restore($other, 'today', 'today'), 0, 'a dump of a ledger with all its months is restored');
my $today = $other->dbh(undef, 'today');
my $fixed = history($today);
value($today, 'SELECT sessauth.create_tenant(?)', 'afterwards');
my $changed = history($today);
isnt(restore($other, 'today', 'today', '--single-transaction'), 0, 'a second time is refused');
is(history($today), $changed, 'and leaves what is there');

$today->do('CREATE TABLE public.note (tenant text)');
$today->do('CREATE POLICY own ON public.note USING (tenant = sessauth.current_tenant())');
isnt(restore($other, 'today', 'today', '--clean', '--if-exists', '--single-transaction'), 0,
	'--clean does not take the ledger away from an application whose policy calls it');
is(history($today), $changed, 'and leaves what is there, too');
$today->do('DROP POLICY own ON public.note');
is(restore($other, 'today', 'today', '--clean', '--if-exists', '--single-transaction'), 0, '--clean replaces a ledger that nothing depends on');
is(history($today), $fixed, 'by what is in the dump, and by nothing else');
is(value($today, 'SELECT outcome FROM sessauth.verify(?)', $live->{access_token}), 'active', 'which works');

# ---- in parts ----

my $data = $other->dbh(undef, 'data');
$data->do('CREATE EXTENSION sessauth');
isnt(restore($other, 'data', 'today', '--data-only', '--single-transaction'), 0, 'data alone find no months to go to');
is(value($data, 'SELECT (SELECT count(*) FROM sessauth.tenant) + (SELECT count(*) FROM sessauth.event)'), 0, 'and nothing is half restored');
$data->do('DROP EXTENSION sessauth');
# A ledger that has begun has this month, and events whose ids a young dump has as well.
PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-Fc', '-f', "$dir/young.dump", '-d', $other->connstr('postgres'));
$other->create_extension('data');
poll_until('the months of a ledger that has begun', sub { value($data, 'SELECT to_regclass(?)', "sessauth.$later") });
my $begun = history($data);
isnt(restore($other, 'data', 'young', '--data-only', '--single-transaction'), 0, 'nor are they mixed with those of a ledger that has begun');
is(history($data), $begun, 'which stays as it is');
isnt(restore($other, 'part', 'today', '--schema=sessauth', '--single-transaction'), 0, 'the schema without the extension is no ledger');
is(value($other->dbh(undef, 'part'), q{SELECT to_regclass('sessauth.session')}), undef, 'and makes none');

done_testing;

sub month
{
	return value($dba, q{SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + ? * interval '1 month', '"event_"YYYY_MM')}, $_[0]);
}

# A partition of $ago months ago with a copy of every event that has happened, as the worker made it at the time.
sub past_month
{
	my ($ago) = @_;
	my $name = month(-$ago);
	my ($from, $to) = map { s/event_(\d+)_(\d+)/$1-$2-01 00:00:00Z/r } $name, month(1 - $ago);

	$dba->do("CREATE TABLE sessauth.$name (LIKE sessauth.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)");
	$dba->do('SELECT sessauth.prepare_partition(?)', undef, "sessauth.$name");
	$dba->do("ALTER TABLE sessauth.event ATTACH PARTITION sessauth.$name FOR VALUES FROM ('$from') TO ('$to')");
	$dba->do("INSERT INTO sessauth.event (at, xid, kind, revokes, tenant_id, user_id, session_id, epoch, tenant_epoch, version, live, expires_at, until, actor)
		SELECT ?::timestamptz + interval '10 days', xid, kind, revokes, tenant_id, user_id, session_id, epoch, tenant_epoch, version, live, expires_at, until, actor
		FROM sessauth.$this", undef, $from);
	return;
}

sub dump_to
{
	my ($name) = @_;
	PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-Fc', '-f', "$dir/$name.dump", '-d', $ledger->connstr('postgres'));
	return;
}

# Its options are pg_restore's; without any the dump is made plain and psql reads it.
sub restore
{
	my ($cluster, $database, $name, @options) = @_;

	return system('pg_restore', '--exit-on-error', @options, '-d', $cluster->connstr($database), "$dir/$name.dump") if @options;
	PostgreSQL::Test::Utils::system_or_bail('pg_restore', '-f', "$dir/$name.sql", "$dir/$name.dump");
	return system('psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $cluster->connstr($database), '-f', "$dir/$name.sql");
}

# All of it, or up to an event.
sub history
{
	my ($dbh, $up_to) = @_;
	return value($dbh, q{SELECT count(*) || ' ' || md5(string_agg(e::text, chr(10) ORDER BY event_id)) FROM sessauth.event e WHERE event_id <= ?}, $up_to // 9_000_000_000_000_000_000);
}

sub statistics_kept
{
	my ($database) = @_;
	my $copy = $other->dbh(undef, $database);
	my $columns = value($copy, q{SELECT count(*) FROM pg_attribute WHERE attname IN ('tenant_id', 'user_id', 'session_id', 'actor', 'ip', 'client_addr', 'reason')
		AND coalesce(attstattarget, -1) <> 0 AND attrelid IN (SELECT relid FROM pg_partition_tree('sessauth.event') WHERE relid <> 'sessauth.event'::regclass)});
	$copy->disconnect;
	return $columns;
}
