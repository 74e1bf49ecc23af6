# Worker.pm
#		What the tests of the worker share: a ledger with a mirror, the stream as
#		nodes see it, and a node of our own that asks for leases.
#
# Everything about the protocol is written here a second time, from doc/protocol.md and not from
# src/core, so that the two check each other.

package Worker;

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use Exporter 'import';
use MIME::Base64 qw(encode_base64url);
use Sessauth;
use Test::More;

our @EXPORT = qw(worker_ledger login mirror_row wait_streaming stream revocations beats wait_revocation
  check_stream check_log log_rows wait_published link_key mac new_node wait_log generation psql_background pause_worker);

# A ledger with a tenant "acme", a signing key, and (unless mirror => 0) a Redis server as its
# mirror "main" that is already streaming. Returns ledger, dba connection, Redis.
sub worker_ledger
{
	my ($name, %options) = @_;
	my $ledger = new_ledger($name, %options);
	my $dba    = $ledger->dbh;
	$dba->do(q{SELECT sessauth.create_signing_key()});
	$dba->do(q{SELECT sessauth.create_tenant('acme')});
	return ($ledger, $dba) if exists $options{mirror} && !$options{mirror};
	my $redis = Sessauth::Redis->start_server(%{ $options{redis} // {} });
	$dba->do(q{SELECT sessauth.add_mirror('main', ?)}, undef, $redis->url);
	wait_streaming($dba);
	return ($ledger, $dba, $redis);
}

sub login
{
	my ($dba, $user, $tenant) = @_;
	return row($dba, 'SELECT * FROM sessauth.issue_session(?, ?)', $tenant // 'acme', $user);
}

sub mirror_row
{
	my ($dba, $name) = @_;
	return row($dba, 'SELECT * FROM sessauth.mirrors WHERE name = ?', $name // 'main');
}

sub wait_streaming
{
	my ($dba, $name) = @_;
	return poll_until('the mirror ' . ($name // 'main') . ' to be streaming',
		sub { my $row = mirror_row($dba, $name); $row && $row->{state} eq 'streaming' && $row });
}

sub generation { return value($_[0], 'SELECT generation FROM sessauth.ledger_state'); }

sub link_key { return value($_[0], 'SELECT sessauth.link_key()'); }

# mac(key, label, fields...)
sub mac
{
	my ($key, @fields) = @_;
	return encode_base64url(hmac_sha256(join('', map { my $f = $_; utf8::encode($f) if utf8::is_utf8($f); pack('N', length $f) . $f } @fields), $key));
}

# The stream: a list of hashes, with the id of Redis as "id".
sub stream
{
	my ($redis) = @_;
	return map { my ($id, $fields) = @$_; +{ @$fields, id => $id } } @{ $redis->command('XRANGE', 'sessauth:revocations', '-', '+') };
}

sub revocations { return grep { $_->{k} ne 'beat' } stream($_[0]); }
sub beats       { return grep { $_->{k} eq 'beat' } stream($_[0]); }

# The entry of an event, once it is in the stream.
sub wait_revocation
{
	my ($redis, $event_id) = @_;
	return poll_until("event $event_id in the stream",
		sub { my ($found) = grep { defined $_->{eid} && $_->{eid} == $event_id } eval { revocations($redis) }; $found });
}

# Every revocation that the ledger has numbered is in the stream.
sub wait_published
{
	my ($dba, $redis) = @_;
	poll_until('everything to be published', sub {
		my ($n, $open) = $dba->selectrow_array(q{
			SELECT s.n, (SELECT count(*) FROM sessauth.event e WHERE e.revokes IS NOT NULL
				AND (e.xid >= pg_snapshot_xmax(s.seen) OR e.xid IN (SELECT pg_snapshot_xip(s.seen))))
			FROM sessauth.ledger_state s});
		my $mirror = eval { $redis->hash('sessauth:mirror') } // {};
		return $open == 0 && ($mirror->{n} // -1) == $n && $mirror->{generation} eq generation($dba);
	});
	return;
}

sub log_rows
{
	my ($dba) = @_;
	return rows($dba, q{SELECT l.n, l.event_id FROM sessauth.revocation_log l JOIN sessauth.ledger_state USING (generation) ORDER BY l.n});
}

# Each revocation event has exactly one number, and numbers have no holes.
sub check_log
{
	my ($dba, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @log = log_rows($dba);
	is_deeply([ map { $_->{n} } @log ], [ 1 .. @log ], "$what: numbers are dense");
	is_deeply([ sort { $a <=> $b } map { $_->{event_id} } @log ],
		[ map { $_->{event_id} } rows($dba, 'SELECT event_id FROM sessauth.event WHERE revokes IS NOT NULL ORDER BY 1') ],
		"$what: every revocation is in the log exactly once");
	return;
}

# What a node demands of the stream: authentic, of one generation, dense from low to n.
sub check_stream
{
	my ($dba, $redis, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $key    = link_key($dba);
	my $g      = generation($dba);
	my @stream = grep { $_->{g} eq $g } stream($redis);
	my $forged = 0;
	for my $e (@stream)
	{
		my @said = $e->{k} eq 'beat' ? ('sessauth/1/beat', 'sessauth:revocations', @$e{qw(g n b low at)})
		  : ('sessauth/1/entry', 'sessauth:revocations', @$e{qw(g n k tid uid sid kid epoch eid at until)});
		$forged++ unless mac($key, @said) eq $e->{m};
	}
	is($forged, 0, "$what: every entry is authentic");
	my ($beat) = reverse grep { $_->{k} eq 'beat' } @stream;
	my @n = map { $_->{n} } grep { $_->{k} ne 'beat' && $_->{n} >= $beat->{low} && $_->{n} <= $beat->{n} } @stream;
	is_deeply(\@n, [ $beat->{low} .. $beat->{n} ], "$what: the stream is whole from low to n");
	return;
}

# A line in the server's log after a position; returns the log from there.
sub wait_log
{
	my ($ledger, $pattern, $from) = @_;
	return poll_until("the log to say $pattern",
		sub { my $log = substr(slurp_file($ledger->logfile), $from // 0); $log =~ $pattern && $log });
}

# Stops the worker between two transactions, so that it holds up nobody; returns its pid, for SIGCONT.
sub pause_worker
{
	my ($dba) = @_;
	my $pid = value($dba, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sessauth worker' AND datname = current_database()});
	poll_until('the worker to stop where it holds nothing', sub {
		kill 'STOP', $pid or die "kill: $!";
		return 1 if !value($dba, 'SELECT count(*) FROM pg_locks WHERE pid = ?', $pid) && !value($dba, 'SELECT backend_xmin FROM pg_stat_activity WHERE pid = ?', $pid);
		kill 'CONT', $pid;
		return 0 });
	return $pid;
}

# ---- a node ----

sub new_node
{
	my ($redis, $key, %options) = @_;
	return Worker::Node->new($redis, $key, %options);
}

package Worker::Node;

use Sessauth;

sub new
{
	my ($class, $redis, $key, %options) = @_;
	return bless {
		redis => $redis, key => $key, id => ($options{name} // 'node') . '/' . random_hex(16),
		max_staleness => $options{max_staleness} // 5000, g => '-', n => 0 }, $class;
}

# Writes a new nonce. forge => 1: with a MAC of another key.
sub ask
{
	my ($self, %options) = @_;
	$self->{nonce} = random_hex(16);
	my $mac = Worker::mac($options{forge} ? 'x' x 32 : $self->{key},
		'sessauth/1/nonce', 'sessauth:nodes', @$self{qw(id nonce max_staleness g n)});
	$self->{redis}->command('HSET', 'sessauth:nodes', $self->{id}, join ' ', @$self{qw(nonce max_staleness g n)}, $mac);
	return $self;
}

# The authentic answer to the last nonce as a hash, or undef.
sub answer
{
	my ($self) = @_;
	my $line = eval { $self->{redis}->command('HGET', 'sessauth:answers', $self->{id}) } // return undef;
	my %answer;
	@answer{qw(nonce g n low b at m)} = split / /, $line;
	die "a forged answer: $line" unless $answer{m} eq Worker::mac($self->{key},
		'sessauth/1/answer', 'sessauth:answers', $self->{id}, @answer{qw(nonce g n low b at)});
	return $answer{nonce} eq $self->{nonce} ? \%answer : undef;
}

sub wait_answer
{
	my ($self) = @_;
	return poll_until('an answer to the node', sub { $self->answer });
}

1;
