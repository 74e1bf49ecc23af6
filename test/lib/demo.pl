# demo.pl
#		Tells the story of sessauth (Sessauth/Story.pm) to a person at a terminal.
#
# Started by test/demo, beside a private installation. The servers are real,
# with the settings that they would have in production (fsync is on).

use strict;
use warnings;

use Sessauth::Gate;
use Sessauth::Postgres qw(connect_to);
use Sessauth::Process qw(now_ms);
use Sessauth::Redis;
use Sessauth::Story;

$| = 1;
# A person is watching: a step that takes this long has failed.
$Sessauth::Process::deadline = 30;
binmode STDOUT, ':encoding(UTF-8)';

my $color = $ENV{SESSAUTH_DEMO_COLOR} && !$ENV{NO_COLOR};
my ($chapter, $kept, $broken, $begun) = (0, 0, 0, now_ms());

print paint(1, "sessauth"), ": a login, a request and a forced logout, on real PostgreSQL, Redis and nodes.\n",
  "Every line is what was asked, what was answered, and how long that took.\n\n";

my $postgres = Sessauth::Postgres->start_server;
my $redis    = Sessauth::Redis->start_server;
my $dba      = connect_to($postgres->conninfo);
$dba->do("SET client_min_messages = warning");
printf "       PostgreSQL %s with shared_preload_libraries = 'sessauth', and Redis %s, both private\n",
  $dba->selectrow_array('SHOW server_version') =~ /^(\S+)/, $redis->command('INFO', 'server') =~ /redis_version:(\S+)/;
$dba->do('CREATE DATABASE demo');
$dba->disconnect;
$dba = connect_to($postgres->conninfo('postgres', 'demo'));
for my $statement (
	'CREATE EXTENSION sessauth',
	'CREATE ROLE app LOGIN',
	'CREATE ROLE gate LOGIN',
	q{SELECT sessauth.grant_access('app', 'service')},
	q{SELECT sessauth.grant_access('gate', 'node')})
{
	my $start = now_ms();
	$dba->do($statement);
	teller->sql('dba', $statement, '', now_ms() - $start);
}

my $story = Sessauth::Story->new(
	dba        => $dba,
	app        => connect_to($postgres->conninfo('app', 'demo')),
	redis      => $redis,
	teller     => 'teller',
	start_gate => sub {
		return Sessauth::Gate->start_gate(
			node          => $_[0],
			redis         => $redis->url,
			pg            => $postgres->conninfo('gate', 'demo'),
			max_staleness => '2s');
	});

my $finished = eval { $story->play; 1 };
if (!$finished)
{
	chomp(my $error = $@);
	teller->check(0, $error);
}

if ($broken)
{
	for my $process ($postgres, $redis, @{ $story->{gates} })
	{
		my @lines = split /^/, $process->log_contents;
		splice @lines, 0, @lines - 15 if @lines > 15;
		print "\n-- the end of the log of ", $process->name, "\n", @lines;
	}
}
my $verdict = $broken
  ? sprintf('%d of %d promises were broken.', $broken, $kept + $broken)
  : sprintf(
	'All %d promises were kept. Forced logouts reached every node in %s at most; p99 of a request was %s.',
	$kept,
	Sessauth::Story::ms((sort { $b <=> $a } @{ $story->{propagation} })[0]),
	Sessauth::Story::ms($story->{p99}));
printf "\n%s\n(%.0f s; everything that was started is stopped again)\n", paint($broken ? 31 : 32, $verdict), (now_ms() - $begun) / 1000;
exit($broken ? 1 : 0);

sub paint
{
	my ($code, $text) = @_;
	return $color ? "\e[${code}m$text\e[0m" : $text;
}

# ---- the teller ----

package teller;

sub chapter
{
	my ($class, $title) = @_;
	printf "\n%s\n", main::paint(1, ++$chapter . ". $title");
	return;
}

sub sql
{
	my ($class, $who, $statement, $answer, $ms) = @_;
	line("  $who> ", 36, $statement, $ms);
	printf "       %s %s\n", main::paint(2, '->'), $answer if $answer ne '';
	return;
}

sub http
{
	my ($class, $ok, $what, $expected, $answers, $ms) = @_;
	my %why = map { $_->[2] => 1 } grep { $_->[2] ne '' } @$answers;
	my $statuses = join '  ', map {
		(my $node = $_->[0]) =~ s/^gate-(.*)-\d+$/$1/;
		"$node " . main::paint($_->[1] == 200 ? 32 : $_->[1] == 401 ? 31 : 33, $_->[1]);
	} @$answers;
	$ok ? $kept++ : $broken++;
	my $text = sprintf '%-46s %s%s', "GET $what", $statuses, %why ? '  (' . join(', ', sort keys %why) . ')' : '';
	line($ok ? '  ok   ' : '  FAIL ', $ok ? 32 : 31, $ok ? $text : "$text  (expected $expected)", $ms);
	return;
}

sub note
{
	my ($class, $text) = @_;
	print "       $text\n";
	return;
}

sub check
{
	my ($class, $ok, $text) = @_;
	$ok ? $kept++ : $broken++;
	printf "  %s %s\n", $ok ? main::paint(32, 'ok  ') : main::paint(31, 'FAIL'), $text;
	return;
}

sub table
{
	my ($class, $columns, $rows) = @_;
	my @width = map {
		my $column = $_;
		my $width  = length $column;
		for my $row (@$rows) { $width = length $row->{$column} if length $row->{$column} > $width; }
		$width;
	} @$columns;
	my $format = '       ' . join('  ', map { "%-${_}s" } @width);
	for my $row ({ map { $_ => $_ } @$columns }, @$rows)
	{
		(my $line = sprintf $format, @$row{@$columns}) =~ s/\s+$//;
		print "$line\n";
	}
	return;
}

# A line with its milliseconds at the right.
sub line
{
	my ($who, $code, $text, $ms) = @_;
	(my $plain = $text) =~ s/\e\[\d+m//g;
	my $pad = 84 - length $plain;
	$pad = 1 if $pad < 1;
	print main::paint($code, $who), $text, ' ' x $pad, main::paint(2, sprintf '%10s', Sessauth::Story::ms($ms)), "\n";
	return;
}
