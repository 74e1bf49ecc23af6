# Story.pm
#		One story from the first login to the last forced logout, over SQL and HTTP.
#
# `make demo` tells it to a person, test/t/story.t checks it; both play these
# same steps, so that what is shown is what is tested. Nothing here sleeps or
# judges a duration: a step asks until it has an answer, and how long that took is a fact to tell.

package Sessauth::Story;

use strict;
use warnings;

use Sessauth::Process qw(now_ms poll_until);
use Time::HiRes ();

our @chapters = qw(
  open_house two_devices forced_out back_again late_node redis_pauses
  one_device stolen_token tenant_out light_load look_back);

# new(%scene). The scene: dba and app, DBI connections with superuser and with
# service access; redis, a Sessauth::Redis; start_gate, which returns a running
# Sessauth::Gate for a node name; teller, see below; requests, for light_load.
#
# The teller has chapter($title), sql($who, $statement, $answer, $ms),
# note($text), table($columns, $rows), and two that say whether a promise was kept:
# check($ok, $text) and http($ok, $what, $expected, [[node, status, reason]...], $ms).
sub new
{
	my ($class, %scene) = @_;
	return bless { requests => 2000, gates => [], %scene }, $class;
}

sub play
{
	my ($self) = @_;
	$self->$_ for @chapters;
	return;
}

# ---- the chapters ----

sub open_house
{
	my ($self) = @_;
	$self->chapter('Set up: two tenants, a signing key, a mirror, two nodes');
	$self->sql(dba => q{SELECT sessauth.create_signing_key()});
	$self->sql(dba => q{SELECT sessauth.create_tenant(?)}, 'acme');
	$self->sql(dba => q{SELECT sessauth.create_tenant(?)}, 'globex');
	$self->sql(dba => q{SELECT sessauth.add_mirror(?, ?)}, 'main', $self->{redis}->url);
	my $start = now_ms();
	$self->{gates} = [ map { $self->{start_gate}->($_) } qw(a b) ];
	$_->wait_ready for @{ $self->{gates} };
	$self->check(1, sprintf('both nodes started and are ready after %s', ms(now_ms() - $start)));
	return;
}

sub two_devices
{
	my ($self) = @_;
	$self->chapter('Alice logs in on her PC and on her phone');
	$self->{pc}    = $self->login('acme', 'alice', 'PC');
	$self->{phone} = $self->login('acme', 'alice', 'phone');
	$self->everywhere('her PC',   $self->{pc},    200);
	$self->everywhere('her phone', $self->{phone}, 200);
	return;
}

sub forced_out
{
	my ($self) = @_;
	$self->chapter('An administrator forces Alice out');
	$self->note('From the moment that COMMIT is sent, every node is asked about every token, in turn and without a pause.');
	$self->revoke([ [ 'her PC', $self->{pc} ], [ 'her phone', $self->{phone} ] ],
		q{SELECT sessauth.revoke_user(?, ?, ?, ?)}, 'acme', 'alice', 'laptop lost', 'admin@acme');
	return;
}

sub back_again
{
	my ($self) = @_;
	$self->chapter('Alice logs in again');
	@$self{qw(old_pc old_phone)} = @$self{qw(pc phone)};
	$self->{pc} = $self->login('acme', 'alice', 'PC');
	$self->check($self->{pc}{epoch} > $self->{old_pc}{epoch},
		"her new session has epoch $self->{pc}{epoch}, the old ones had $self->{old_pc}{epoch}");
	$self->everywhere('her PC, new token',$self->{pc},        200);
	$self->everywhere('her PC, old token',$self->{old_pc},    401);
	$self->everywhere('her phone, old token', $self->{old_phone}, 401);
	return;
}

sub late_node
{
	my ($self) = @_;
	$self->chapter('A third node is started, after the revocation');
	my $start = now_ms();
	my $gate  = $self->{start_gate}->('c');
	my (%ready, %old);
	poll_until(
		'node c to be ready',
		sub {
			# In this order: what it says to the old token after it was ready counts, too.
			my $status = $gate->get('/readyz')->{status};
			$ready{$status}++;
			$old{ $gate->auth($self->{old_pc}{access_token}) }++;
			return $status == 200;
		});
	$self->note(sprintf 'from its first moment on: /readyz %s; the old token %s', counted(\%ready), counted(\%old));
	$self->check(!$old{200} && $old{401}, sprintf('node c was ready after %s and never said 200 to the old token', ms(now_ms() - $start)));
	push @{ $self->{gates} }, $gate;
	$self->everywhere('the old token', $self->{old_pc}, 401);
	$self->everywhere('the new token',    $self->{pc},     200);
	return;
}

sub redis_pauses
{
	my ($self) = @_;
	$self->chapter('Redis stops answering (SIGSTOP)');
	$self->{carol} = $self->login('acme', 'carol', 'tablet');
	$self->everywhere('Carol', $self->{carol}, 200);

	$self->{redis}->pause;
	my $paused = now_ms();
	$self->note('redis-server is paused');
	$self->sql(app => q{SELECT sessauth.revoke_user(?, ?, ?, ?)}, 'acme', 'carol', 'contract ended', 'admin@acme');
	$self->note('the revocation was committed without waiting for Redis');

	my (%alice, %carol, %refused);
	poll_until(
		'all nodes to refuse a user of whose revocation Redis has not told them',
		sub {
			for my $gate (@{ $self->{gates} })
			{
				$alice{ $gate->auth($self->{pc}{access_token}) }++;
				my $status = $gate->auth($self->{carol}{access_token});
				$carol{$status}++;
				$refused{ $gate->name } //= now_ms() if $status == 401;
				$self->check(0, $gate->name . ' let Carol in again') if $status == 200 && $refused{ $gate->name };
			}
			return keys %refused == @{ $self->{gates} };
		});
	my ($last) = sort { $b <=> $a } values %refused;
	$self->note(sprintf "Alice's token meanwhile: %s; Carol's: %s, the last node refused it %s after the pause",
		counted(\%alice), counted(\%carol), ms($last - $paused));
	$self->check("@{[ keys %alice ]}" eq '200', 'no request was refused for it: the nodes follow PostgreSQL as well');

	my $newcomer = $self->{start_gate}->('d');
	my @said = map { $newcomer->auth($_->{access_token}) } @$self{qw(pc carol)};
	$self->check("@said" eq '200 401', "a node started now serves as well, and knows of Carol (said @said)");
	push @{ $self->{gates} }, $newcomer;

	$self->{redis}->continue;
	my $resumed = now_ms();
	$self->note('redis-server goes on (SIGCONT)');
	my $steady;
	%carol = ();
	# An answer to a question from before the pause gives a lease that is nearly over: recovered is who stays so for some beats.
	poll_until(
		'all nodes to recover by themselves',
		sub {
			my $recovered = 0;
			for my $gate (@{ $self->{gates} })
			{
				my $status = $gate->auth($self->{carol}{access_token});
				$carol{$status}++;
				$recovered++ if $gate->auth($self->{pc}{access_token}) == 200 && $status == 401;
			}
			$steady = $recovered == @{ $self->{gates} } ? $steady // now_ms() : undef;
			return $steady && now_ms() - $steady > 500;
		});
	$self->check(!$carol{200}, sprintf "all nodes recovered %s after SIGCONT; Carol's token meanwhile: %s", ms($steady - $resumed), counted(\%carol));
	$self->everywhere('Alice', $self->{pc},    200);
	$self->everywhere('Carol', $self->{carol}, 401);
	return;
}

sub one_device
{
	my ($self) = @_;
	$self->chapter('One device is logged out');
	$self->{phone} = $self->login('acme', 'alice', 'phone');
	$self->everywhere('the phone', $self->{phone}, 200);
	$self->revoke([ [ 'the phone', $self->{phone} ] ],
		q{SELECT sessauth.revoke_session(?, ?, ?, ?)}, 'acme', $self->{phone}{session_id}, 'sold the phone', 'alice');
	$self->everywhere('the PC', $self->{pc}, 200);
	return;
}

sub stolen_token
{
	my ($self) = @_;
	$self->chapter('A stolen refresh token is replayed');
	my $stolen = $self->{pc}{refresh_token};
	$self->note('Mallory has copied the refresh token of the PC, which the PC goes on using:');
	my $first  = $self->sql(app => q{SELECT * FROM sessauth.refresh_session(?)}, $stolen);
	my $second = $self->sql(app => q{SELECT * FROM sessauth.refresh_session(?)}, $first->{refresh_token});
	$self->check("$first->{outcome} $second->{outcome}" eq 'ok ok', 'the PC has refreshed twice');
	$self->everywhere('the PC, newest', $second, 200);

	$self->note('Mallory tries the copy:');
	my $start  = now_ms();
	my $replay = $self->sql(app => q{SELECT * FROM sessauth.refresh_session(?, ?)}, $stolen, '203.0.113.66');
	$self->check($replay->{outcome} eq 'reused' && !defined $replay->{access_token}, 'the theft is noticed, and Mallory gets nothing');
	my $took = $self->until_refused([ $self->{pc}, $first, $second ], $start);
	$self->check(1, sprintf('every token of that session is refused on all nodes, %s after the replay', ms($took)));
	my $next = $self->sql(app => q{SELECT * FROM sessauth.refresh_session(?)}, $second->{refresh_token});
	$self->check($next->{outcome} eq 'revoked', 'its refresh token is worth nothing, either');
	return;
}

sub tenant_out
{
	my ($self) = @_;
	$self->chapter('A whole tenant is logged out, another one is not');
	my ($alice, $bob) = map { $self->login('acme', $_, 'PC') } qw(alice bob);
	my $other = $self->login('globex', 'alice', 'PC');
	$self->everywhere('acme, Alice',   $alice, 200);
	$self->everywhere('acme, Bob',     $bob,   200);
	$self->everywhere('globex, Alice', $other, 200);
	$self->revoke([ [ 'acme, Alice', $alice ], [ 'acme, Bob', $bob ] ], q{SELECT sessauth.revoke_tenant(?, ?, ?)}, 'acme', 'incident 42', 'security@acme');
	$self->everywhere('globex, Alice', $other, 200);
	$self->{globex} = $other;
	return;
}

sub light_load
{
	my ($self) = @_;
	$self->chapter('Latency of /auth under light load');
	my @tokens = map { $_->{access_token} } $self->{globex},
	  map { $self->{app}->selectrow_hashref(q{SELECT * FROM sessauth.issue_session('globex', ?, 'load')}, undef, "user$_") } 1 .. 19;
	my @gates = @{ $self->{gates} }[ 0, 1 ];

	# A request every 4 milliseconds, to the nodes in turn, over kept-alive connections.
	my ($interval, $wrong, @took) = (0.004, 0);
	my $next = now_ms();
	for my $i (0 .. $self->{requests} - 1)
	{
		my $wait = $next - now_ms();
		Time::HiRes::sleep($wait / 1000) if $wait > 0;
		$next += 1000 * $interval;
		my $start = now_ms();
		$wrong++ unless $gates[ $i % 2 ]->auth($tokens[ $i % @tokens ]) == 200;
		push @took, now_ms() - $start;
	}
	@took = sort { $a <=> $b } @took;
	my ($p50, $p95, $p99) = map { $took[ int($_ / 100 * $#took + 0.5) ] } 50, 95, 99;
	$self->{p99} = $p99;
	$self->note(sprintf '%d requests, %d tokens, 2 nodes, one every 4 ms: p50 %s  p95 %s  p99 %s  max %s (the bar for p99: 15 ms)',
		scalar @took, scalar @tokens, map { ms($_) } $p50, $p95, $p99, $took[-1]);
	$self->check(!$wrong, 'every one of them was answered 200');
	return;
}

sub look_back
{
	my ($self) = @_;
	$self->chapter('Afterwards: who logged whom out, and why');
	my $rows = $self->{dba}->selectall_arrayref(q{
		SELECT kind, tenant_id, coalesce(user_id, '') AS user_id, coalesce(actor, '') AS actor, coalesce(reason, '') AS reason
		FROM sessauth.history WHERE kind IN ('user_revoked', 'session_revoked', 'tenant_revoked', 'session_ended', 'refresh_reused') ORDER BY event_id},
		{ Slice => {} });
	$self->{teller}->table([qw(kind tenant_id user_id actor reason)], $rows);
	my %reasons = map { $_->{reason} => 1 } @$rows;
	$self->check(!(grep { !$reasons{$_} } 'laptop lost', 'contract ended', 'sold the phone', 'incident 42'),
		'every forced logout is in the history, with who asked for it and why');
	return;
}

# ---- the steps ----

sub chapter { my ($self, $title) = @_; $self->{teller}->chapter($title); return; }
sub note    { my ($self, $text)  = @_; $self->{teller}->note($text);     return; }

sub check { my ($self, $ok, $text) = @_; $self->{teller}->check($ok, $text); return $ok; }

# One statement with its parameters, committed by itself; returns its row.
sub sql
{
	my ($self, $who, $statement, @parameters) = @_;
	my $start = now_ms();
	my $row   = $self->{$who}->selectrow_hashref($statement, undef, @parameters);
	$self->{teller}->sql($who, shown($statement, @parameters), answer($row), now_ms() - $start);
	return $row;
}

# BEGIN or COMMIT.
sub sql_do
{
	my ($self, $who, $statement) = @_;
	my $start = now_ms();
	$statement eq 'BEGIN' ? $self->{$who}->begin_work : $self->{$who}->commit;
	$self->{teller}->sql($who, $statement, '', now_ms() - $start);
	return;
}

sub login
{
	my ($self, @who) = @_;
	my $row = $self->sql(app => q{SELECT * FROM sessauth.issue_session(?, ?, ?)}, @who);
	$self->check(0, "login of @who: $row->{outcome}") if $row->{outcome} ne 'ok';
	return $row;
}

# Asks every node about a session's token, and expects the same answer from all.
sub everywhere
{
	my ($self, $what, $session, $expected) = @_;
	my $start = now_ms();
	my @answers;
	for my $gate (@{ $self->{gates} })
	{
		my $response = $gate->get('/auth', $session->{access_token});
		push @answers, [ $gate->name, $response->{status}, why($response) ];
	}
	my $as_expected = grep { $_->[1] == $expected } @answers;
	$self->{teller}->http($as_expected == @answers, "/auth for $what", $expected, \@answers, now_ms() - $start);
	return;
}

# A revocation in a transaction of its own, with the time from COMMIT to the
# last refusal: counted from before COMMIT is sent, all nodes asked in turn without a pause.
sub revoke
{
	my ($self, $named_sessions, $statement, @parameters) = @_;
	my @sessions = map { $_->[1] } @$named_sessions;
	$self->sql_do(app => 'BEGIN');
	$self->sql(app => $statement, @parameters);
	my $start = now_ms();
	$self->sql_do(app => 'COMMIT');
	my $took = $self->until_refused(\@sessions, $start);
	$self->check(1, sprintf('every node refuses %s; the last one began %s after COMMIT was sent',
		@sessions > 1 ? 'every one of these tokens' : 'this token', ms($took)));
	push @{ $self->{propagation} }, $took;
	$self->everywhere(@$_, 401) for @$named_sessions;
	return;
}

# Asks until every node has refused every session's token; returns the
# milliseconds from $start to the last first refusal.
sub until_refused
{
	my ($self, $sessions, $start) = @_;
	my @pending = map { my $gate = $_; map { [ $gate, $_->{access_token} ] } @$sessions } @{ $self->{gates} };
	my $last;
	my $given_up = now_ms() + 1000 * $Sessauth::Process::deadline;
	while (@pending)
	{
		@pending = grep {
			my $refused = $_->[0]->auth($_->[1]) == 401;
			$last = now_ms() if $refused;
			!$refused;
		} @pending;
		die 'gave up waiting for ' . $pending[0][0]->name . " to refuse a revoked token\n" if now_ms() > $given_up;
	}
	return $last - $start;
}

# ---- how things are written ----

sub ms
{
	my ($ms) = @_;
	return $ms < 100 ? sprintf('%.1f ms', $ms) : $ms < 10_000 ? sprintf('%.0f ms', $ms) : sprintf('%.1f s', $ms / 1000);
}

sub counted
{
	my ($counts) = @_;
	return join ', ', map { $counts->{$_} == 1 ? "$_ once" : "$_ $counts->{$_} times" } sort keys %$counts;
}

# Nobody reads a whole token, and nobody should see one.
sub short
{
	my ($value) = @_;
	return $value if $value !~ /^(?:eyJ|sar_)/ || length $value < 40;
	return substr($value, 0, 4) . '...' . substr($value, -6);
}

sub shown
{
	my ($statement, @parameters) = @_;
	$statement =~ s/\?/my $value = short(shift @parameters); "'" . $value =~ s{'}{''}gr . "'"/ge;
	return $statement;
}

sub answer
{
	my ($row) = @_;
	my @columns = grep { defined $row->{$_} && $row->{$_} ne '' && !/_at$|^evicted$/ } sort { ($b eq 'outcome') <=> ($a eq 'outcome') || $a cmp $b } keys %$row;
	my $answer = join '  ', map { @columns == 1 ? short($row->{$_}) : "$_ " . short($row->{$_}) } @columns;
	return length $answer > 120 ? substr($answer, 0, 117) . '...' : $answer;
}

sub why
{
	my ($response) = @_;
	my $header = $response->{headers}{'www-authenticate'} // '';
	return $header =~ /error_description="([^"]*)"/ ? $1 : '';
}

1;
