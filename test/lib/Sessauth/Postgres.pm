# Postgres.pm
#		A private PostgreSQL server for the demo and for pg_regress, and connections to
#		it with real bind parameters. Tests that want more of a server use Sessauth.pm.

package Sessauth::Postgres;

use strict;
use warnings;
use parent -norequire, 'Sessauth::Process';

use Carp;
use DBI;
use Exporter ();
use Fcntl ();
use Sessauth::Process qw(log_dir poll_until private_dir random_hex slurp_file);

our @EXPORT_OK = qw(connect_to make_master_key);
sub import { goto &Exporter::import; }

# Sessauth::Postgres->start_server(%options): config is text for
# postgresql.conf. Local connections are trusted; there is no TCP.
sub start_server
{
	my ($class, %options) = @_;
	my $dir = private_dir();

	my $log = log_dir() . '/initdb.log';
	system("initdb -D '$dir/d' -A trust -N -U postgres --no-locale -E UTF8 >'$log' 2>&1") == 0
	  or croak 'initdb failed: ' . slurp_file($log);
	open(my $conf, '>>', "$dir/d/postgresql.conf") or croak $!;
	print $conf "listen_addresses = ''\n", "unix_socket_directories = '$dir'\n",
	  "shared_preload_libraries = 'sessauth'\n",
	  "sessauth.master_key_file = '", make_master_key("$dir/master.key"), "'\n",
	  $options{config} // '';
	close $conf or croak $!;

	my $self = $class->SUPER::start('postgres', [ 'postgres', '-D', "$dir/d" ]);
	$self->{dir} = $dir;
	poll_until(
		'PostgreSQL to start',
		sub {
			croak 'postgres does not start: ' . $self->log_contents if defined $self->ended;
			return eval { connect_to($self->conninfo)->disconnect };
		});
	return $self;
}

sub stop { my ($self, $signal) = @_; return $self->SUPER::stop($signal // 'INT'); }

sub dir { return "$_[0]->{dir}"; }

sub conninfo
{
	my ($self, $user, $database) = @_;
	return "host=$self->{dir} port=5432 user=" . ($user // 'postgres') . ' dbname=' . ($database // 'postgres');
}

# A DBI connection: errors are exceptions, every statement commits by itself
# unless begin_work was called, and parameters travel apart from the statement.
sub connect_to
{
	my ($conninfo) = @_;
	(my $dsn = $conninfo) =~ s/ /;/g;
	return DBI->connect("dbi:Pg:$dsn", undef, undef,
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_enable_utf8 => 1,
		  AutoInactiveDestroy => 1 });
}

# A master key file as the manual says: 32 random bytes in hex, for nobody else to read.
sub make_master_key
{
	my ($path) = @_;
	sysopen(my $file, $path, Fcntl::O_WRONLY() | Fcntl::O_CREAT() | Fcntl::O_TRUNC(), 0600) or croak "$path: $!";
	print $file random_hex(32), "\n";
	close $file or croak "$path: $!";
	return $path;
}

1;
