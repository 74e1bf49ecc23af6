# Authority.pm
#		A certificate authority of a test's own, and certificates of it, made by
#		the command openssl.

package Sessauth::Authority;

use strict;
use warnings;

use Carp;
use Sessauth::Process qw(private_dir);

my @new_key = qw(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes);

# Sessauth::Authority->new: file() is its own certificate.
sub new
{
	my ($class) = @_;
	my $dir  = private_dir();
	my $self = bless { dir => $dir, serial => 0 }, $class;
	_openssl('req', '-x509', @new_key, '-keyout', "$dir/ca.key", '-out', "$dir/ca.pem", '-subj', '/CN=Test authority', '-days', 2);
	return $self;
}

sub file { return "$_[0]->{dir}/ca.pem"; }

# A certificate for these names, as subjectAltName has them ("DNS:localhost,IP:127.0.0.1"); valid for two days, or
# with expired => 1 not any more. Returns the files of the certificate and of its key.
sub issue
{
	my ($self, $names, %options) = @_;
	my $base = "$self->{dir}/" . ++$self->{serial};
	open(my $extensions, '>', "$base.ext") or croak "$base.ext: $!";
	print $extensions "subjectAltName = $names\n";
	close $extensions or croak "$base.ext: $!";
	_openssl('req', @new_key, '-keyout', "$base.key", '-out', "$base.csr", '-subj', "/CN=$self->{serial}");
	_openssl('x509', '-req', '-in', "$base.csr", '-CA', "$self->{dir}/ca.pem", '-CAkey', "$self->{dir}/ca.key",
		'-set_serial', $self->{serial}, ($options{expired} ? _over() : ('-days', 2)), '-extfile', "$base.ext", '-out', "$base.pem");
	return ("$base.pem", "$base.key");
}

# A day of the past: the options for it came when those of before went, with version 3.4.
sub _over
{
	my ($major, $minor) = `openssl version` =~ /^OpenSSL (\d+)\.(\d+)/ or croak 'openssl: what version is it?';
	return $major > 3 || ($major == 3 && $minor >= 4) ? qw(-not_before 20200101000000Z -not_after 20200102000000Z) : qw(-days -1);
}

sub _openssl
{
	my (@command) = @_;
	my $pid = open(my $out, '-|') // croak "fork: $!";
	if ($pid == 0)
	{
		open(STDERR, '>&', \*STDOUT) or die;
		exec 'openssl', @command or die "openssl: $!";
	}
	local $/;
	my $said = <$out>;
	close $out or croak "openssl @command failed: $said";
	return;
}

1;
