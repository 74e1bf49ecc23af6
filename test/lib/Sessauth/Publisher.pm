# Publisher.pm
#		Plays the worker for a gate, without PostgreSQL: publishes revocations and
#		beats, answers nonces, mints tokens; or the attacker, with another link key.
#
#	my $ledger = Sessauth::Publisher->new(redis => $redis, prefix => 'a:');
#	my $gate   = $ledger->start_gate(max_staleness => '1s');
#	$ledger->work until $gate->is_ready;			# one round: a beat, and every nonce is answered
#	$ledger->revoke(user => 'acme', 'alice', 7);
#
# Nothing happens by itself: a publisher that is not told to work is a worker that is gone. Its clock is the
# ledger's: it starts in 2020 and goes as fast as ours; move it with advance.

package Sessauth::Publisher;

use strict;
use warnings;

use Carp;
use Digest::SHA qw(hmac_sha256);
use Fcntl ();
use IPC::Open2 ();
use MIME::Base64 qw(encode_base64url);
use Sessauth::Gate;
use Sessauth::Process qw(now_ms poll_until private_dir random_hex);

my $start_of_2020 = 1_577_836_800_000;
my $default_sid   = '11111111-2222-4333-8444-555555555555';
my $count         = 0;

# Options: redis (a Sessauth::Redis), prefix, link_key (hex), g (generation).
sub new
{
	my ($class, %options) = @_;
	my $self = bless {
		prefix   => '',
		link_key => random_hex(32),
		g        => generation(),
		n        => 0,
		low      => 1,
		b        => 0,
		eid      => 0,
		offset   => $start_of_2020 - now_ms(),
		answered => {},
		dir      => private_dir(),
		%options }, $class;
	$self->{"${_}_key"} = "$self->{prefix}sessauth:$_" for qw(revocations nodes answers);
	my $program = ($ENV{TESTDIR} // '.') . '/build/tools/publisher';
	$self->{pid} = IPC::Open2::open2($self->{from}, $self->{to}, $program, $self->{link_key});
	return $self;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!);
	close $self->{to};
	close $self->{from};
	waitpid $self->{pid}, 0;
	return;
}

# A generation that nobody has used.
sub generation { return sprintf 'aaaaaaaa-0000-4000-8000-%012d', ++$count; }

# ---- the ledger's time ----

sub now_ms_of_ledger { return int(now_ms() + $_[0]->{offset}); }
sub now_s            { return int($_[0]->now_ms_of_ledger / 1000); }
sub advance          { my ($self, $seconds) = @_; $self->{offset} += 1000 * $seconds; return; }

# ---- tokens and keys ----

# A token of user => ..., with tenant, sid, epoch, tepoch, iat, exp, key, issuer and audience if
# given; else of tenant acme, epochs 1, valid for an hour from now.
sub token
{
	my ($self, %of) = @_;
	my $now = $self->now_s;
	return $self->_ask('token', $of{key} // 'main', $of{tenant} // 'acme', $of{user} // 'alice', $of{sid} // $default_sid,
		$of{epoch} // 1, $of{tepoch} // 1, $of{iat} // $now, $of{exp} // $now + 3600, $of{issuer} // 'sessauth', $of{audience} // 'sessauth');
}

sub kid { my ($self, $key) = @_; return $self->_ask('kid', $key // 'main'); }

# Files for a gate: the JWK set of these keys, and the link key.
sub write_jwks
{
	my ($self, @keys) = @_;
	my $jwks = join ',', map { $self->_ask('jwk', $_) } @keys ? @keys : 'main';
	return _write("$self->{dir}/jwks.json", "{\"keys\":[$jwks]}");
}

sub write_link_key
{
	my ($self) = @_;
	return _write("$self->{dir}/link.key", "$self->{link_key}\n");
}

# Where its gates find it.
sub url { my ($self) = @_; return $self->{redis}->url . ($self->{prefix} ? "?prefix=$self->{prefix}" : ''); }

# A gate that follows this publisher and knows the keys of these names (jwks, a list). Other options as for Sessauth::Gate.
sub start_gate
{
	my ($self, %options) = @_;
	my @more = @{ delete $options{arguments} // [] };
	my @keys = @{ delete $options{jwks} // ['main'] };
	return Sessauth::Gate->start_gate(
		redis         => $self->url,
		max_staleness => '1s',
		arguments     => [ '--jwks', $self->write_jwks(@keys), '--link-key-file', $self->write_link_key, @more ],
		%options);
}

# The same, once it is ready.
sub ready_gate
{
	my ($self, %options) = @_;
	my $gate = $self->start_gate(%options);
	poll_until('the gate to be ready', sub { $self->work; $gate->is_ready });
	return $gate;
}

# ---- the stream ----

# revoke(session => tenant, user, sid), (user => tenant, user, epoch), (tenant => tenant, epoch), (key => kid):
# the next number, in the stream. Returns the arguments of XADD, to be added again, changed or taken away.
sub revoke
{
	my ($self, @what) = @_;
	my $entry = $self->number(@what);
	$self->add($entry);
	return $entry;
}

# The same without the stream: it has a number now, and only that.
sub number
{
	my ($self, $kind, @of) = @_;
	my %is = (tid => '', uid => '', sid => '', kid => '', epoch => 0);
	my %names = (session => [qw(tid uid sid)], user => [qw(tid uid epoch)], tenant => [qw(tid epoch)], key => ['kid']);
	@is{ @{ $names{$kind} } } = @of;
	my $at = $self->now_ms_of_ledger;
	my $entry = [
		$self->_ask('entry', $self->{revocations_key}, $self->{g}, ++$self->{n}, $kind, @is{qw(tid uid sid kid epoch)},
			++$self->{eid}, $at, $at + 1000 * ($self->{remember} // 3600)) ];
	return $self->{entries}{ $self->{g} }{ $self->{n} } = $entry;
}

# Appends; an id may be given. Returns the id.
sub add
{
	my ($self, $entry, $id) = @_;
	return $self->{redis}->command('XADD', $self->{revocations_key}, $id // '*', @$entry);
}

sub beat
{
	my ($self) = @_;
	my $beat = [ $self->_ask('beat', @$self{qw(revocations_key g n)}, ++$self->{b}, $self->{low}, $self->now_ms_of_ledger) ];
	$self->add($beat);
	return $beat;
}

# The page with 1000 numbers from $first on: writes it, and returns its key. Of %changes are a key to write it to, its id ("the last entry
# of the stream"), its body and its MAC.
sub put_page
{
	my ($self, $first, %changes) = @_;
	my $key  = "$self->{prefix}sessauth:page:$self->{g}:$first";
	my $body = $changes{body} // join '', map {
		my %field = @{ $self->{entries}{ $self->{g} }{$_} };
		pack '(N/a*)9', @field{qw(k tid uid sid kid epoch eid at until)}
	} $first .. $first + 999;
	my $id  = $changes{id}  // $self->{redis}->command('XREVRANGE', $self->{revocations_key}, '+', '-', 'COUNT', 1)->[0][0];
	my $mac = $changes{mac} // encode_base64url(hmac_sha256(pack('(N/a*)3', 'sessauth/1/page', $key, $body), pack 'H*', $self->{link_key}));
	$self->{redis}->command('DEL', $changes{key} // $key);
	$self->{redis}->command('HSET', $changes{key} // $key, 'id', $id, 'm', $mac, 'b', $body);
	return $key;
}

# A new generation, whose numbers begin again.
sub change_generation
{
	my ($self) = @_;
	@$self{qw(g n low)} = (generation(), 0, 1);
	return $self->{g};
}

# ---- nonces and answers ----

# The nodes: id => { nonce, max_staleness, g, n } of every authentic nonce.
sub nodes
{
	my ($self) = @_;
	my $lines = $self->{redis}->hash($self->{nodes_key});
	my %nodes;
	for my $id (keys %$lines)
	{
		my @read = $self->_ask('nonce', $self->{nodes_key}, $id, $lines->{$id});
		@{ $nodes{$id} }{qw(nonce max_staleness g n)} = @read if @read == 4;
	}
	return \%nodes;
}

# The one node that there is, with its id; undef when there is none.
sub node
{
	my ($self) = @_;
	my $nodes = $self->nodes;
	my ($id) = keys %$nodes or return undef;
	return { id => $id, %{ $nodes->{$id} } };
}

# The value of an answer to a node's nonce, by this publisher's position; %changes changes that.
sub answer_to
{
	my ($self, $id, $nonce, %changes) = @_;
	my %position = (%$self, at => $self->now_ms_of_ledger, %changes);
	return $self->_ask('answer', $self->{answers_key}, $id, $nonce, @position{qw(g n low b at)});
}

sub put_answer
{
	my ($self, $id, $line) = @_;
	$self->{redis}->command('HSET', $self->{answers_key}, $id, $line);
	return;
}

# One round of the worker: a beat, and an answer to each nonce that has none yet, by the order of doc/protocol.md.
# Returns false, so that it can stand in a condition.
sub work
{
	my ($self) = @_;
	my $nodes = $self->nodes;
	my @new = grep { ($self->{answered}{$_} // '') ne $nodes->{$_}{nonce} } sort keys %$nodes;
	return 0 if !@new && $self->{beaten} && $self->now_ms_of_ledger - $self->{beaten} < 100;
	$self->beat;
	$self->{beaten} = $self->now_ms_of_ledger;
	for my $id (@new)
	{
		$self->put_answer($id, $self->answer_to($id, $nodes->{$id}{nonce}));
		$self->{answered}{$id} = $nodes->{$id}{nonce};
	}
	return 0;
}

sub _ask
{
	my ($self, @words) = @_;
	my ($from, $to) = @$self{qw(from to)};
	print $to join("\t", @words), "\n";
	$to->flush;
	my $line = <$from> // croak 'the publisher has ended';
	chomp $line;
	return if $line eq 'error' && $words[0] eq 'nonce';
	croak "the publisher cannot: @words" if $line eq 'error';
	my @values = split /\t/, $line, -1;
	return wantarray ? @values : $values[0];
}

# Written whole or not at all: a gate may be reading it.
sub _write
{
	my ($path, $text) = @_;
	sysopen(my $file, "$path.new", Fcntl::O_WRONLY() | Fcntl::O_CREAT() | Fcntl::O_TRUNC(), 0600) or croak "$path: $!";
	print $file $text;
	close $file or croak "$path: $!";
	rename "$path.new", $path or croak "$path: $!";
	return $path;
}

1;
