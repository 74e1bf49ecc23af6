// express.mjs
//		An Express service whose routes know their caller from the gate, and from nothing that the client says.

import express from 'express';
import { bearer, sessionOf } from './session.mjs';

const app = express();

app.use(async (request, response, next) => {
	const session = await sessionOf(bearer(request));
	if (session.status === 503)
		return response.status(503).set('Retry-After', '1').send(session.reason);
	if (session.status)
		return response.status(401).set('WWW-Authenticate', 'Bearer').send(session.reason);
	request.session = session;
	next();
});

app.get('/whoami', (request, response) => response.json(request.session));

const server = app.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
