# story.t
#		The story that `make demo` tells, checked: login on two devices, forced
#		logout, a late node, Redis away, theft, a whole tenant.

use strict;
use warnings;

use Sessauth;
use Sessauth::Story;
use Test::More;

my $ledger = new_ledger('story');
my $redis  = Sessauth::Redis->start_server;
my $story  = Sessauth::Story->new(
	dba        => $ledger->dbh,
	app        => $ledger->dbh('app'),
	redis      => $redis,
	teller     => 'teller',
	requests   => 200,
	start_gate => sub { start_gate($ledger, $redis, node => $_[0]) });

$story->play;
done_testing;

package teller;

my $chapter;

sub chapter { $chapter = $_[1]; return; }
sub note    { Test::More::note($_[1]); return; }
sub check   { my (undef, $ok, $text) = @_; local $Test::Builder::Level = $Test::Builder::Level + 2; Test::More::ok($ok, "$chapter: $text"); return; }
sub sql     { Test::More::note("$_[1]> $_[2] -> $_[3]"); return; }
sub http
{
	my (undef, $ok, $what, $expected, $answers) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 2;
	Test::More::ok($ok, "$chapter: GET $what is $expected on all nodes")
	  or Test::More::diag(join ', ', map { "$_->[0] $_->[1] $_->[2]" } @$answers);
	return;
}

sub table   { return; }
