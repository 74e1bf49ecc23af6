# Gate.pm
#		One sessauth-gate, and what an HTTP client gets from it.

package Sessauth::Gate;

use strict;
use warnings;
use parent -norequire, 'Sessauth::Process';

use Carp;
use HTTP::Tiny;
use IO::Socket::INET;
use Fcntl ();
use Sessauth::Process qw(poll_until private_dir);

my $count = 0;
my @kept;	# directories that have to outlive their gates

# Sessauth::Gate->start_gate(%options): node, redis, pg and max_staleness are the
# gate's options of these names; arguments lists others, admin => 1 gives it an administrator's listener, and program is another build of it. Returns
# as soon as it listens, which is before it is ready.
sub start_gate
{
	my ($class, %options) = @_;
	my $node = $options{node} // 'node' . ($count + 1);
	my @command = ($options{program} // 'sessauth-gate', '--listen', '127.0.0.1:0', '--node', $node);
	for my $name (qw(redis pg max_staleness))
	{
		(my $option = "--$name") =~ s/_/-/;
		push @command, $option, $options{$name} if defined $options{$name};
	}
	push @command, '--admin-listen', '127.0.0.1:0' if $options{admin};
	push @command, @{ $options{arguments} // [] };

	my $self = $class->SUPER::start("gate-$node-" . ++$count, \@command, %{ $options{environment} // {} });
	$self->{command} = \@command;
	$self->_wait_listening;
	return $self;
}

# The arguments that give a gate the keys that a ledger has now, as files: with them it needs no PostgreSQL, and follows Redis alone.
sub pinned_keys
{
	my ($dba) = @_;
	push @kept, private_dir();
	my %file = ('--jwks' => 'SELECT sessauth.jwks()', '--link-key-file' => q{SELECT encode(sessauth.link_key(), 'hex')});
	for my $flag (keys %file)
	{
		my $path = "$kept[-1]/" . substr($flag, 2);
		sysopen(my $out, $path, Fcntl::O_WRONLY() | Fcntl::O_CREAT(), 0600) or croak "$path: $!";
		print $out $dba->selectrow_array($file{$flag}), "\n";
		close $out or croak "$path: $!";
		$file{$flag} = $path;
	}
	return %file;
}

# Starts a stopped gate again: a new process, on a new port, that knows nothing.
sub restart
{
	my ($self) = @_;
	$self->stop;
	$self->spawn($self->{command});
	$self->_wait_listening;
	return;
}

sub url { return $_[0]->{url}; }

# GET $path with a bearer token (if defined), over one kept-alive connection.
# Returns HTTP::Tiny's response: status, headers, content; status 599 when there was none.
sub get
{
	my ($self, $path, $token, %headers) = @_;
	$headers{Authorization} = "Bearer $token" if defined $token;
	return $self->{http}->get("$self->{url}$path", { headers => \%headers });
}

# The status of /auth for a token.
sub auth
{
	my ($self, $token) = @_;
	return $self->get('/auth', $token)->{status};
}

# Why not, as /auth says it: the error_description of its challenge.
sub reason
{
	my ($self, $token) = @_;
	my $challenge = $self->get('/auth', $token)->{headers}{'www-authenticate'} // '';
	return $challenge =~ /error_description="([^"]*)"/ ? $1 : $challenge;
}

# A connection on which a test says what it likes: to the gate, or to another of its addresses.
sub connect_socket
{
	my ($self, $url) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => ($url // $self->{url}) =~ s{^http://}{}r) or croak "connect: $!";
	$socket->autoflush;
	return $socket;
}

sub is_ready
{
	my ($self) = @_;
	return $self->get('/readyz')->{status} == 200;
}

sub wait_ready
{
	my ($self) = @_;
	poll_until($self->name . ' to be ready', sub { $self->is_ready or $self->_check_alive });
	return $self;
}

# Waits until the gate answers a token with this status.
sub wait_auth
{
	my ($self, $token, $status) = @_;
	poll_until($self->name . " to answer $status", sub { $self->auth($token) == $status or $self->_check_alive });
	return $status;
}

# ---- the administrator's listener ----

# It is opened last.
sub admin_url
{
	my ($self) = @_;
	return poll_until(
		$self->name . ' to listen to its administrator',
		sub { $self->log_contents =~ m{administration listening on (http://127\.0\.0\.1:\d+)} ? $1 : $self->_check_alive });
}

sub admin { my ($self, $path) = @_; return HTTP::Tiny->new->get($self->admin_url . $path); }

# A number of /metrics, 0 when it is not there.
sub metric
{
	my ($self, $name) = @_;
	my ($value) = $self->admin('/metrics')->{content} =~ /^\Q$name\E (\S+)$/m;
	return $value // 0;
}

# ---- underneath ----

sub _wait_listening
{
	my ($self) = @_;
	$self->{url} = poll_until(
		$self->name . ' to listen',
		sub {
			return $1 if $self->log_contents =~ m{listening on (http://127\.0\.0\.1:\d+)};
			return $self->_check_alive;
		});
	$self->{http} = HTTP::Tiny->new(keep_alive => 1, timeout => 30, agent => 'sessauth-test');
	return;
}

# False while the gate lives, so that it can end a condition; dies when it does not.
sub _check_alive
{
	my ($self) = @_;
	croak $self->name . ' has ended: ' . $self->log_contents if defined $self->ended;
	return 0;
}

1;
