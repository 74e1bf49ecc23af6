# access_matrix.t
#		The call by access matrix of doc/reference.md, held against the catalog
#		and against the server: every cell is called, for the own tenant and for
#		another one. What is in the schema and not in the document fails.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $document = slurp_file('doc/reference.md');
my %matrix   = read_table('matrix');
my %helpers  = read_table('helpers');
my ($internal) = $document =~ /^Internal, (.*?)\n\n/ms;
my %internal = map { $_ => 1 } (($internal // '') . ' ') =~ /`(\w+)`/g;

my $ledger = new_ledger('matrix', config => "max_connections = 40\nsessauth.max_lease = 100ms\n");
my $dba = $ledger->dbh;
for my $tenant ('acme', 'other')
{
	value($dba, 'SELECT sessauth.create_tenant(?)', $tenant);
}
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'nowhere', 'unix:///nowhere');
poll_until('the worker to know the mirror', sub { value($dba, 'SELECT count(*) FROM sessauth.mirror_status()') });

# One role for each column of the table.
my %role = (
	'owner'               => undef,
	'service'             => [ 'm_service', 'service' ],
	'service of a tenant' => [ 'm_service_acme', 'service', 'acme' ],
	'node'                => [ 'm_node', 'node' ],
	'tenant_admin'        => [ 'm_admin', 'tenant_admin', 'acme' ],
	'auditor'             => [ 'm_auditor', 'auditor' ],
	'auditor of a tenant' => [ 'm_auditor_acme', 'auditor', 'acme' ],
	'no access'           => ['m_nobody']);
my %as = (owner => $dba);
for my $column (sort grep { $role{$_} } keys %role)
{
	my ($name, @grant) = @{ $role{$column} };
	$dba->do("CREATE ROLE $name LOGIN");
	value($dba, 'SELECT sessauth.grant_access(?, ?, ?)', $name, @grant[ 0, 1 ]) if @grant;
	$as{$column} = $ledger->dbh($name);
}

# What to pass, by the name of the argument; a call of another tenant gets that one's.
my %pass;
for my $tenant ('acme', 'other')
{
	my $session = row($dba, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, "user of $tenant");
	my $event = value($dba, 'SELECT sessauth.revoke_user(?, ?)', $tenant, 'leaver');
	$pass{$tenant} = {
		tenant_id => $tenant, user_id => "user of $tenant", session_id => $session->{session_id}, keep => $session->{session_id},
		access_token => $session->{access_token}, token => $session->{access_token}, refresh_token => $session->{refresh_token},
		event_id => $event, role => 'm_nobody', access => 'service', policy => '{}', kid => 'no such key', name => 'none', kind => 'user', epoch => 1, until => undef,
		url => 'unix:///nowhere', n => 0, node => 'matrix/' . '0' x 32, max_staleness => '100ms', generation => '00000000-0000-4000-8000-000000000000' };
}

# What a call with the token of another tenant's session answers to somebody of one tenant.
my %foreign = (
	verify          => 'wrong_issuer',
	introspect      => '{"active": false}',
	logout          => '0',
	refresh_session => 'unknown',
	authenticate    => '28000',
	status          => '');

# ---- the document and the schema name the same things ----

my %functions = map { $_->{proname} => $_ } rows($dba, <<'END');
	SELECT p.oid, proname, prorettype = 'trigger'::regtype AS is_trigger,
		(proargnames)[1 : pronargs - pronargdefaults] AS required, pronargs - pronargdefaults AS required_count
	FROM pg_proc p WHERE pronamespace = 'sessauth'::regnamespace AND prokind = 'f'
END
is(value($dba, q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'sessauth'::regnamespace}), scalar keys %functions, 'no function is overloaded');
my %relations = map { ($_->{kind} eq 'v' ? 'view ' : 'table ') . $_->{relname} => $_ } rows($dba, <<'END');
	SELECT c.oid, relname, relkind AS kind FROM pg_class c
	WHERE relnamespace = 'sessauth'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition
END
is_deeply([ sort keys %matrix, keys %helpers, keys %internal ], [ sort keys %functions, keys %relations ],
	'doc/reference.md lists every function, view and table of the schema, each once')
  or diag("add a row to a table of doc/reference.md, or name it among the internal functions");
for my $name (sort grep { $functions{$_} } keys %matrix)
{
	like($document, qr/`\Q$name\E\([^`]*\)`/, "the document says what $name takes and gives");
}

# ---- the catalog ----

for my $column (sort grep { $role{$_} } keys %role)
{
	my $name = $role{$column}[0];
	for my $object (sort keys %matrix, keys %helpers, keys %internal)
	{
		my $cell = $internal{$object} ? '-' : cell($object, $column);
		my $may = $functions{$object}
		  ? value($dba, q{SELECT has_function_privilege(?, ?::oid, 'EXECUTE') AND has_schema_privilege(?, 'sessauth', 'USAGE')}, $name, $functions{$object}{oid}, $name)
		  : value($dba, q{SELECT has_any_column_privilege(?, ?::oid, 'SELECT')}, $name, $relations{$object}{oid});
		is($may ? 'granted' : 'not granted', $cell eq '-' ? 'not granted' : 'granted', "catalog: $object, $column");
	}
}

# ---- every cell, for real ----

for my $column (sort keys %role)
{
	call_everything($column);
}

# Privileges given by hand do not open a door: the functions look for themselves.
$dba->do('GRANT USAGE ON SCHEMA sessauth TO PUBLIC');
$dba->do('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sessauth TO PUBLIC');
$dba->do('GRANT SELECT ON ALL TABLES IN SCHEMA sessauth TO PUBLIC');
for my $column (sort grep { $role{$_} } keys %role)
{
	call_everything($column, 'granted by hand');
}

done_testing;

# ---- helpers ----

sub call_everything
{
	my ($column, $by_hand) = @_;
	for my $object (sort keys %matrix)
	{
		for my $tenant ('acme', 'other')
		{
			my $what = "$object of $tenant as $column" . ($by_hand ? ', everything granted by hand' : '');
			my $cell = cell($object, $column);
			my $answer = $functions{$object} ? call($object, $as{$column}, $pass{$tenant}) : look($object, $as{$column}, $tenant);
			check($what, $object, $cell, $tenant, $answer, $by_hand);
		}
	}
	for my $object (sort keys %helpers)
	{
		my $cell = cell($object, $column);
		my $answer = call($object, $as{$column}, {});
		if ($cell eq '-' && !$by_hand)
		{
			is($answer, '42501', "$object as $column is refused");
		}
		elsif ($cell ne 'yes' && $object ne 'session_state')
		{
			like($answer, qr/^(0|\{\}|)$/, "$object as $column says nothing");
		}
		else
		{
			unlike($answer, qr/^\w{5}$/, "$object as $column is allowed");
		}
	}
	return if $column eq 'owner' || $by_hand;
	for my $name (sort keys %internal)
	{
		my $answer = call($name, $as{$column}, { %{ $pass{acme} }, id => 'x', max => 1, partition => 'sessauth.event_default',
			after => '00000000-0000-0000-0000-000000000000', visit => 1 });
		$functions{$name}{is_trigger} || $name =~ /_support$/
		  ? like($answer, qr/^42/, "$name as $column cannot be called")
		  : is($answer, '42501', "$name as $column is refused");
	}
	return;
}

sub check
{
	my ($what, $object, $cell, $tenant, $answer, $by_hand) = @_;
	if ($cell eq '-')
	{
		return is($answer, '', "$what shows nothing") if !$functions{$object} && $by_hand;
		return is($answer, '42501', "$what is refused");
	}
	if (!$functions{$object})
	{
		return unlike($answer, qr/\bother\b/, "$what shows nothing") if $cell eq 'own' && $tenant eq 'other';
		return isnt($answer, '42501', "$what is allowed") if $cell eq 'yes';
		return is($answer, '', "$what shows nothing that belongs to no tenant") if !tenant_column($object);
		return like($answer, qr/^acme$/, "$what shows the own tenant alone");
	}
	return isnt($answer, '42501', "$what is allowed") if $cell eq 'yes' || $tenant eq 'acme';
	return is($answer, '42501', "$what is refused") if takes($object, 'tenant_id');
	return is($answer, $foreign{$object}, "$what answers as to a stranger's token") if exists $foreign{$object};
	my $absent = call($object, $as{owner}, { %{ $pass{acme} }, event_id => 0, session_id => '00000000-0000-4000-8000-000000000000' });
	return is($answer, $absent, "$what answers as if there were no such thing");
}

# The first column of the first row, or the SQLSTATE. Leaves nothing behind.
sub call
{
	my ($function, $dbh, $pass) = @_;
	my @values = map { exists $pass->{$_} ? $pass->{$_} : %$pass ? die "teach this test what to pass as $_ of $function\n" : undef }
	  @{ $functions{$function}{required} // [] };
	@values = (undef) x $functions{$function}{required_count} if !@values;
	my $answer;
	$dbh->begin_work;
	my $done = eval {
		$answer = value($dbh, "SELECT * FROM sessauth.$function(" . join(', ', ('?') x @values) . ') LIMIT 1', @values);
		1;
	};
	$answer = $dbh->state unless $done;
	$dbh->rollback;
	return ref $answer eq 'ARRAY' ? '{' . join(',', @$answer) . '}' : $answer // '';
}

# The tenants whose rows a view or table shows (or "rows" when they belong to none), or the SQLSTATE.
sub look
{
	my ($object, $dbh, $tenant) = @_;
	my ($name) = $object =~ /(\w+)$/;
	my $what = tenant_column($object) ? q{string_agg(DISTINCT tenant_id, ' ')} : q{CASE WHEN count(*) > 0 THEN 'rows' END};
	my $answer = eval { value($dbh, "SELECT $what FROM sessauth.$name") // '' };
	return $answer // $dbh->state;
}

sub tenant_column
{
	my ($object) = @_;
	return value($dba, q{SELECT count(*) FROM pg_attribute WHERE attrelid = ?::oid AND attname = 'tenant_id'}, $relations{$object}{oid});
}

sub takes
{
	my ($function, $argument) = @_;
	return scalar grep { $_ eq $argument } @{ $functions{$function}{required} };
}

sub cell
{
	my ($object, $column) = @_;
	return ($matrix{$object} // $helpers{$object})->{$column} // die "no cell for $object, $column\n";
}

# "| `call` | yes | ..." between two marks of the document: name => { column => cell }.
sub read_table
{
	my ($mark) = @_;
	my ($text) = $document =~ /<!-- \Q$mark\E\b.*?-->(.*?)<!-- end of \Q$mark\E -->/s or die "no table $mark in doc/reference.md\n";
	my ($head, $rule, @lines) = grep { /^\|/ } split /\n/, $text;
	my (undef, @columns) = cells($head);
	my %table;
	for my $line (@lines)
	{
		my ($object, @cells) = cells($line);
		$object =~ s/`//g;
		die "two rows for $object\n" if $table{$object};
		die "row $object has " . @cells . " cells\n" if @cells != @columns;
		/^(yes|own|-)$/ or die "row $object: a cell says \"$_\"\n" for @cells;
		@{ $table{$object} }{@columns} = @cells;
	}
	return %table;
}

sub cells
{
	my ($line) = @_;
	$line =~ s/^\|\s*|\s*\|\s*$//g;
	return split /\s*\|\s*/, $line;
}
