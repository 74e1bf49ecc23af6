# pkg_config.t
#		The installed library in the hands of a programmer: a few lines in C and in C++ are compiled, linked and
#		run with what pkg-config says, without a warning.

use strict;
use warnings;

use IPC::Run ();
use Sessauth::Process qw(private_dir);
use Test::More;

my $dir     = private_dir();
my $program = <<'END';
#include <sessauth.h>
#include <stdio.h>

int
main(void)
{
	SessauthOptions options = SESSAUTH_OPTIONS_INIT;
	SessauthNode *node;

	printf("%d %s %s %d\n", (int) options.max_staleness_ms, options.issuer, options.audience, (int) options.ask_timeout_ms);
	options.redis_url = "http://localhost";
	node = sessauth_open(&options);
	printf("%s\n%s\n", sessauth_version(), sessauth_error(node) ? sessauth_error(node) : "opened");
	sessauth_close(node);
	return 0;
}
END
open my $source, '>', "$dir/program.c" or die $!;
print $source $program;
close $source or die $!;

my @strict   = qw(-Wall -Wextra -Wpedantic -Werror);
my $libdir   = line($ENV{PG_CONFIG}, '--libdir');
my ($version) = line('sessauth-gate', '--version') =~ / (\S+)$/;
my $expected = "5000 sessauth sessauth 2000\n$version\ninvalid Redis URL: it must begin with redis://, rediss:// or unix:///\n";
is(line('pkg-config', '--variable=libdir', 'sessauth'), $libdir, 'pkg-config knows where the library was installed');
is(line('pkg-config', '--modversion', 'sessauth'), $version, 'and which version it is');

for my $case ([ 'C99', 'cc', '-std=c99' ], [ 'C++11', 'c++', '-std=c++11', '-x', 'c++' ])
{
	my ($language, @compiler) = @$case;
	is(output(@compiler, @strict, "$dir/program.c", '-o', "$dir/shared", words(qw(--cflags --libs))), '', "$language: it compiles without a warning");
	is(output("$dir/shared"), $expected, "$language: it runs, and says what is wrong");
}
like(output('ldd', "$dir/shared"), qr{^\s*libsessauth\.so\.0 => \Q$libdir\E/}m, 'the library is found by its soname');

# As where there is nothing but the archive.
mkdir "$dir/lib" or die $!;
symlink "$libdir/libsessauth.a", "$dir/lib/libsessauth.a" or die $!;
is(output('cc', '-std=c99', @strict, "$dir/program.c", '-o', "$dir/static", words("--define-variable=libdir=$dir/lib", qw(--static --cflags --libs))), '',
	'it links with the archive, and the private libraries are all that that needs');
is(output("$dir/static"), $expected, 'and runs');
unlike(output('ldd', "$dir/static"), qr/libsessauth/, 'without the shared library');

done_testing();

# ---- helpers ----

# What a command prints, also about its mistakes.
sub output
{
	my (@command) = @_;
	IPC::Run::run(\@command, '<', \undef, '>&', \my $out);
	return $? ? "$out(@command ended with $?)" : $out;
}

sub line { my (@command) = @_; chomp(my $line = output(@command)); return $line; }

sub words { return split ' ', output('pkg-config', @_, 'sessauth'); }
