# run.pl
#		The groups of tests, one after the other, and the sum at the end.
#
# Started by test/run in a copy of the source tree, beside a private installation.

use strict;
use warnings;

use POSIX ();
use Sessauth::Postgres qw(connect_to);
use Sessauth::Process;
use TAP::Harness;
use TAP::Parser::Aggregator;

$| = 1;

my %groups = (
	unit      => { title => 'C unit tests',        run => \&run_unit },
	regress   => { title => 'pg_regress',          run => \&run_regress, files => 'test/sql/*.sql' },
	isolation => { title => 'isolation specs',     run => \&run_isolation, files => 'test/isolation/specs/*.spec' },
	pgtap     => { title => 'pgTAP tests',         run => \&run_pgtap, files => 'test/pgtap/*.sql' },
	tap       => { title => 'Perl TAP tests',      run => \&run_tap, files => 'test/t/*.t' },
);
my @order = qw(unit regress isolation pgtap tap);

my ($passed, $failed, $skipped) = (0, 0, 0);
my $group_of_processes;
my $server;

# A signal ends the group that is running, then (in the END blocks) the servers.
for my $signal (qw(INT TERM HUP))
{
	$SIG{$signal} = sub {
		$SIG{$_} = 'IGNORE' for qw(INT TERM HUP);
		if ($group_of_processes)
		{
			kill 'TERM', -$group_of_processes;
			waitpid $group_of_processes, 0;
		}
		exit 1;
	};
}

my $selected = select_tests(@ARGV);
for my $name (@order)
{
	my $group = $groups{$name};
	my $files = $selected->{$name} or next;
	next if $group->{files} && !@$files;
	print "\n== $group->{title}\n";
	if (!eval { $group->{run}->(@$files); 1 })
	{
		print $@;
		$failed++;
	}
}
$server->stop if $server;

# Nothing run is not success.
$failed++ if $passed + $failed == 0;
print "\n$passed passed, $failed failed", ($skipped ? ", $skipped skipped" : ''), "\n";
exit($failed ? 1 : 0);

# Group name => files, for what was asked for: everything, groups, or files.
sub select_tests
{
	my @asked = @_ ? @_ : @order;
	my %selected;
	for my $asked (@asked)
	{
		if (my $group = $groups{$asked})
		{
			push @{ $selected{$asked} }, $group->{files} ? sort glob $group->{files} : ();
			next;
		}
		my ($name) = grep { $groups{$_}->{files} && in_directory($asked, $groups{$_}->{files}) } @order;
		die "no such test or group: $asked (groups: @order)\n" unless $name && -e $asked;
		push @{ $selected{$name} }, $asked;
	}
	return \%selected;
}

sub in_directory
{
	my ($file, $pattern) = @_;
	my ($directory) = $pattern =~ m{(.*)/};
	return $file =~ m{^(\./)?\Q$directory\E/[^/]+$};
}

# ---- groups ----

sub run_unit
{
	my @programs;
	run_child(
		sub { exec 'make', '-s', "PG_CONFIG=$ENV{PG_CONFIG}", 'unit-tests' },
		sub { push @programs, grep { -x } split ' ', $_[0]; });
	print "\n";
	run_harness({ jobs => $ENV{JOBS} || 2, exec => [] }, @programs) if @programs;
	return;
}

sub run_regress { run_installcheck('REGRESS', 'ISOLATION', 'regression.diffs', @_); return; }
sub run_isolation { run_installcheck('ISOLATION', 'REGRESS', 'output_iso/regression.diffs', @_); return; }

# The way a PGXS user runs it: make installcheck, against a running server.
sub run_installcheck
{
	my ($this, $other, $diffs, @files) = @_;
	my @names = map { m{([^/]+)\.[^.]+$} } @files;
	local @ENV{qw(PGHOST PGPORT PGUSER)} = (server()->dir, 5432, 'postgres');
	mkdir 'output_iso';
	unlink $diffs;
	my $failed_before = $failed;
	run_child(
		sub { exec 'make', '-s', "PG_CONFIG=$ENV{PG_CONFIG}", 'installcheck', "$this=@names", "$other=" },
		\&count_lines_of_pg_regress);
	if ($failed > $failed_before && -e $diffs)
	{
		my @lines = split /^/, Sessauth::Process::slurp_file($diffs);
		print @lines > 400 ? (@lines[ 0 .. 399 ], "... and more, in tmp_check/\n") : @lines;
	}
	return;
}

sub run_pgtap
{
	my (@files) = @_;
	my $admin = connect_to(server()->conninfo);
	$admin->do('CREATE DATABASE pgtap');
	$admin->disconnect;
	my $database = connect_to(server()->conninfo('postgres', 'pgtap'));
	$database->do("SET client_min_messages = warning; CREATE EXTENSION sessauth; CREATE EXTENSION pgtap");
	$database->disconnect;
	local @ENV{qw(PGHOST PGPORT PGUSER PGDATABASE)} = (server()->dir, 5432, 'postgres', 'pgtap');
	run_harness({ comments => 1, exec => [qw(psql -XqAt -v ON_ERROR_STOP=1 -P pager=off -f)] }, @files);
	return;
}

sub run_tap
{
	run_harness({ jobs => $ENV{JOBS} || 2 }, @_);
	return;
}

# The server that pg_regress, isolation specs and pgTAP share.
sub server
{
	$server //= Sessauth::Postgres->start_server(config => <<'END');
fsync = off
max_prepared_transactions = 10
max_connections = 50
END
	return $server;
}

# ---- running and counting ----

# Forks, in a process group of its own that a signal can end as a whole. The
# child's output is shown, and given to $count line by line; a child that fails without a
# failed test counts as one.
sub run_child
{
	my ($body, $count) = @_;
	my $failed_before = $failed;
	pipe(my $read, my $write) or die "pipe: $!";
	$group_of_processes = fork // die "fork: $!";
	if ($group_of_processes == 0)
	{
		setpgrp;
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
		close $read;
		POSIX::dup2(fileno($write), 1);
		POSIX::dup2(fileno($write), 2);
		$body->();
		POSIX::_exit(127);
	}
	close $write;
	while (my $line = <$read>)
	{
		print $line unless $line =~ /^#sum /;
		$count->($line);
	}
	waitpid $group_of_processes, 0;
	my $status = $?;
	undef $group_of_processes;
	$failed++ if $status && $failed == $failed_before;
	return;
}

# PostgreSQL up to 15 says "test name ... ok 12 ms", later ones write TAP.
sub count_lines_of_pg_regress
{
	my ($line) = @_;
	$passed++ if $line =~ /^(?:test)?\s+\S+\s+\.\.\. ok\b/ || $line =~ /^ok \d/;
	$failed++ if $line =~ /^(?:test)?\s+\S+\s+\.\.\. FAILED\b/ || $line =~ /^not ok \d/;
	return;
}

# TAP tests. The harness runs in a child and reports its sums in a last line.
sub run_harness
{
	my ($options, @files) = @_;
	run_child(
		sub {
			$| = 1;
			my $harness = TAP::Harness->new({ merge => 0, failures => 1, color => 0, timer => 1, %$options });
			my $result = $harness->runtests(@files);
			my ($ok, $not_ok, $skips) = (0, 0, 0);
			for my $test ($result->descriptions)
			{
				my ($parser) = $result->parsers($test);
				$ok     += $parser->passed - $parser->skipped;
				$not_ok += $parser->failed;
				$skips  += $parser->skipped;
				# Died, or did not keep to its plan.
				$not_ok++ if $parser->has_problems && !$parser->failed;
				show_log($test) if $parser->has_problems;
			}
			print "#sum $ok $not_ok $skips\n";
			POSIX::_exit(0);
		},
		\&count_sum);
	return;
}

# The end of what a test wrote into its log, where PostgreSQL::Test::Utils sends its errors.
sub show_log
{
	my ($test) = @_;
	my ($name) = $test =~ m{([^/]+)\.t$} or return;
	my $log = "tmp_check/log/regress_log_$name";
	return unless -e $log;
	my @lines = split /^/, Sessauth::Process::slurp_file($log);
	print "\n-- the end of $log\n", @lines > 40 ? @lines[ -40 .. -1 ] : @lines;
	return;
}

sub count_sum
{
	my ($line) = @_;
	if ($line =~ /^#sum (\d+) (\d+) (\d+)$/)
	{
		$passed  += $1;
		$failed  += $2;
		$skipped += $3;
	}
	return;
}
