# application.pl
#		The application behind a proxy, for tests: answers each request with the bytes that reached it.

use strict;
use warnings;

use IO::Socket::INET;

$| = 1;
my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 16) or die $!;
printf "listening on 127.0.0.1:%d\n", $socket->sockport;
while (my $client = $socket->accept)
{
	my $request = '';
	my $length;
	until (defined $length && length $request >= $length)
	{
		sysread($client, $request, 65536, length $request) or last;
		$length = $+[0] + ($request =~ /^Content-Length: *(\d+)/mi ? $1 : 0) if $request =~ /\r\n\r\n/;
	}
	syswrite($client, sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", length $request, $request));
}
