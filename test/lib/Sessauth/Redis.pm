# Redis.pm
#		A private Redis server, and a plain client for looking into it.

package Sessauth::Redis;

use strict;
use warnings;
use parent -norequire, 'Sessauth::Process';

use Carp;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Sessauth::Process qw(free_port poll_until private_dir);

my $count = 0;

# Sessauth::Redis->start_server(%options): listens on a port of its own on
# 127.0.0.1 and on a unix socket. Options: password; port; config, a list of
# further arguments of redis-server; tls, a list of the files of its certificate, its key and, for clients that
# must show one too, of their CA: then the port speaks TLS.
sub start_server
{
	my ($class, %options) = @_;
	my $dir  = private_dir();
	my $name = 'redis' . ++$count;

	for my $try (1 .. 20)
	{
		my $port = $options{port} // free_port();
		my ($certificate, $key, $ca) = @{ $options{tls} // [] };
		my @command = ('redis-server', '--bind', '127.0.0.1',
			($certificate ? ('--port', 0, '--tls-port', $port, '--tls-cert-file', $certificate, '--tls-key-file', $key)
				: ('--port', $port)),
			($certificate ? ('--tls-auth-clients', $ca ? 'yes' : 'no', '--tls-ca-cert-file', $ca // $certificate) : ()),
			'--unixsocket', "$dir/s", '--dir', "$dir", '--save', '',
			'--maxmemory-policy', 'noeviction', '--daemonize', 'no',
			($options{password} ? ('--requirepass', $options{password}) : ()),
			@{ $options{config} // [] });
		my $self = $class->SUPER::start($name, \@command);
		@$self{qw(dir port password command)} = ($dir, $port, $options{password}, \@command);
		return $self if $self->_wait_ready;
		croak 'redis-server does not start: ' . $self->log_contents
		  if $try == 20 || defined $options{port};
	}
}

# Starts a stopped server again, on the same port, with whatever it had saved: nothing, by default.
sub restart
{
	my ($self) = @_;
	$self->stop;
	$self->spawn($self->{command});
	$self->_wait_ready or croak 'redis-server does not start again: ' . $self->log_contents;
	return;
}

sub port { return $_[0]->{port}; }
sub dir  { return "$_[0]->{dir}"; }
sub url  { return "redis://127.0.0.1:$_[0]->{port}/0"; }
sub tls_url { my ($self, $host) = @_; return 'rediss://' . ($host // 'localhost') . ":$self->{port}/0"; }
sub unix_url { return "unix://$_[0]->{dir}/s"; }

# One command and its reply: a string, a number, undef, or an array of such. Dies of an error reply.
sub command
{
	my ($self, @arguments) = @_;
	my $socket = $self->{client} //= $self->_connect;
	my $reply  = eval { _exchange($socket, @arguments) };
	if (my $error = $@)
	{
		delete $self->{client} unless $error =~ /^redis says: /;
		die $error;
	}
	return $reply;
}

# HGETALL as a hash.
sub hash
{
	my ($self, $key) = @_;
	return { @{ $self->command('HGETALL', $key) } };
}

sub _wait_ready
{
	my ($self) = @_;
	delete $self->{client};
	return poll_until(
		'redis-server to start',
		sub {
			return 'ended' if defined $self->ended;
			return eval { $self->command('PING') } ? 'ready' : undef;
		}) eq 'ready';
}

sub _connect
{
	my ($self) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => "$self->{dir}/s")
	  or die "cannot connect to Redis: $!\n";
	$socket->autoflush(0);
	_exchange($socket, 'AUTH', $self->{password}) if $self->{password};
	return $socket;
}

sub _exchange
{
	my ($socket, @arguments) = @_;
	my $request = '*' . @arguments . "\r\n";
	$request .= '$' . length($_) . "\r\n$_\r\n" for @arguments;
	print $socket $request;
	$socket->flush or die "lost Redis: $!\n";
	return _read_reply($socket);
}

sub _read_reply
{
	my ($socket) = @_;
	my $line = <$socket>;
	defined $line or die "lost Redis\n";
	$line =~ s/\r\n\z//;
	my ($type, $rest) = (substr($line, 0, 1), substr($line, 1));
	die "redis says: $rest\n" if $type eq '-';
	return $rest if $type eq '+' || $type eq ':';
	return undef if $rest < 0;
	if ($type eq '$')
	{
		read($socket, my $data, $rest + 2) == $rest + 2 or die "lost Redis\n";
		return substr($data, 0, $rest);
	}
	return [ map { _read_reply($socket) } 1 .. $rest ];
}

1;
