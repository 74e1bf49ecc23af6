# Sessauth.pm
#		What a Perl TAP test of sessauth needs: a private ledger (a PostgreSQL
#		cluster with the extension), Redis servers, gates, and ways to ask and to wait.
#
#	use Sessauth;
#	use Test::More;
#
#	my $ledger = new_ledger('main');					# running, extension created, roles app and gate
#	my $redis  = Sessauth::Redis->start_server;
#	my $dba    = $ledger->dbh;							# DBI, superuser
#	my $app    = $ledger->dbh('app');					# DBI, service access
#	value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
#	my $login  = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', 'alice');
#	my $gate   = start_gate($ledger, $redis, node => 'a')->wait_ready;
#	is($gate->auth($login->{access_token}), 200);
#	poll_until('the mirror to know', sub { $redis->command('EXISTS', '...') });
#
# The ledger is a PostgreSQL::Test::Cluster: safe_psql, background_psql, restart, kill9, init_from_backup
# and the rest are there. No test sleeps: wait with poll_until, or with the wait_ methods.

package Sessauth;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Sessauth::Gate;
use Sessauth::Postgres qw(connect_to make_master_key);
use Sessauth::Process qw(free_port now_ms poll_until private_dir random_hex slurp_file);
use Sessauth::Redis;

our @EXPORT = qw(new_ledger start_gate row rows value error_of connect_to make_master_key
  free_port now_ms poll_until private_dir random_hex slurp_file);

# new_ledger($name, %options): a cluster with the library preloaded and a master
# key, running. Options: config (text for postgresql.conf), start => 0, extension => 0 (leave
# database "postgres" without the extension and its roles), init (a hash for Cluster's init).
sub new_ledger
{
	my ($name, %options) = @_;

	my $ledger = Sessauth::Ledger->new($name);
	$ledger->init(%{ $options{init} // {} });
	$ledger->{master_key_file} = make_master_key($ledger->basedir . '/master.key');
	$ledger->append_conf('postgresql.conf', <<"END");
shared_preload_libraries = 'sessauth'
sessauth.master_key_file = '$ledger->{master_key_file}'
END
	$ledger->append_conf('postgresql.conf', $options{config}) if defined $options{config};
	return $ledger unless $options{start} // 1;
	$ledger->start;
	$ledger->create_extension if $options{extension} // 1;
	return $ledger;
}

# start_gate($ledger, $redis, %options): a gate that gets its keys and revocations from the
# ledger as role "gate", and revocations from the mirror too (undef: from the ledger alone).
# Options as for Sessauth::Gate; max_staleness is 2s unless given. redis_alone => 1: the keys of this moment in files, and no --pg.
sub start_gate
{
	my ($ledger, $redis, %options) = @_;
	my @more = @{ delete $options{arguments} // [] };
	my $redis_alone = delete $options{redis_alone};
	push @more, Sessauth::Gate::pinned_keys($ledger->dbh) if $redis_alone;
	return Sessauth::Gate->start_gate(
		($redis_alone ? () : (pg => $ledger->conninfo('gate'))),
		max_staleness => '2s',
		arguments     => \@more,
		($redis ? (redis => $redis->url) : ()),
		%options);
}

# The first row of a query with ? parameters, as a hash.
sub row
{
	my ($dbh, $sql, @parameters) = @_;
	return $dbh->selectrow_hashref($sql, undef, @parameters);
}

# All rows, as hashes.
sub rows
{
	my ($dbh, $sql, @parameters) = @_;
	return @{ $dbh->selectall_arrayref($sql, { Slice => {} }, @parameters) };
}

# The first column of the first row.
sub value
{
	my ($dbh, $sql, @parameters) = @_;
	return scalar $dbh->selectrow_array($sql, undef, @parameters);
}

# The error that a statement raises: a hash of sqlstate and message (all that the server said, with
# detail and hint), or undef when it raises none.
sub error_of
{
	my ($dbh, $sql, @parameters) = @_;
	return undef if eval { $dbh->selectall_arrayref($sql, undef, @parameters); 1 };
	return { sqlstate => $dbh->state, message => $dbh->errstr };
}

package Sessauth::Ledger;

use parent -norequire, 'PostgreSQL::Test::Cluster';

# The extension, and two roles: "app" with service access, "gate" with node access.
sub create_extension
{
	my ($self, $database) = @_;
	my $dba = $self->dbh(undef, $database);
	$dba->do('CREATE EXTENSION sessauth');
	for my $role ([ app => 'service' ], [ gate => 'node' ])
	{
		my ($name, $access) = @$role;
		$dba->do("CREATE ROLE $name LOGIN")
		  unless $dba->selectrow_array('SELECT 1 FROM pg_roles WHERE rolname = ?', undef, $name);
		$dba->do('SELECT sessauth.grant_access(?, ?)', undef, $name, $access);
	}
	$dba->disconnect;
	return;
}

# A libpq connection string, for a role (the superuser) and a database ("postgres").
sub conninfo
{
	my ($self, $user, $database) = @_;
	return 'host=' . $self->host . ' port=' . $self->port
	  . ' user=' . ($user // $ENV{USER}) . ' dbname=' . ($database // 'postgres');
}

# A DBI connection. Errors are exceptions; each statement commits by itself.
sub dbh
{
	my ($self, $user, $database) = @_;
	return Sessauth::Postgres::connect_to($self->conninfo($user, $database));
}

1;
