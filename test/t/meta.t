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

# A walkthrough that names what is not there leads astray.
my %source = map { $_ => slurp_file($_) } glob('src/*/*.c sql/*.sql');
my $code   = join "\n", values %source;
for my $document ('doc/walkthrough.md', 'doc/reference.md', 'doc/guarantees.md', 'doc/recipes.md', 'README.md')
{
	my $text  = slurp_file($document);
	my @files = grep { !-e } $text =~ m{\b((?:src|sql|test|doc)/[\w./-]*\w/?)}g;
	is("@files", '', "every file that $document names is there");
	next unless $document =~ /walkthrough/;
	my @functions = grep { $code !~ /^\Q$_\E\(/m } $text =~ /`(\w+)\(\)`/g;
	is("@functions", '', "every C function that $document names is there");
}

done_testing;
