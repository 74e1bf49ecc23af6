# recipes.t
#		The recipes of doc/recipes.md that can be run here: nginx with auth_request, a service
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
my $gate = start_gate($ledger, $redis, arguments => [ '--listen', "127.0.0.1:0,unix:$socket", '--admin-listen', '127.0.0.1:0', '--ask-connections', 0 ])->wait_ready;
my %forged = map { ("X-Sessauth-$_" => 'forged', "X_Sessauth_$_" => 'forged', "x-sessauth-\L$_" => 'forged') } qw(Tenant User Session Epoch);

subtest 'nginx' => sub {
	my $config = slurp_file("$tools/nginx.conf");
	my %recipe = $config =~ /^\t?# recipe: (\w+)\n(.*?)^\t?# end of recipe/msg;
	my $document = slurp_file('doc/recipes.md') =~ s/^\s+//mgr;
	for my $part (sort keys %recipe)
	{
		(my $text = $recipe{$part}) =~ s/^\s+//mg;
		$text =~ s{\@gate\@}{/run/sessauth/gate.sock};
		$text =~ s{\@application\@}{127.0.0.1:3000};
		ok(index($document, $text) >= 0, "doc/recipes.md shows the part of \"$part\" that is tested here");
	}

	my $dir = private_dir();
	my %at  = (gate => $socket, listen => '127.0.0.1:' . free_port(), application => '127.0.0.1:' . free_port());
	$config =~ s/\@(\w+)\@/$at{$1}/g;
	open my $file, '>', "$dir/nginx.conf" or die $!;
	print $file "daemon off; pid $dir/pid; error_log $dir/error.log;\nevents {}\nhttp {\naccess_log off;\n",
	  (map { "${_}_temp_path $dir/$_;\n" } qw(client_body proxy fastcgi uwsgi scgi)), $config, "}\n";
	close $file;
	my $nginx = Sessauth::Process->start('nginx', [ 'nginx', '-c', "$dir/nginx.conf", '-p', $dir, '-e', "$dir/error.log" ]);
	my $get = sub {
		my ($token, %headers) = @_;
		$headers{Authorization} = "Bearer $token" if defined $token;
		return HTTP::Tiny->new->get("http://$at{listen}/some/path?x=1", { headers => \%headers });
	};
	poll_until('nginx', sub { die $nginx->log_contents if defined $nginx->ended; $get->()->{status} == 401 });

	my %login = login('acme', "\x{e4}lice b");
	my $told  = "tenant=acme user=%C3%A4lice%20b session=$login{session_id} epoch=$login{epoch} uri=/some/path?x=1\n";
	is($get->($login{access_token})->{content}, $told, 'the application is told who it is');
	is($get->($login{access_token}, %forged)->{content}, $told, 'and nothing else, whatever the client says of itself');
	my $refused = $get->(undef, %forged);
	is($refused->{status}, 401, 'without a token nothing gets through');
	like($refused->{headers}{'www-authenticate'}, qr/^Bearer/, 'the challenge does');
	is($get->('nonsense', %forged)->{status}, 401, 'nor with nonsense');
	is(HTTP::Tiny->new->get("http://$at{listen}/sessauth")->{status}, 404, 'the gate itself cannot be reached');
	value($app, 'SELECT sessauth.revoke_session(?, ?)', 'acme', $login{session_id});
	poll_until('the revocation', sub { $get->($login{access_token})->{status} == 401 });
	pass('a revoked session is refused');

	my %other = login('acme', 'bob');
	is($get->($other{access_token})->{status}, 200, 'another one is not');
	$redis->pause;
	poll_until('the lease to be over', sub { $get->($other{access_token})->{status} != 200 });
	my $unsure = $get->($other{access_token}, %forged);
	is($unsure->{status}, 503, 'when the gate cannot tell, nginx says so, and logs nobody out');
	is($unsure->{headers}{'retry-after'}, 1, 'and when to try again');
	$redis->continue;
	$gate->wait_auth($other{access_token}, 200);
	$nginx->stop;
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
		my %login   = map { $_ => { login(/carol/ ? 'globex' : 'acme', /^(\w+)/) } } 'alice 1', 'alice 2', 'bob', 'carol', 'dave';
		my %client  = map { $_ => connect_socket($service, $login{$_}{access_token}) } keys %login;
		for my $name (sort keys %client)
		{
			poll_until("$name to be connected", sub { $client{$name}->log_contents =~ /^message .*"session":"$login{$name}{session_id}"/m });
		}
		my $refused = connect_socket($service, 'nonsense');
		poll_until('the refusal', sub { $refused->log_contents =~ /^refused 401$/m });
		pass('nonsense is refused at the upgrade');

		closes('a session', $client{'alice 1'}, sub { value($app, 'SELECT sessauth.revoke_session(?, ?)', 'acme', $login{'alice 1'}{session_id}) });
		my %refreshed = %{ row($app, 'SELECT * FROM sessauth.refresh_session(?)', $login{'alice 2'}{refresh_token}) };
		is($refreshed{outcome}, 'ok', 'another session of the user is refreshed');
		$gate->wait_auth($refreshed{access_token}, 200);
		is_deeply([ grep { $client{$_}->log_contents =~ /closed/ } sort keys %client ], ['alice 1'], 'which closes nothing');
		closes('a user', $client{'alice 2'}, sub { value($app, 'SELECT sessauth.revoke_user(?, ?)', 'acme', 'alice') });
		closes('a tenant', $client{carol}, sub { value($app, 'SELECT sessauth.revoke_tenant(?)', 'globex') });
		is_deeply([ grep { $client{$_}->log_contents =~ /closed/ } sort keys %client ], [ 'alice 1', 'alice 2', 'carol' ], 'and nobody else is closed');
		$_->stop for values %client;
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

sub start_service
{
	my ($name) = @_;
	my ($admin) = $gate->log_contents =~ m{administration listening on (\S+)};
	my $service = Sessauth::Process->start($name, [ 'node', "$tools/$name.mjs" ], GATE_URL => $gate->url, GATE_ADMIN_URL => $admin);
	$service->{url} = poll_until("$name to listen", sub {
		die $service->log_contents if defined $service->ended;
		return $service->log_contents =~ m{listening on (\S+)} ? $1 : 0;
	});
	return $service;
}

sub connect_socket
{
	my ($service, $token) = @_;
	return Sessauth::Process->start('client' . ++$ledger->{clients}, [ 'node', "$tools/websocket_client.mjs", $service->{url}, $token ]);
}

sub closes
{
	my ($what, $client, $revoke) = @_;
	my $begun = now_ms();
	$revoke->();
	poll_until("$what to be closed", sub { $client->log_contents =~ /^closed 4401$/m });
	pass("$what that is revoked is closed");
	note(sprintf 'after %.0f ms', now_ms() - $begun);
	return;
}
