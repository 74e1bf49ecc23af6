# wake.t
#		A commit wakes the worker, also while it is busy: no revocation has to wait
#		for the next heartbeat, which is a minute away here.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $ledger = new_ledger('wake', config => "sessauth.heartbeat_interval = '60s'\nsessauth.max_lease = '1h'");
my $redis  = Sessauth::Redis->start_server;
my ($dba, $app) = ($ledger->dbh, $ledger->dbh('app'));
value($dba, 'SELECT sessauth.create_signing_key()');
value($dba, 'SELECT sessauth.create_tenant(?)', 'acme');
value($dba, 'SELECT sessauth.add_mirror(?, ?)', 'main', $redis->url);
poll_until('the mirror to stream', sub { value($dba, 'SELECT state FROM sessauth.mirrors') eq 'streaming' });

# The login's keys are on their way to Redis when the revocation commits.
my $arrived = 0;
for my $i (1 .. 100)
{
	value($app, 'SELECT sessauth.issue_session(?, ?)', 'acme', "user$i");
	value($app, 'SELECT sessauth.revoke_user(?, ?)',   'acme', "user$i");
	$arrived++ if eval {
		poll_until("revocation $i in the mirror", sub { ($redis->hash('sessauth:mirror')->{n} // 0) >= $i }, 20);
	};
	last if $arrived < $i;
}
is($arrived, 100, 'every revocation reached the mirror before the next heartbeat');

# The commit of a change that no function made.
$dba->do(q{UPDATE sessauth.tenant SET epoch = epoch + 1 WHERE tenant_id = 'acme'});
ok(poll_until('the revocation of the tenant in the mirror', sub { $redis->hash('sessauth:mirror')->{n} == 101 }, 20),
	'plain DML wakes the worker, too');

done_testing;
