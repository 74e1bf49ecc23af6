# secrets.t
#		With everything logged that PostgreSQL can log, no token that was bound as a
#		parameter, no key and no password is in any log, statistics view, view of sessauth, dump,
#		data file or Redis. Tokens that somebody writes into a statement are not in the log, either.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use File::Find ();
use MIME::Base64 qw(encode_base64 encode_base64url);
use PostgreSQL::Test::Utils ();
use Sessauth;
use Test::More;
use Worker;

my $password = 'redis-password-' . random_hex(12);
my $redis    = Sessauth::Redis->start_server(password => $password, config => [ '--appendonly', 'yes' ]);
my $dir      = private_dir();
my $destinations = `pg_config --version` =~ /PostgreSQL 14/ ? 'stderr,csvlog' : 'stderr,csvlog,jsonlog';

my $ledger = new_ledger('secrets', config => <<"END");
shared_preload_libraries = 'pg_stat_statements, auto_explain, sessauth'
logging_collector = on
log_destination = '$destinations'
log_directory = '$dir'
log_filename = 'server.log'
log_rotation_size = 0
log_min_messages = debug1
log_min_error_statement = debug1
log_error_verbosity = verbose
log_statement = all
log_duration = on
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_verbose = on
auto_explain.log_nested_statements = on
pg_stat_statements.track = all
pg_stat_statements.track_utility = on
END
my $dba = $ledger->dbh;
$dba->do('CREATE EXTENSION pg_stat_statements');
$dba->do('SELECT sessauth.create_signing_key()');
$dba->do(q{SELECT sessauth.create_tenant('acme')});
open(my $file, '>', "$dir/password") or die $!;
print $file "$password\n";
close $file;
chmod 0600, "$dir/password";
value($dba, 'SELECT sessauth.add_mirror(?, ?, ?)', 'main', $redis->url, "$dir/password");
wait_streaming($dba);
$dba->do('CREATE ROLE nobody LOGIN');
$dba->do('GRANT USAGE ON SCHEMA sessauth TO nobody');

my $app = $ledger->dbh('app');
my %secret;		# a part of a secret that tells it => what it is

# Remembers the parts of a login's tokens that must not be seen.
sub keep
{
	my ($login, $what) = @_;
	$secret{ substr($login->{refresh_token}, 40, 20) } = "the beginning of the secret of the refresh token $what";
	$secret{ substr($login->{refresh_token}, -40) }    = "the end of the refresh token $what";
	my (undef, $payload, $signature) = split /\./, $login->{access_token};
	$secret{ substr($payload, -40) } = "the payload of the access token $what";
	$secret{$signature} = "the signature of the access token $what";
	return $login;
}

sub new_login { my ($what) = @_; return keep(login($app, random_hex(4)), $what); }

sub fails
{
	my ($dbh, $sqlstate, $what, $sql, @parameters) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $error = error_of($dbh, $sql, @parameters);
	is($error && $error->{sqlstate}, $sqlstate, "$what fails as it should");
	return $error ? $error->{message} : '';
}

# ---- bound: the calls that work ----

my $login = new_login('that is used');
is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $login->{access_token}), 'active', 'verify');
like(value($app, 'SELECT sessauth.introspect(?)', $_), qr/"active": true/, 'introspect') for @$login{qw(access_token refresh_token)};
$app->do('SELECT sessauth.authenticate(?)', undef, $login->{access_token});
my $next = keep(row($app, 'SELECT * FROM sessauth.refresh_session(?)', $login->{refresh_token}), 'that is the successor');
is($next->{outcome}, 'ok', 'refresh_session');
is(value($app, 'SELECT sessauth.logout(?)', $next->{refresh_token}), 1, 'logout');
$app->do('PREPARE check_token(text) AS SELECT outcome FROM sessauth.verify($1)');

# ---- bound: the calls that fail ----

my $ended = $next;
fails($app, '28000', 'authenticate with an ended session', 'SELECT sessauth.authenticate(?)', $ended->{access_token});
fails($app, '28000', 'authenticate with a refresh token', 'SELECT sessauth.authenticate(?)', $ended->{refresh_token});
is(value($app, 'SELECT outcome FROM sessauth.refresh_session(?)', $ended->{refresh_token}), 'revoked', 'refresh_session of an ended session');
is(value($app, 'SELECT outcome FROM sessauth.verify(?)', $ended->{refresh_token}), 'malformed', 'verify of a refresh token');
is(value($app, 'SELECT outcome FROM sessauth.verify(?)', "$ended->{access_token}x"), 'malformed', 'verify of a damaged token');

$login = new_login('of the failing calls');
my $nobody = $ledger->dbh('nobody');
for my $call ('verify(?)', 'introspect(?)', 'logout(?)', 'refresh_session(?)', 'authenticate(?)')
{
	fails($nobody, '42501', "$call without access", "SELECT sessauth.$call", $login->{$_}) for qw(access_token refresh_token);
}
fails($app, '42704', 'a token as a tenant', 'SELECT sessauth.issue_session(?, ?)', $login->{refresh_token}, 'alice');
fails($app, '42501', 'a token as the tenant of another call', 'SELECT sessauth.create_tenant(?)', $login->{access_token});
fails($app, '22P02', 'a token as a number', 'SELECT ?::int', $login->{refresh_token});
fails($app, '22P02', 'a token as a session', 'SELECT sessauth.revoke_session(?, ?)', 'acme', $login->{access_token});
fails($app, '22012', 'a statement beside a token', 'SELECT sessauth.verify(?), 1 / ?::int', $login->{access_token}, 0);

$dba->do('CREATE TABLE kept (token text UNIQUE CHECK (length(token) > 100), n int)');
$dba->do('INSERT INTO kept (token) VALUES (?)', undef, new_login('that an application stores')->{refresh_token});
fails($dba, '23505', 'a unique constraint', 'INSERT INTO kept SELECT token FROM kept');
fails($dba, '23514', 'a check constraint', 'INSERT INTO kept VALUES (left(?, 99))', $login->{refresh_token});
fails($dba, '22P02', 'a row that does not fit', 'INSERT INTO kept (n) VALUES (?)', $login->{refresh_token});

$dba->do(<<'END');
CREATE FUNCTION complains(token text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'warned about %', token USING DETAIL = token, HINT = token;
	EXECUTE format('SELECT outcome FROM sessauth.verify(%L)', token);
	PERFORM sessauth.verify(token);
	EXECUTE format('SELECT %L::int', token);
END $$
END
for my $token (@$login{qw(access_token refresh_token)})
{
	local $SIG{__WARN__} = sub { };
	my $message = fails($dba, '22P02', 'a function that says what it was given', 'SELECT complains(?)', $token);
	like($message, qr/\[redacted\]/, 'the client is told so without the token');
}

# Cut off by the server in the middle of the secret.
$dba->do('SET log_parameter_max_length = 70');
$dba->do('SET log_parameter_max_length_on_error = 70');
value($dba, 'SELECT outcome FROM sessauth.verify(?)', $login->{refresh_token});
fails($dba, '22P02', 'with a parameter that is logged in part', 'SELECT ?::int', $login->{refresh_token});
$dba->do('RESET log_parameter_max_length');

# ---- written into the statement: out of the log, at least ----

my $literal;
my %literal;	# as %secret; PostgreSQL itself shows these in its views
{
	my %before = %secret;
	$literal = keep(login($app, 'literal'), 'that is written into a statement');
	$literal{$_} = delete $secret{$_} for grep { !$before{$_} } keys %secret;
}
for my $token (@$literal{qw(access_token refresh_token)})
{
	local $SIG{__WARN__} = sub { };
	$dba->do("SELECT sessauth.verify('$token') /* \x{20ac} */");
	$dba->do("DO \$\$BEGIN PERFORM sessauth.introspect('$token'); RAISE WARNING 'x'; END\$\$");
	$app->do("EXECUTE check_token('$token')");
	fails($dba, '22P02', 'a DO block', "DO \$\$BEGIN PERFORM sessauth.verify('$token'); PERFORM '$token'::int; END\$\$");
	fails($dba, '42601', 'a syntax error', "SELECT 1 '$token'");
	fails($dba, '42601', 'a mistake before it', "SELEC sessauth.verify('$token')");
	fails($dba, '28000', 'authenticate after it has ended', "SELECT sessauth.logout('$literal->{refresh_token}'), sessauth.authenticate('$token')");
	fails($dba, '42703', 'a statement with a detail of its own', "SELECT complain, '$token' FROM kept");
	$dba->do('COPY kept (token, n) FROM STDIN');
	$dba->pg_putcopydata("$token\t$token\n");
	ok(!eval { $dba->pg_putcopyend(); 1 }, 'COPY fails as it should');
}

# ---- what there is to read ----

wait_published($dba, $redis);
$dba->do(q{DO $$BEGIN RAISE LOG 'the end of the test'; END$$});
my @logs = map { "$dir/server.$_" } $destinations =~ /json/ ? qw(log csv json) : qw(log csv);
poll_until("the end of $_", sub { slurp_file($_) =~ /LOG.*the end of the test/ }) for @logs;

my $master = $ledger->{master_key_file};
(my $hex = slurp_file($master)) =~ s/\s//g;
my $link = link_key($dba);
for my $key ([ 'the master key', pack('H*', $hex) ], [ 'the link key', $link ])
{
	my ($what, $bytes) = @$key;
	$secret{$bytes} = $what;
	$secret{ unpack('H*', $bytes) } = "$what in hex";
	$secret{ encode_base64url($bytes) } = "$what in base64url";
	(my $base64 = encode_base64($bytes, '')) =~ s/=+$//;
	$secret{$base64} = "$what in base64";
}
$secret{$password} = "the password of Redis";

# What every private key of this curve has in it, in the two forms that OpenSSL writes, and no public one.
my %private = ('sec1' => pack('H*', '0201010420'), 'pkcs8' => pack('H*', '301306072a8648ce3d020106082a8648ce3d03010704'));
for my $form (sort keys %private)
{
	my $mark = $private{$form};
	my $key  = `openssl ecparam -genkey -name prime256v1 -noout | openssl pkcs8 -topk8 -nocrypt -outform DER`;
	ok(index($key, $mark) >= 0, "how a private key is recognised, $form");
	$secret{$mark} = "a private key, $form";
	$secret{ unpack('H*', $mark) } = "a private key in hex, $form";
}
$secret{ substr(encode_base64(pack('H*', '308187020100') . $private{pkcs8}, ''), 8, 24) } = 'a private key in base64';
$secret{'PRIVATE KEY'} = 'a private key as PEM';

sub has_no
{
	my ($text, $what, %secrets) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	utf8::encode($text) if utf8::is_utf8($text);
	my @found = map { $secrets{$_} } grep { index($text, $_) >= 0 } sort keys %secrets;
	ok(length $text && !@found, "$what: no secret") or diag("found in $what: $_") for @found ? join(', ', @found) : '';
	return;
}

for my $path (@logs)
{
	my $log = slurp_file($path);
	my ($name) = $path =~ m{([^/]+)$};
	has_no($log, $name, %secret, %literal);
	like($log, qr/\$1 = '+sar_\[redacted\]'/, "$name: a refresh token was logged as a parameter");
	like($log, qr/\$1 = '+eyJ\[redacted\]'/, "$name: an access token, too");
	like($log, qr/Query Text: SELECT outcome FROM sessauth.verify\('sar_\[redacted\]'\)/, "$name: a plan was logged");
	like($log, qr/Key \(token\)=\(sar_\[redacted\]\)/, "$name: a violated constraint was logged");
	like($log, qr/COPY kept, line 1, column n: .{1,4}sar_\[redacted\]/, "$name: a line of COPY was logged");
	like($log, qr/warned about eyJ\[redacted\]/, "$name: a message was logged");
	like($log, qr/Statement, without its tokens: SELEC sessauth.verify\('eyJ\[redacted\]'\)/, "$name: a statement was logged");
	like($log, qr/PL\/pgSQL function complains/, "$name: contexts were logged");
}
like(slurp_file($logs[0]), qr/STATEMENT:  SELECT \$1::int/, 'a statement without a token in it is logged as ever');

has_no(join("\n", map { value($dba, "SELECT string_agg(v::text, chr(10)) FROM $_ v") // '' } @$_), "@$_", %secret)
  for [qw(pg_stat_statements)], [qw(pg_stat_activity)], [qw(pg_settings)],
	[qw(sessauth.sessions sessauth.history sessauth.keys sessauth.mirrors sessauth.nodes)],
	[qw(sessauth.tenant sessauth.session sessauth.event sessauth.signing_key sessauth.secret sessauth.mirror sessauth.revocation_log)];
like(value($dba, q{SELECT string_agg(query, ' ') FROM pg_stat_statements}), qr/sessauth\.verify\(\$1\)/, 'the statistics know the calls');

# An application that keeps tokens in a table of its own has them in its dump, of course.
$dba->do('DROP TABLE kept');
PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-f', "$dir/dump.sql", '-d', $ledger->connstr('postgres'));
my $dump = slurp_file("$dir/dump.sql");
like($dump, qr/COPY sessauth\.signing_key/, 'the dump has the keys');
has_no($dump, 'pg_dump', %secret, %literal);

my $written = '';
File::Find::find({ no_chdir => 1, wanted => sub { $written .= slurp_file($_) if -f && -s } }, $redis->dir);
like($written, qr/sessauth:revocations/, 'Redis has written down all that it was told');
has_no($written, 'Redis', %secret, %literal);

# Neither is anything in the clear in the ledger's files. The tokens that the test itself has stored are another matter.
$dba->do('CHECKPOINT');
my %data;
File::Find::find({ no_chdir => 1, wanted => sub {
	return unless -f && m{/(?:base|global|pg_stat|pg_stat_tmp|pg_wal)/};
	my $bytes = eval { slurp_file($_) } // '';
	for my $part (keys %secret) { $data{ $secret{$part} } = 1 if index($bytes, $part) >= 0 && $secret{$part} !~ /that an application stores|of the failing calls/; }
} }, $ledger->data_dir);
is_deeply([ sort keys %data ], [], 'no secret is in the files of the database');

done_testing;
