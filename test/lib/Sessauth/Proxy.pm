# Proxy.pm
#		Stands between a gate and its PostgreSQL, and can hold back what the server answers; paused, it lets nothing through.
#
# The server hears every question at once. So its answers are of the past when they are delivered, as on a network that delays them.

package Sessauth::Proxy;

use strict;
use warnings;
use parent -norequire, 'Sessauth::Process';

use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Sessauth::Process qw(poll_until);

# Sessauth::Proxy->start_proxy($socket): in front of a server that listens on this unix socket.
sub start_proxy
{
	my ($class, $socket) = @_;
	my $self = $class->SUPER::start('proxy', [ 'perl', "-M$class", '-e', "$class\::run(\@ARGV)", $socket ]);
	$self->{port} = poll_until('the proxy to listen', sub { $self->log_contents =~ /listening on (\d+)/ && $1 });
	return $self;
}

sub port { return $_[0]->{port}; }

# From now on answers wait; those that have waited already are delivered.
sub hold { return $_[0]->_tell(USR1 => 'holding'); }

# All are delivered, and no later one waits.
sub release { return $_[0]->_tell(USR2 => 'released'); }

# Returns when it has done so.
sub _tell
{
	my ($self, $signal, $done) = @_;
	my $before = () = $self->log_contents =~ /^$done$/mg;
	kill $signal, $self->pid;
	poll_until("the proxy: $done", sub { $before < (() = $self->log_contents =~ /^$done$/mg) });
	return;
}

# ---- the process ----

sub run
{
	my ($socket) = @_;
	my ($holds, @signals, @held, %other, %is_server) = (0);
	for my $signal (qw(USR1 USR2)) { $SIG{$signal} = sub { push @signals, $signal } }
	$| = 1;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 50) or die "listen: $@";
	my $select   = IO::Select->new($listener);
	printf "listening on %d\n", $listener->sockport;
	while (1)
	{
		for my $from ($select->can_read(0.01))
		{
			next if !$from->opened;	# its other side has just ended
			if ($from == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $socket) or close $client, next;
				@other{ $client, $server } = ($server, $client);
				$is_server{$server} = 1;
				$select->add($client, $server);
			}
			elsif (sysread $from, my $bytes, 65536)
			{
				if ($holds && $is_server{$from}) { push @held, [ $other{$from}, $bytes ] }
				else { _send($other{$from}, $bytes) }
			}
			else
			{
				$select->remove($_), close $_ for $from, $other{$from};
			}
		}
		while (my $signal = shift @signals)
		{
			_send(@$_) for splice @held;
			$holds = $signal eq 'USR1';
			print $holds ? 'holding' : 'released', "\n";
		}
	}
}

sub _send
{
	my ($to, $bytes) = @_;
	my $sent;
	for (; length $bytes; substr $bytes, 0, $sent, '')
	{
		$sent = syswrite $to, $bytes;
		return if !$sent;
	}
	return;
}

1;
