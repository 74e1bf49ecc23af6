// websocket_client.mjs URL TOKEN
//		One client: prints what it is sent, and with which code its connection is closed.

import { WebSocket } from 'ws';

const socket = new WebSocket(process.argv[2].replace('http', 'ws'), { headers: { authorization: `Bearer ${process.argv[3]}` } });
socket.on('message', (message) => console.log(`message ${message}`));
socket.on('unexpected-response', (request, response) => { console.log(`refused ${response.statusCode}`); process.exit(0); });
socket.on('close', (code) => console.log(`closed ${code}`));
