# recipes.t
#		The recipes of doc/recipes.md that can be run here: nginx, HAProxy and Caddy, a service
#		in Express, and WebSockets that are closed when their session ends. Each with clients that lie.

use strict;
use warnings;

use HTTP::Tiny;
use JSON::PP;
use Sessauth;
use Sessauth::Process;
use Test::More;

my $tools  = 'test/recipes';
my $ledger = new_ledger('recipes');
my ($dba, $app) = ($ledger->dbh, $ledger->dbh('app'));
my $redis = Sessauth::Redis->start_server;
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', $_) for 'acme', 'globex';
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
my $run    = private_dir();
my $socket = "$run/gate.sock";
my $gate = start_gate($ledger, $redis, redis_alone => 1, arguments => [ '--listen', "127.0.0.1:0,unix:$socket", '--admin-listen', '127.0.0.1:0' ])->wait_ready;
my $application = Sessauth::Process->start('application', [ 'perl', "$tools/application.pl" ]);
my $application_at = wait_listening($application, qr{listening on (\S+)});

# Every spelling that something between the client and the application may take for the header's name.
my @names  = qw(Tenant User Session Epoch);
my %forged = map { my $name = $_; map { ($_ => 'forged') } "X-Sessauth-$name", "X_Sessauth_$name", "X-Sessauth_$name", "x_sessauth-$name",
	"x-sessauth-\L$name", "X-SESSAUTH-\U$name", "X_SESSAUTH_\U$name" } @names;

subtest 'nginx' => sub {
	my ($nginx, $url) = test_proxy('nginx', sub {
		my ($dir, %at) = @_;
		my ($config) = recipe('nginx.conf', %at);
		write_file("$dir/nginx.conf", "daemon off; pid $dir/pid; error_log $dir/error.log;\nevents {}\nhttp {\naccess_log off;\n",
			(map { "${_}_temp_path $dir/$_;\n" } qw(client_body proxy fastcgi uwsgi scgi)), $config, "}\n");
		return 'nginx', '-c', "$dir/nginx.conf", '-p', "$dir", '-e', "$dir/error.log";
	});
	is(HTTP::Tiny->new->get("$url/sessauth")->{status}, 404, 'the gate itself cannot be reached');
	$nginx->stop;
};

subtest 'HAProxy' => sub {
	plan skip_all => 'haproxy is not installed: its recipe was not tested' if system('haproxy -v >/dev/null 2>&1') != 0;
	my ($haproxy) = test_proxy('haproxy', sub {
		my ($dir, %at) = @_;
		write_file("$dir/sessauth.lua", recipe('sessauth.lua', %at));
		write_file("$dir/haproxy.cfg", recipe('haproxy.cfg', %at, lua => "$dir/sessauth.lua"));
		return 'haproxy', '-db', '-f', "$dir/haproxy.cfg";
	});
	$haproxy->stop;
};

subtest 'Caddy' => sub {
	plan skip_all => 'caddy is not installed: its recipe was not tested' if system('caddy version >/dev/null 2>&1') != 0;
	my ($caddy) = test_proxy('caddy', sub {
		my ($dir, %at) = @_;
		write_file("$dir/Caddyfile", recipe('Caddyfile', %at, site => "http://$at{listen}"));
		return 'env', "HOME=$dir", 'caddy', 'run', '--config', "$dir/Caddyfile", '--adapter', 'caddyfile';
	});
	$caddy->stop;
};

my ($node_version) = (qx(node --version 2>/dev/null) // '') =~ /^v(\d+)/;
SKIP:
{
	skip 'node (20 or later) and npm are not installed: Express and WebSockets were not tested', 2
	  if !defined $node_version || $node_version < 20 || system('npm --version >/dev/null 2>&1') != 0;
	die "npm could not install what the recipes need:\n" . slurp_file("$tools/npm.log") unless -d "$tools/node_modules/ws";

	subtest 'Express' => sub {
		my $service = start_service('express');
		my $get = sub {
			my ($token, %headers) = @_;
			$headers{Authorization} = "Bearer $token" if defined $token;
			return HTTP::Tiny->new->get("$service->{url}/whoami", { headers => \%headers });
		};
		my %login = login('acme', "\x{e4}lice b");
		my $answer = $get->($login{access_token}, %forged);
		is_deeply(decode_json($answer->{content}), { tenant => 'acme', user => "\x{e4}lice b", session => $login{session_id}, epoch => $login{epoch} },
			'a route knows its caller, whatever the client says of itself');
		is($get->(undef, %forged)->{status}, 401, 'without a token there is none');
		value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', "\x{e4}lice b");
		poll_until('the revocation', sub { $get->($login{access_token})->{status} == 401 });
		pass('a revoked user is refused');
		$service->stop;
	};

	subtest 'WebSockets' => sub {
		my $service = start_service('websocket');
		my %client  = map { $_ => start_client($service, $_) } 'alice 1', 'alice 2', 'bob', 'carol', 'dave';
		wait_connected($_) for values %client;
		my $refused = connect_socket($service, 'nonsense');
		poll_until('the refusal', sub { $refused->log_contents =~ /^refused 401$/m });
		pass('nonsense is refused at the upgrade');

		my $closed  = sub { grep { $client{$_}{socket}->log_contents =~ /closed/ } sort keys %client };
		closes('a session', $service, $client{'alice 1'}, sub { value($app, 'SELECT sessauth.revoke_session(?, ?)', 'acme', $_[0]{session_id}) });
		my %refreshed = %{ row($app, 'SELECT * FROM sessauth.refresh_session(?)', $client{'alice 2'}{refresh_token}) };
		is($refreshed{outcome}, 'ok', 'another session of the user is refreshed');
		$gate->wait_auth($refreshed{access_token}, 200);
		is_deeply([ $closed->() ], ['alice 1'], 'which closes nothing');
		closes('a user', $service, $client{'alice 2'}, sub { value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'alice') });
		closes('a tenant', $service, $client{carol}, sub { value($app, 'SELECT sessauth.revoke_tenant(?)', 'globex') });
		is_deeply([ $closed->() ], [ 'alice 1', 'alice 2', 'carol' ], 'and nobody else is closed');
		$_->{socket}->stop for values %client;
		$service->stop;
	};
}

done_testing();

sub login
{
	my ($tenant, $user) = @_;
	my $login = row($app, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant, $user);
	$gate->wait_auth($login->{access_token}, 200);
	return %$login;
}

# What the proxy of a recipe does with honest and lying clients. $configure->($directory, %at) writes its configuration, and returns
# the command that runs it.
sub test_proxy
{
	my ($name, $configure) = @_;
	my $dir    = private_dir();
	my $listen = '127.0.0.1:' . free_port();
	my $proxy  = Sessauth::Process->start($name, [ $configure->($dir, gate => $socket, listen => $listen, application => $application_at) ]);
	my $url    = "http://$listen";
	my $send   = sub {
		my ($token, %options) = @_;
		my %headers = %{ $options{headers} // {} };
		$headers{Authorization} = "Bearer $token" if defined $token;
		return HTTP::Tiny->new->request($options{method} // 'GET', $url . ($options{path} // '/'),
			{ headers => \%headers, defined $options{content} ? (content => $options{content}) : () });
	};
	poll_until($name, sub { die $proxy->log_contents if defined $proxy->ended; $send->()->{status} == 401 });

	my %login = login('acme', "\x{e4}lice b");
	my $told  = [ "epoch: $login{epoch}", "session: $login{session_id}", 'tenant: acme', 'user: %C3%A4lice%20b' ];
	is_deeply(told($send->($login{access_token})), $told, 'the application is told who it is');
	is_deeply(told($send->($login{access_token}, headers => \%forged)), $told, 'and nothing else, whatever the client says of itself');
	my $body   = join '', map { "$_ " } 1 .. 40_000;
	my $posted = $send->($login{access_token}, headers => \%forged, method => 'POST', path => '/some/path?x=1&y=%2F%20', content => $body);
	like($posted->{content}, qr{^POST /some/path\?x=1&y=%2F%20 HTTP/1}, 'method, path and query reach it');
	is($posted->{content} =~ s/.*?\r\n\r\n//sr, $body, 'and a body that is larger than the gate would take');
	is_deeply(told($posted), $told, 'with the caller');

	my $refused = $send->(undef, headers => \%forged);
	is($refused->{status}, 401, 'without a token nothing gets through');
	like($refused->{headers}{'www-authenticate'}, qr/^Bearer/, 'the challenge does');
	is($send->('nonsense', headers => \%forged)->{status}, 401, 'nor with nonsense');
	value($app, 'SELECT sessauth.revoke_session(?, ?)', 'acme', $login{session_id});
	poll_until('the revocation', sub { $send->($login{access_token})->{status} == 401 });
	pass('a revoked session is refused');

	my %other = login('acme', 'bob');
	is($send->($other{access_token})->{status}, 200, 'another one is not');
	$redis->pause;
	poll_until('the lease to be over', sub { $send->($other{access_token})->{status} != 200 });
	my $unsure = $send->($other{access_token}, headers => \%forged);
	is($unsure->{status}, 503, 'when the gate cannot tell, the proxy says so, and logs nobody out');
	is($unsure->{headers}{'retry-after'}, 1, 'and when to try again');
	$redis->continue;
	$gate->wait_auth($other{access_token}, 200);
	$gate->pause;
	is($send->($other{access_token}, headers => \%forged)->{status}, 503, 'so it does when the gate hangs');
	$gate->continue;
	$gate->stop;
	$unsure = $send->($other{access_token}, headers => \%forged);
	is($unsure->{status}, 503, 'and when there is none');
	is($unsure->{headers}{'retry-after'}, 1, 'with the time to try again');
	$gate->restart;
	$gate->wait_auth($other{access_token}, 200);
	poll_until('the proxy to find the gate again', sub { $send->($other{access_token})->{status} == 200 });
	return ($proxy, $url);
}

# What the application was told of its caller: sorted "name: value", of all headers that may be taken for ours.
sub told
{
	my ($response) = @_;
	my ($head) = $response->{content} =~ /\A(.*?)\r\n\r\n/s or return "$response->{status} $response->{content}";
	return [ sort map { /^x[^a-z0-9]sessauth[^a-z0-9](\w+)(.*)/i ? lc($1) . $2 : () } split /\r\n/, $head ];
}

# The recipes of a file, as they are run here; doc/recipes.md must show them, with its own addresses in place of the test's.
sub recipe
{
	my ($file, %at) = @_;
	my %shown = (gate => '/run/sessauth/gate.sock', listen => ':80', application => '127.0.0.1:3000', lua => '/etc/haproxy/sessauth.lua', site => 'example.com');
	my $config   = slurp_file("$tools/$file");
	my $document = slurp_file('doc/recipes.md') =~ s/^\s+//mgr;
	my %recipe   = $config =~ /^\t?(?:#|--) recipe: (\w+)\n(.*?)^\t?(?:#|--) end of recipe/msg;
	for my $part (sort keys %recipe)
	{
		(my $text = $recipe{$part}) =~ s/^\s+//mg;
		$text =~ s/\@(\w+)\@/$shown{$1}/g;
		ok(index($document, $text) >= 0, "doc/recipes.md shows the part of \"$part\" that is tested here");
	}
	return $config =~ s/\@(\w+)\@/$at{$1}/gr;
}

sub write_file
{
	my ($path, @text) = @_;
	open my $file, '>', $path or die "$path: $!";
	print $file @text;
	close $file or die "$path: $!";
	return;
}

sub wait_listening
{
	my ($process, $pattern) = @_;
	return poll_until($process->name . ' to listen', sub {
		die $process->log_contents if defined $process->ended;
		return $process->log_contents =~ $pattern ? $1 : 0;
	});
}

sub start_service
{
	my ($name) = @_;
	my ($admin) = $gate->log_contents =~ m{administration listening on (\S+)};
	my $service = Sessauth::Process->start($name, [ 'node', "$tools/$name.mjs" ], GATE_URL => $gate->url, GATE_ADMIN_URL => $admin);
	$service->{url} = wait_listening($service, qr{listening on (\S+)});
	return $service;
}

sub connect_socket
{
	my ($service, $token) = @_;
	return Sessauth::Process->start('client' . ++$ledger->{clients}, [ 'node', "$tools/websocket_client.mjs", $service->{url}, $token ]);
}

# A session of whoever it is ("alice 2"), and a client that connects with its token.
sub start_client
{
	my ($service, $who) = @_;
	my %login = login($who =~ /carol/ ? 'globex' : 'acme', $who =~ /^(\w+)/);
	return { %login, who => $who, socket => connect_socket($service, $login{access_token}) };
}

sub wait_connected
{
	my ($client) = @_;
	poll_until("$client->{who} to be connected", sub { $client->{socket}->log_contents =~ /^message .*"session":"$client->{session_id}"/m });
	return;
}

# Within a second, that is. A machine may be too busy for that once, or twice: then the same client comes again.
sub closes
{
	my ($what, $service, $client, $revoke) = @_;
	my @took;
	do
	{
		wait_connected($client = start_client($service, $client->{who})) if @took;
		my $begun = now_ms();
		$revoke->($client);
		poll_until("$what to be closed", sub { $client->{socket}->log_contents =~ /^closed 4401$/m });
		push @took, now_ms() - $begun;
	} until $took[-1] < 1000 || @took == 3;
	cmp_ok($took[-1], '<', 1000, "$what that is revoked is closed within a second");
	note(sprintf 'after %s ms', join ', ', map { int } @took);
	return;
}
