# Gate.pm
#		One sessauth-gate, and what an HTTP client gets from it.

package Sessauth::Gate;

use strict;
use warnings;
use parent -norequire, 'Sessauth::Process';

use Carp;
use HTTP::Tiny;
use Fcntl ();
use Sessauth::Process qw(poll_until private_dir);

my $count = 0;
my @kept;	# directories that have to outlive their gates

# Sessauth::Gate->start_gate(%options): node, redis, pg and max_staleness are the
# gate's options of these names; arguments lists others, and program is another build of it. Returns as soon as it listens, which is before it is ready.
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

# One of the numbers of a gate that was started with --admin-listen; 0 before it has one.
sub metric
{
	my ($self, $name) = @_;
	my ($url)   = $self->log_contents =~ m{administration listening on (http://127\.0\.0\.1:\d+)} or croak $self->name . ' has no listener for administrators';
	my ($value) = HTTP::Tiny->new->get("$url/metrics")->{content} =~ /^\Q$name\E (\S+)$/m;
	return $value // 0;
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
