// session.mjs
//		What a Node service needs of sessauth-gate: who sends this request?

const gate = process.env.GATE_URL;

// The session of a token: { tenant, user, session, epoch }, or { status, reason } of a refusal: 401, or 503 when nobody can tell.
export async function sessionOf(token) {
	let answer;
	try {
		answer = await fetch(`${gate}/auth`, {
			headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
			signal: AbortSignal.timeout(2000),
		});
	} catch {
		return { status: 503, reason: 'the gate does not answer' };
	}
	const reason = (await answer.text()).trim();
	if (answer.status !== 200)
		return { status: answer.status === 401 ? 401 : 503, reason };
	const header = (name) => decodeURIComponent(answer.headers.get(`x-sessauth-${name}`));
	return { tenant: header('tenant'), user: header('user'), session: header('session'), epoch: Number(header('epoch')) };
}

export function bearer(request) {
	return /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
}
