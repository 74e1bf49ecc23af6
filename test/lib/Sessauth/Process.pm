# Process.pm
#		One server process that we started: it is stopped by its own id, whatever
#		happens to us, and can be paused.
#
# Redis.pm and Gate.pm are made of this. The logs are files in the directory of logs
# (log_dir); wait for what a log or the outside shows with poll_until.

package Sessauth::Process;

use strict;
use warnings;

use Carp;
use Errno qw(EINTR);
use Exporter 'import';
use File::Temp ();
use IO::Socket::INET;
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our @EXPORT_OK = qw(free_port log_dir now_ms poll_until private_dir random_hex slurp_file);

# How long a condition may take before we give up; generous, for slow machines.
our $deadline = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

my @running;
my $owner = $$;

# A signal ends this process by way of its END blocks, so everything is stopped.
for my $signal (qw(INT TERM HUP))
{
	$SIG{$signal} = sub {
		$SIG{$_} = 'IGNORE' for qw(INT TERM HUP);
		exit 1;
	};
}
$SIG{PIPE} = 'IGNORE';

END
{
	my $status = $?;
	if ($$ == $owner)
	{
		my @last_first = reverse @running;
		$_->stop for @last_first;
	}
	$? = $status;
}

# Sessauth::Process->start($name, [command, arguments...], %environment)
sub start
{
	my ($class, $name, $command, %environment) = @_;

	my $self = bless { name => $name, log => log_dir() . "/$name.log" }, $class;
	$self->spawn($command, %environment);
	return $self;
}

# Runs a command as this process: the first one, or another after it was stopped.
sub spawn
{
	my ($self, $command, %environment) = @_;
	$self->{log_from} = -s $self->{log} // 0;
	my $pid = fork // croak "fork: $!";
	if ($pid == 0)
	{
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
		@ENV{ keys %environment } = values %environment;
		open(STDIN, '<', '/dev/null') or POSIX::_exit(127);
		open(my $log, '>>', $self->{log}) or POSIX::_exit(127);
		POSIX::dup2(fileno($log), 1);
		POSIX::dup2(fileno($log), 2);
		exec { $command->[0] } @$command
		  or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	push @running, $self;
	return;
}

# Asks the process to end, insists after a while, and returns its wait status.
sub stop
{
	my ($self, $signal) = @_;
	return unless defined $self->{pid};

	$self->continue if $self->{paused};
	kill $signal // 'TERM', $self->{pid};
	my $given_up = _monotonic() + 10;
	my $status;
	while (!defined($status = $self->ended))
	{
		if (_monotonic() > $given_up)
		{
			kill 'KILL', $self->{pid};
			$given_up = 'inf';
		}
		_nap();
	}
	return $status;
}

# The wait status of a process that has ended, else undef.
sub ended
{
	my ($self) = @_;
	return $self->{status} unless defined $self->{pid};
	return undef if waitpid($self->{pid}, WNOHANG) == 0;
	$self->{status} = $?;
	delete $self->{pid};
	@running = grep { $_ != $self } @running;
	return $self->{status};
}

sub kill9 { my ($self) = @_; return $self->stop('KILL'); }

# Returns when no thread of it runs any more.
sub pause
{
	my ($self) = @_;
	kill 'STOP', $self->{pid};
	$self->{paused} = 1;
	poll_until("$self->{name} to stand still", sub { !grep { slurp_file($_) !~ /^\d+ \(.*\) T/s } glob "/proc/$self->{pid}/task/*/stat" });
	return;
}

sub continue
{
	my ($self) = @_;
	kill 'CONT', $self->{pid};
	$self->{paused} = 0;
	return;
}

# From now on it runs on these processors alone (their numbers), with all of its threads.
sub move_to
{
	my ($self, @processors) = @_;
	open my $out, '-|', 'taskset', '-a', '-c', '-p', join(',', @processors), $self->{pid} or croak "taskset: $!";
	() = <$out>;
	close $out or croak "taskset: $?";
	return;
}

sub pid  { return $_[0]->{pid}; }
sub name { return $_[0]->{name}; }

# What the process has said, since it was last started.
sub log_contents
{
	my ($self) = @_;
	return -e $self->{log} ? substr(slurp_file($self->{log}), $self->{log_from}) : '';
}

# poll_until($what, $condition): evaluates the condition until it returns
# something true, and returns that. Dies, naming $what, when it never does.
sub poll_until
{
	my ($what, $condition, $seconds) = @_;
	my $given_up = _monotonic() + ($seconds // $deadline);
	while (1)
	{
		my $result = $condition->();
		return $result if $result;
		croak "gave up waiting: $what" if _monotonic() > $given_up;
		_nap();
	}
}

# Milliseconds by a clock that nobody sets.
sub now_ms { return 1000 * _monotonic(); }

# A TCP port of 127.0.0.1 that nobody uses at this moment. Another may take it
# before we do, so whoever uses it must be ready to try again.
sub free_port
{
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1)
	  or croak "no free port: $!";
	return $socket->sockport;
}

# A directory for us alone, with a short path, removed at exit.
sub private_dir
{
	return File::Temp->newdir('saXXXXXX', TMPDIR => 1, CLEANUP => 1);
}

# Where the logs of this test go.
sub log_dir
{
	my $base = $ENV{TESTDIR} ? "$ENV{TESTDIR}/tmp_check" : 'tmp_check';
	(my $test = $0) =~ s{.*/|\.[^.]*$}{}g;
	for my $directory ($base, "$base/log", "$base/log/$test")
	{
		mkdir $directory;
	}
	return "$base/log/$test";
}

sub random_hex
{
	my ($bytes) = @_;
	open(my $random, '<:raw', '/dev/urandom') or croak "/dev/urandom: $!";
	read($random, my $data, $bytes) == $bytes or croak "/dev/urandom: $!";
	return unpack('H*', $data);
}

sub slurp_file
{
	my ($path) = @_;
	open(my $file, '<:raw', $path) or croak "$path: $!";
	local $/;
	return <$file> // '';
}

sub _monotonic { return clock_gettime(CLOCK_MONOTONIC); }

sub _nap { select(undef, undef, undef, 0.01); return; }

1;
