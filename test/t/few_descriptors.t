# few_descriptors.t
#		The library neither prints nor ends the program when descriptors run out; it says that it cannot start.

use strict;
use warnings;

use IPC::Run ();
use Sessauth::Process;
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

my $redis  = Sessauth::Redis->start_server;
my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'few:');
my $tool   = ($ENV{TESTDIR} // '.') . '/build/tools/few_descriptors-address';

IPC::Run::run([ $tool, $redis->url . '?prefix=few:', $ledger->write_jwks, $ledger->write_link_key ], '<', \undef, '>', \my $out, '2>', \my $err);
is($?, 0, 'the program ends by itself');
is($err, '', 'nothing was printed');
my %said = map { split / /, $_, 2 } split /\n/, $out;
is(scalar keys %said, 41, 'with any number of free descriptors it gets an answer');
is($said{0}, 'could not start: no more threads or descriptors', 'without any, why not');
is($said{40}, 'opened', 'with enough of them, a node');

done_testing;
