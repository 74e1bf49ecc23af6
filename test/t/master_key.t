# master_key.t
#		The master key: from a file or a command, read once; what is wrong with
#		it is said with a hint; and a wrong one never seals anything beside what another one sealed.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('key', config => "sessauth.master_key_file = ''\nrestart_after_crash = on\n");
my $dir    = private_dir();
my $good   = $ledger->{master_key_file};
(my $hex = slurp_file($good)) =~ s/\s//g;
my $dba = $ledger->dbh;

sub configure
{
	my ($file, $command) = @_;
	$ledger->append_conf('postgresql.conf', "sessauth.master_key_file = '$file'\nsessauth.master_key_command = '" . ($command // '') . "'");
	return;
}

sub restart
{
	my $from = -s $ledger->logfile;
	$dba->disconnect;
	$ledger->restart;
	$dba = $ledger->dbh;
	return substr(slurp_file($ledger->logfile), $from);
}

sub reload
{
	my ($what, $is) = @_;
	$ledger->reload;
	poll_until($what, sub { $is->($ledger->dbh) });
	return;
}

sub write_file
{
	my ($name, $content, $mode) = @_;
	open(my $file, '>', "$dir/$name") or die "$name: $!";
	print $file $content;
	close $file;
	chmod $mode // 0600, "$dir/$name";
	return "$dir/$name";
}

# The error of a call that needs the key, in a new process.
sub refused
{
	my ($what, $message, $hint) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $error = error_of($ledger->dbh, 'SELECT sessauth.create_signing_key()');
	is($error && $error->{sqlstate}, 'F0000', "$what is refused");
	like($error->{message}, $message, "$what: the message");
	like($error->{message}, qr/HINT:.*$hint/s, "$what: the hint");
	unlike($error->{message}, qr/\Q$hex\E|\Q${\ substr($hex, 0, 16)}\E/, "$what: nothing of the key");
	return;
}

sub works
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $login = row($ledger->dbh('app'), 'SELECT * FROM sessauth.issue_session(?, ?)', 'acme', random_hex(4));
	is($login->{outcome}, 'ok', $what);
	return;
}

# ---- none ----

refused('no key', qr/^ERROR:  sessauth has no master key\nDETAIL:.*sessauth\.master_key_file and sessauth\.master_key_command/, qr/openssl rand -hex 32 > FILE/);
like(slurp_file($ledger->logfile), qr/LOG:  sessauth: sessauth has no master key\n.*DETAIL.*\n.*HINT/, 'the log says so when the server starts');

# ---- files that are none ----

my $case = 0;
for my $bad (
	[ 'a file that is not there', undef, qr/could not open the master key file ".*": No such file/, qr/openssl rand/ ],
	[ 'an empty file', '', qr/does not hold a key\nDETAIL:  It is 0 bytes long; expected are 32 bytes as 64 hex digits/, qr/openssl rand/ ],
	[ 'a key that is too short', substr($hex, 0, 62) . "\n", qr/does not hold a key\nDETAIL:  It is 63 bytes long/, qr/openssl rand/ ],
	[ 'a key that is too long', $hex . $hex . "\n", qr/It is 129 bytes long/, qr/openssl rand/ ],
	[ 'a large file', 'x' x 100000, qr/It is at least 256 bytes long/, qr/openssl rand/ ],
	[ 'a key in binary form', pack('H*', $hex), qr/It is 32 bytes long, as a key in binary form is/, qr/openssl rand/ ],
	[ 'something else of the right length', 'g' x 64, qr/It is 64 bytes long/, qr/openssl rand/ ],
	[ 'a key that a group may read', "$hex\n", qr/is not private\nDETAIL:.*0600/, qr/chmod 600/, 0640 ],
	[ 'a key that the world may read', "$hex\n", qr/is not private/, qr/chmod 600/, 0604 ],
	[ 'a key that the world may write', "$hex\n", qr/is not private/, qr/chmod 600/, 0602 ])
{
	my ($what, $content, $message, $hint, $mode) = @$bad;
	my $path = defined $content ? write_file('bad' . ++$case, $content, $mode) : "$dir/missing";
	configure($path);
	reload($what, sub { value($_[0], 'SHOW sessauth.master_key_file') eq $path });
	refused($what, $message, $hint);
}
configure($dir);
reload('a directory', sub { value($_[0], 'SHOW sessauth.master_key_file') eq $dir });
refused('a directory', qr/is not private\nDETAIL:.*regular file/, qr/chmod/);
system('mkfifo', '-m', '600', "$dir/fifo") == 0 or die;
configure("$dir/fifo");
reload('a pipe', sub { value($_[0], 'SHOW sessauth.master_key_file') eq "$dir/fifo" });
refused('a pipe that nobody writes to', qr/is not private/, qr/chmod/);

# ---- a file that comes later, and one that goes away ----

my $later = "$dir/later";
configure($later);
like(restart(), qr/LOG:  sessauth: could not open the master key file "\Q$later\E"/, 'the server starts without the file, and says so');
refused('a file that comes later', qr/could not open/, qr/openssl/);
write_file('later', "$hex\n");
$dba = $ledger->dbh;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
works('when the file is there, it is read without a restart');
my $id = value($dba, q{SELECT sealed_by FROM sessauth.secret WHERE name = 'link'});
like($id, qr/^[0-9a-f]{16}$/, 'the ledger remembers which key it was');

unlike(restart(), qr/sessauth: /, 'with a good key the server has nothing to say');
unlink $later or die;
works('the server has read the file when it started: new processes do not need it');
my $victim = $ledger->dbh;
kill 'KILL', $victim->{pg_pid};
poll_until('the server to recover', sub { eval { value($ledger->dbh, 'SELECT 1') } && slurp_file($ledger->logfile) =~ /reinitializing/ });
poll_until('connections', sub { $dba = eval { $ledger->dbh } });
works('not even after a crash');

# ---- another key ----

write_file('other', random_hex(32) . "\n");
configure("$dir/other");
reload('another key', sub { value($_[0], 'SHOW sessauth.master_key_file') eq "$dir/other" });
unlink "$dir/other" or die;
my $keys = value($ledger->dbh, 'SELECT count(*) FROM sessauth.signing_key');
refused('another key, which the postmaster read at the reload', qr/does not open the secret "link"\nDETAIL:  It was sealed under the key with id $id; this server has the one with id [0-9a-f]{16}\./, qr/made with/);
my $error = error_of($ledger->dbh('app'), 'SELECT sessauth.issue_session(?, ?)', 'acme', 'alice');
is($error->{sqlstate}, 'F0000', 'a login under another key is refused, too');
like($error->{message}, qr/does not open the secret "refresh"/, 'and says why');
is(value($ledger->dbh, 'SELECT count(*) FROM sessauth.signing_key'), $keys, 'no key was made over the old ones');
is(value($ledger->dbh, 'SELECT count(DISTINCT sealed_by) FROM sessauth.secret'), 1, 'nor a secret');

# The path is the same, and what is behind it changes: seen when the server starts, and not before.
write_file('later', "$hex\n");
configure($later);
reload('the old path', sub { value($_[0], 'SHOW sessauth.master_key_file') eq $later });
write_file('later', random_hex(32) . "\n");
works('a file that is replaced under a running server does no harm');
restart();
refused('but after a restart', qr/sealed under the key with id $id/, qr/made with/);

# ---- the command ----

my $count = "$dir/count";
my $script = write_file('print_key', "#!/bin/sh\necho run >> $count\nexec cat $good\n", 0700);
configure($good, $script);
like(restart(), qr/LOG:  sessauth: sessauth.master_key_file and sessauth.master_key_command are both set/, 'both settings are one too many');
refused('both settings', qr/both set\nDETAIL:  A key that comes from two places/, qr/Remove one of the two/);
ok(!-e $count, 'the command was not run then');

configure('', $script);
unlike(restart(), qr/sessauth: /, 'a command that prints the key');
works('opens the ledger') for 1 .. 3;
is(scalar(split /\n/, slurp_file($count)), 1, 'it was run once');
$victim = $ledger->dbh;
my $before = () = slurp_file($ledger->logfile) =~ /reinitializing/g;
kill 'KILL', $victim->{pg_pid};
poll_until('the server to recover', sub { my $n = () = slurp_file($ledger->logfile) =~ /reinitializing/g; $n > $before });
poll_until('connections', sub { $dba = eval { $ledger->dbh } });
works('after a crash as well');
is(scalar(split /\n/, slurp_file($count)), 1, 'and was not run again');
is(error_of($dba, q{SET sessauth.master_key_command = 'true'})->{sqlstate}, '55P02', 'no session can set it');
$dba->do('CREATE ROLE plain LOGIN');
is(error_of($ledger->dbh('plain'), "SHOW sessauth.$_")->{sqlstate}, '42501', "nor see $_, unless it may see all settings") for qw(master_key_command master_key_file);

for my $bad (
	[ 'a command that fails', 'exit 3', qr/the master key command failed\nDETAIL:.*exit code 3/ ],
	[ 'a command that is not there', '/nowhere/at/all', qr/the master key command failed\nDETAIL:.*(?:127|not found)/ ],
	[ 'a command that prints the key and then fails', "cat $good; exit 1", qr/the master key command failed/ ],
	[ 'a command that is killed', 'kill -9 $$', qr/the master key command failed\nDETAIL:.*signal 9/ ],
	[ 'a command that prints nothing', 'true', qr/did not print a key\nDETAIL:  It is 0 bytes long/ ],
	[ 'a command that prints something else', 'echo hello', qr/did not print a key\nDETAIL:  It is 6 bytes long/ ],
	[ 'a command that prints the key twice', "cat $good $good", qr/did not print a key/ ])
{
	my ($what, $command, $message) = @$bad;
	configure('', $command);
	like(restart(), qr/LOG:  sessauth: the master key command/, "$what is a line in the log");
	refused($what, $message, qr/print the key as 64 hex digits.*run once/);
}
configure($good);
restart();
works('with the right key everything is as it was');
unlike(slurp_file($ledger->logfile), qr/\Q$hex\E/, 'the key is not in the log');

done_testing;
