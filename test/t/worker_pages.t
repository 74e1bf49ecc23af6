# worker_pages.t
#		The worker repeats each thousand revocations of the stream as a page, by doc/protocol.md, section 2.

use strict;
use warnings;

use FindBin;
use lib $FindBin::Bin;
use MIME::Base64 ();
use Sessauth;
use Test::More;
use Worker;

my ($ledger, $dba, $redis) = worker_ledger('pages');
my $key = link_key($dba);
my $g   = generation($dba);

# Half of the first page, by several transactions; the other half comes after another worker has taken over.
revoke_users(1, 300);
revoke_users(301, 500);
my ($worker) = map { $_->{pid} } rows($dba, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sessauth worker'});
kill 'TERM', $worker or die "kill: $!";
poll_until('another worker', sub {
	my ($next) = map { $_->{pid} } rows($dba, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'sessauth worker'});
	$next && $next != $worker });
revoke_users(501, 999);
is(pages(), '', 'there is no page before there are a thousand');
my $session = login($dba, 'alice');
value($dba, q{SELECT sessauth.revoke_session('acme', ?)}, $session->{session_id});
wait_published($dba, $redis);
is(pages(), '1', 'then there is');
check_page(1);

revoke_users(1001, 3100);
is(pages(), '1 1001 2001', 'a page for each full thousand');
check_page($_) for 1, 1001, 2001;

# ---- what is lost ----

$redis->command('FLUSHALL');
wait_published($dba, $redis);
is(pages(), '1 1001 2001', 'after FLUSHALL they come back with the stream');
check_page($_) for 1, 2001;

$redis->command('DEL', page(1001));
my $gate = start_gate($ledger, $redis)->wait_ready;
is($gate->auth($session->{access_token}), 401, 'a node joins without one of them');
revoke_users(3101, 4000);
is(pages(), '1 2001 3001', 'and the next one is written nevertheless');

# ---- when nobody needs them ----

my $latest = value($dba, q{SELECT floor(extract(epoch FROM max(until)) * 1000)::bigint FROM sessauth.revocation_log WHERE n <= 1000});
is($redis->command('PEXPIRETIME', page(1)), $latest + 60_000, 'a page expires a minute after the last revocation in it');
value($dba, q{SELECT sessauth.create_tenant('slow', '{"access_ttl": 7200}')});
value($dba, q{SELECT sessauth.revoke_user('slow', 'bob')});
revoke_users(4002, 6000);
$latest = value($dba, q{SELECT floor(extract(epoch FROM until) * 1000)::bigint FROM sessauth.revocation_log WHERE tenant_id = 'slow'});
is(join(' ', map { $redis->command('PEXPIRETIME', page($_)) - $latest } 4001, 5001), '60000 60000',
	'no earlier than the last revocation before it: the stream begins there, too');

done_testing();

sub revoke_users
{
	my ($from, $to) = @_;
	$ledger->dbh->do(qq{SELECT sessauth.revoke_user('acme', 'user' || i) FROM generate_series($from, $to) i});
	wait_published($dba, $redis);
	return;
}

sub page { return "sessauth:page:$g:$_[0]"; }

# The first numbers of the pages that there are.
sub pages
{
	return join ' ', sort { $a <=> $b } map { /^sessauth:page:\Q$g\E:(\d+)$/ ? $1 : "a strange one, $_," } @{ $redis->command('KEYS', 'sessauth:page:*') };
}

# It says what the ledger's log says, with a MAC, and leads to the entry that it ends with.
sub check_page
{
	my ($first) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $page = $redis->hash(page($first));
	is($page->{m}, mac($key, 'sessauth/1/page', page($first), $page->{b}), "page $first is authentic");
	my @fields = unpack '(N/a*)*', $page->{b};
	my @said;
	push @said, join ' ', splice @fields, 0, 9 while @fields;
	my @log = map { $_->{entry} } rows($dba, q{
		SELECT concat_ws(' ', kind, tenant_id, user_id, coalesce(session_id::text, ''), coalesce(kid, ''), coalesce(epoch, 0), event_id,
			floor(extract(epoch FROM at) * 1000)::bigint, floor(extract(epoch FROM until) * 1000)::bigint) AS entry
		FROM sessauth.revocation_log WHERE generation = ? AND n BETWEEN ? AND ? ORDER BY n}, $g, $first, $first + 999);
	is_deeply(\@said, \@log, 'with what the log says');
	my ($last) = grep { $_->{n} == $first + 999 } revocations($redis);
	is($page->{id}, $last->{id}, 'and leads to its end in the stream');
	return;
}
