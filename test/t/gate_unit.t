# gate_unit.t
#		The unit for systemd that is installed, as far as it can be tried without systemd: what that would say
#		to it and to the drop-in of doc/recipes.md, and whom its umask lets connect to a unix socket.

use strict;
use warnings;

use IPC::Run ();
use Sessauth::Process qw(private_dir slurp_file);
use Sessauth::Publisher;
use Sessauth::Redis;
use Test::More;

chomp(my $sharedir = `$ENV{PG_CONFIG} --sharedir`);
chomp(my $bindir   = `$ENV{PG_CONFIG} --bindir`);
my $unit = slurp_file("$sharedir/sessauth/sessauth-gate.service");
my ($program) = $unit =~ /^ExecStart=(\S+)$/m;
my ($umask)   = $unit =~ /^UMask=(\d+)$/m;
is($program, "$bindir/sessauth-gate", 'the unit starts the gate that was installed with it');
my ($drop_in) = slurp_file('doc/recipes.md') =~ /^```ini\n(.*?)^```$/ms;
(my $commented = $unit) =~ s/^#\t//mg;
ok(index($commented, $drop_in) >= 0, 'it shows the drop-in that lets a proxy connect');

SKIP:
{
	skip 'systemd-analyze is not installed: nobody has looked at the unit but us', 3 if system('systemd-analyze --version >/dev/null 2>&1') != 0;
	my $dir = private_dir();
	write_file("$dir/sessauth-gate.service", $unit);
	is_deeply([ complaints("$dir/sessauth-gate.service") ], [], 'systemd finds no fault with it');
	mkdir "$dir/sessauth-gate.service.d" or die $!;
	write_file("$dir/sessauth-gate.service.d/proxy.conf", $drop_in);
	is_deeply([ complaints("$dir/sessauth-gate.service") ], [], 'nor with the drop-in');

	# In tenths: 2.0, as "OK" as it can be for who uses the network.
	my $exposure = analyzed('security', '--offline=true', '--threshold=20', '--no-pager', "$dir/sessauth-gate.service");
	unlike($exposure, qr/ ended with /, 'and holds it for well enclosed') or diag($exposure);
}

my $ledger = Sessauth::Publisher->new(redis => Sessauth::Redis->start_server);
my $run    = private_dir();
my $wrapper = "$run/gate";
write_file($wrapper, "#!/bin/sh\numask $umask\nexec sessauth-gate \"\$@\"\n");
chmod 0755, $wrapper or die $!;
my $gate = $ledger->ready_gate(program => $wrapper, arguments => [ '--listen', "127.0.0.1:0,unix:$run/gate.sock" ]);
my (undef, undef, $mode, undef, $uid, $gid) = stat "$run/gate.sock" or die "$run/gate.sock: $!";
is(sprintf('%04o', $mode & 07777), '0770', 'with its umask a unix socket is for the gate\'s user and group, who may connect, and for nobody else');
is("$uid/$gid", $> . '/' . ($) + 0), 'and has the group of the process');
is($gate->stop, 0, 'the gate ends cleanly');

done_testing();

# ---- helpers ----

# What is wrong with a unit; the others of this machine are none of our business.
sub complaints { my ($file) = @_; return grep { /sessauth-gate/ } split /\n/, analyzed('verify', '--man=no', $file); }

# What systemd-analyze says, also when it ends well.
sub analyzed
{
	my (@arguments) = @_;
	IPC::Run::run([ 'systemd-analyze', @arguments ], '<', \undef, '>&', \my $out);
	return $? ? "$out(@arguments ended with $?)" : $out;
}

sub write_file
{
	my ($path, $text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file $text;
	close $file or die "$path: $!";
	return;
}
