# node_keys.t
#		Keys from a standby may be old, so a gate does not judge by them.

use strict;
use warnings;

use Sessauth;
use Test::More;

my $primary = new_ledger('primary', init => { allows_streaming => 1 });
value($primary->dbh, 'SELECT sessauth.create_signing_key()');
$primary->backup('base');
my $standby = Sessauth::Ledger->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $redis = Sessauth::Redis->start_server;
my $gate  = start_gate($standby, $redis);
poll_until('the gate to complain', sub { $gate->log_contents =~ /standby/ });
like($gate->log_contents, qr/target_session_attrs/, 'a gate whose PostgreSQL is a standby says what to do');
like($gate->get('/readyz')->{content}, qr/no keys yet/, 'and has no keys');
is($gate->get('/.well-known/jwks.json')->{status}, 503, 'nor publishes any');

$primary->stop('immediate');
$standby->promote;
poll_until('the keys', sub { $gate->log_contents =~ /the keys are up to date/ });
is($gate->get('/.well-known/jwks.json')->{status}, 200, 'once it is promoted, its keys are the keys');

done_testing;
