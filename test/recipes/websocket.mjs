// websocket.mjs
//		A WebSocket service that closes connections when their session ends: the gate decides at
//		the upgrade, and its administrator's listener tells what was revoked afterwards.

import { createServer } from 'node:http';
import { EventSource } from 'eventsource';
import { WebSocketServer } from 'ws';
import { bearer, sessionOf } from './session.mjs';

const ENDED = 4401;
const sockets = new Set();
const server = createServer((request, response) => response.writeHead(426).end());
const webSockets = new WebSocketServer({ noServer: true });

server.on('upgrade', async (request, connection, head) => {
	const token = bearer(request);
	const session = await sessionOf(token);
	if (session.status) {
		connection.end(`HTTP/1.1 ${session.status} Refused\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
		return;
	}
	webSockets.handleUpgrade(request, connection, head, async (socket) => {
		const client = { socket, token, session };
		sockets.add(client);
		socket.on('close', () => sockets.delete(client));
		socket.send(JSON.stringify(session));

		// Between the gate's answer and now, the session may have ended.
		await check(client);
	});
});

// The stream reconnects by itself, and resumes where it was.
const revocations = new EventSource(`${process.env.GATE_ADMIN_URL}/revocations`);
revocations.addEventListener('revoked', (event) => {
	const what = JSON.parse(event.data);
	for (const client of sockets) {
		const { tenant, user, session, epoch } = client.session;
		if (what.tenant !== undefined && what.tenant !== tenant)
			continue;
		if (what.kind === 'session' ? what.session === session : what.kind === 'user' && what.user === user && epoch < what.epoch)
			client.socket.close(ENDED, 'session ended');
		else if (what.kind === 'tenant' || what.kind === 'key')
			check(client);
	}
});
revocations.addEventListener('missed', () => sockets.forEach(check));
revocations.addEventListener('connected', () => start());

// An outage of the gate closes nothing; a 401 does, also when only the token has expired: the client comes back with a new one.
async function check(client) {
	const session = await sessionOf(client.token);
	if (session.status === 401)
		client.socket.close(ENDED, session.reason);
}

function start() {
	if (!server.listening)
		server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
}
