# Storm.pm
#		Many clients at the same moment: processes of their own, each with its own
#		connection, that start together.
#
#	my @results = storm(
#		count     => 200,
#		connect   => sub { $ledger->dbh('app') },
#		run       => sub { my ($dbh, $i) = @_; return ... },		# anything that JSON can say
#		meanwhile => sub { ... });									# here, once they have started
#
# A client that dies gives { died => message, sqlstate => state }.

package Sessauth::Storm;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use JSON::PP ();
use POSIX ();

our @EXPORT_OK = qw(storm);

my $json = JSON::PP->new->utf8->allow_nonref->canonical;

sub storm
{
	my (%options) = @_;
	pipe(my $go, my $starter) or croak "pipe: $!";
	my @clients = map { _client($_, $go, $starter, %options) } 0 .. $options{count} - 1;
	close $go;

	# Each says when it is connected; all of them wait for the end of this pipe.
	for my $client (@clients)
	{
		my $line = readline $client->{pipe};
		croak 'a client could not connect: ' . ($line // 'it died') if ($line // '') ne "ready\n";
	}
	close $starter;
	$options{meanwhile}->() if $options{meanwhile};

	my @results;
	for my $client (@clients)
	{
		my $line = readline $client->{pipe};
		push @results, defined $line ? $json->decode($line) : { died => 'no answer', sqlstate => '' };
		waitpid $client->{pid}, 0;
	}
	return @results;
}

sub _client
{
	my ($i, $go, $starter, %options) = @_;
	pipe(my $read, my $write) or croak "pipe: $!";
	my $pid = fork // croak "fork: $!";
	if ($pid)
	{
		close $write;
		return { pid => $pid, pipe => $read };
	}

	# Nothing of the parent may be ended by the child's end: neither handlers nor END blocks run here.
	$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
	close $_ for $read, $starter;
	$write->autoflush(1);
	my $dbh = eval { $options{connect}->($i) };
	if (!$dbh)
	{
		print $write $@ =~ s/\n/ /gr, "\n";
		POSIX::_exit(1);
	}
	srand($i);
	print $write "ready\n";
	readline $go;
	my $result = eval { $options{run}->($dbh, $i) };
	$result = { died => "$@", sqlstate => $dbh->state } if $@;
	print $write $json->encode($result), "\n";
	eval { $dbh->disconnect };
	POSIX::_exit(0);
}

1;
