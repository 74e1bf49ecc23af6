# meta.t
#		The version is the same wherever it is written.

use strict;
use warnings;

use JSON::PP;
use Sessauth::Process qw(slurp_file);
use Test::More;

my $meta = decode_json(slurp_file('META.json'));
my ($control)  = slurp_file('sessauth.control') =~ /^default_version = '([^']+)'$/m;
my ($makefile) = slurp_file('Makefile') =~ /^EXTVERSION\s*=\s*(\S+)$/m;

like($meta->{version}, qr/^\d+\.\d+\.\d+$/, 'META.json has a semantic version');
is($control, $meta->{version} =~ s/\.0$//r, 'the control file has the same');
is($makefile, $control, 'the Makefile, too');
is($meta->{provides}{sessauth}{version}, $meta->{version}, 'what META.json provides, too');
like(slurp_file('CHANGELOG.md'), qr/^## \Q$meta->{version}\E\b/m, 'the changelog knows it');
is($meta->{license}, 'postgresql', 'the licence is the PostgreSQL licence');

for my $file ($meta->{provides}{sessauth}{file}, $meta->{provides}{sessauth}{docfile}, 'LICENSE')
{
	ok(-s $file, "$file is there");
}

done_testing;
