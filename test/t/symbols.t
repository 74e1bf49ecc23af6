# symbols.t
#		Names that the extension takes from libraries must not be names of the
#		server, whose own would be called instead (jansson and PostgreSQL both have a json_object);
#		and the libraries export what their header says, and nothing else.

use strict;
use warnings;

use Test::More;

my $bin = `$ENV{PG_CONFIG} --bindir`;
my $lib = `$ENV{PG_CONFIG} --pkglibdir`;
chomp($bin, $lib);

my %server = map { $_ => 1 } names("nm -D --defined-only $bin/postgres");
cmp_ok(scalar keys %server, '>', 1000, 'the server\'s names are known');
my @taken = map { /^(\w+)\@(?!.*GLIBC)/ ? $1 : () } names("nm -D --undefined-only --with-symbol-versions $lib/sessauth.so");
cmp_ok(scalar @taken, '>', 10, 'the names that the extension takes from versioned libraries are known');
is_deeply([ grep { $server{$_} } @taken ], [], 'none of them is a name of the server');

is_deeply([ grep { !/^(pg_finfo_|sessauth_|_PG_init$|Pg_magic_func$)/ } names("nm -D --defined-only $lib/sessauth.so") ], [],
	'the extension exports its SQL functions and entry points, and nothing else');

my $libdir = `$ENV{PG_CONFIG} --libdir`;
my $includedir = `$ENV{PG_CONFIG} --includedir`;
chomp($libdir, $includedir);
open my $header, '<', "$includedir/sessauth.h" or die $!;
my %declared = map { /\b(sessauth_\w+)\(/ ? ($1 => 1) : () } grep { /^SESSAUTH_API/ } <$header>;
is_deeply([ sort(names("nm -D --defined-only $libdir/libsessauth.so")) ], [ sort keys %declared ],
	'libsessauth exports what its header declares, and nothing else');

done_testing;

sub names
{
	my ($command) = @_;
	open my $nm, '-|', $command or die "$command: $!";
	return map { (split ' ')[-1] } <$nm>;
}
