// jose.mjs
//		What the npm package "jose" says about keys and tokens, for test/t/jose.t.
//
// Reads a JSON array of requests [name, arguments] from standard input, writes the array of
// their results. A request that fails gives {error: code}.

import * as crypto from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as jose from 'jose';

const bytes = (text) => new TextEncoder().encode(text);
const b64 = (data) => Buffer.from(data).toString('base64url');

// A JWS of header and payload texts that no library would write: doubled members and the like.
function signedAsIs(header, payload, key, options = {}) {
	const input = `${b64(header)}.${b64(payload)}`;
	const digest = key.asymmetricKeyType === 'ed25519' ? null : 'sha256';
	const signature = crypto.sign(digest, bytes(input), { key, dsaEncoding: 'ieee-p1363', ...options });
	return `${input}.${b64(signature)}`;
}

const requests = {
	// Three key pairs; the public halves have the thumbprint as kid.
	async generate() {
		const pairs = {};
		for (const alg of ['ES256', 'EdDSA', 'RS256']) {
			const pair = await jose.generateKeyPair(alg, { extractable: true });
			const open = await jose.exportJWK(pair.publicKey);
			pairs[alg] = {
				public: { ...open, alg, use: 'sig', kid: await jose.calculateJwkThumbprint(open) },
				private: await jose.exportJWK(pair.privateKey),
			};
		}
		return pairs;
	},

	thumbprint: ({ jwk }) => jose.calculateJwkThumbprint(jwk),

	// jwks is a key set, or the address of one.
	async verify({ jwks, token, issuer, audience }) {
		const keys = typeof jwks === 'string' ? jose.createRemoteJWKSet(new URL(jwks)) : jose.createLocalJWKSet(jwks);
		const { payload, protectedHeader } = await jose.jwtVerify(token, keys, {
			issuer, audience, typ: 'at+jwt',
			requiredClaims: ['iss', 'exp', 'aud', 'sub', 'client_id', 'iat', 'jti'],
		});
		return { payload, header: protectedHeader };
	},

	async sign({ key, header, payload }) {
		return new jose.SignJWT(payload).setProtectedHeader(header).sign(await jose.importJWK(key, header.alg));
	},

	// Tokens that nobody may accept, by name. "pair" and "other" are of different algorithms, and both known.
	async hostile({ alg, pair, other, payload, jku }) {
		const kid = pair.public.kid;
		const header = { alg, typ: 'at+jwt', kid };
		const key = await jose.importJWK(pair.private, alg);
		const keyObject = crypto.createPrivateKey({ key: pair.private, format: 'jwk' });
		const publicPem = crypto.createPublicKey(keyObject).export({ type: 'spki', format: 'pem' });
		const sign = (p, h = header, options = undefined) => new jose.SignJWT(p).setProtectedHeader(h).sign(key, options);
		const without = (name) => Object.fromEntries(Object.entries(payload).filter(([n]) => n !== name));
		const good = await sign(payload);
		const [goodHeader, goodPayload, goodSignature] = good.split('.');
		const payloadText = JSON.stringify(payload);
		const headerText = JSON.stringify(header);

		const thief = await jose.generateKeyPair(alg, { extractable: true });
		const thiefJwk = await jose.exportJWK(thief.publicKey);
		const byThief = (h) => new jose.SignJWT(payload).setProtectedHeader(h).sign(thief.privateKey);

		const unencoded = await new jose.FlattenedSign(bytes(goodPayload))
			.setProtectedHeader({ ...header, b64: false, crit: ['b64'] }).sign(key);
		const flattened = await new jose.FlattenedSign(bytes(payloadText)).setProtectedHeader(header).sign(key);
		const general = await new jose.GeneralSign(bytes(payloadText)).addSignature(key).setProtectedHeader(header).sign();

		const tokens = {
			'alg none': new jose.UnsecuredJWT(payload).encode(),
			'alg none with the kid': `${b64(JSON.stringify({ ...header, alg: 'none' }))}.${goodPayload}.`,
			'HS256 with the public PEM as secret': await new jose.SignJWT(payload)
				.setProtectedHeader({ ...header, alg: 'HS256' }).sign(bytes(publicPem)),
			'HS256 with the public JWK as secret': await new jose.SignJWT(payload)
				.setProtectedHeader({ ...header, alg: 'HS256' }).sign(bytes(JSON.stringify(pair.public))),
			'a critical extension': await sign(payload, { ...header, crit: ['x'], x: 1 }, { crit: { x: true } }),
			'crit naming a claim': await sign(payload, { ...header, crit: ['exp'], exp: payload.exp }, { crit: { exp: true } }),
			'b64=false, payload as it is': `${unencoded.protected}.${goodPayload}.${unencoded.signature}`,
			'a detached payload': `${goodHeader}..${goodSignature}`,
			'the flattened serialization': JSON.stringify(flattened),
			'the general serialization': JSON.stringify(general),
			'an encrypted token': await new jose.EncryptJWT(payload)
				.setProtectedHeader({ alg: 'dir', enc: 'A256GCM', typ: 'at+jwt', kid }).encrypt(crypto.randomBytes(32)),
			'a fourth part': `${good}.${goodSignature}`,
			'an empty fourth part': `${good}.`,
			'an empty first part': `.${good}`,
			'typ JWT': await sign(payload, { ...header, typ: 'JWT' }),
			'typ of an ID token': await sign(payload, { ...header, typ: 'id_token+jwt' }),
			'no typ': await sign(payload, { alg, kid }),
			'no kid': await sign(payload, { alg, typ: 'at+jwt' }),
			'the kid of a key of another algorithm': await sign(payload, { ...header, kid: other.public.kid }),
			'a key in the header': await byThief({ ...header, jwk: thiefJwk }),
			'the address of a key in the header': await byThief({ ...header, jku }),
			'a certificate in the header': await byThief({ ...header, x5c: ['MIIB'], x5u: jku }),
			'a kid of its own, with its key': await byThief({ alg, typ: 'at+jwt', kid: 'thief', jwk: thiefJwk, jku }),
			'a member twice in the payload': await new jose.CompactSign(bytes(payloadText.replace('{', '{"tid":"evil",')))
				.setProtectedHeader(header).sign(key),
			'a member twice in the header': signedAsIs(headerText.replace('{', '{"kid":"evil",'), payloadText, keyObject),
			'bytes behind the payload': await new jose.CompactSign(bytes(payloadText + '{}')).setProtectedHeader(header).sign(key),
			'a payload that is no object': await new jose.CompactSign(bytes('[]')).setProtectedHeader(header).sign(key),
			'a payload that is not UTF-8': await new jose.CompactSign(Buffer.from(payloadText.replace('{', '{"x":"\xff",'), 'latin1'))
				.setProtectedHeader(header).sign(key),
			'padding': `${good}=`,
			'a line break': `${goodHeader}.${goodPayload}\n.${goodSignature}`,
			'a signature of zeros': `${goodHeader}.${goodPayload}.${b64(Buffer.alloc(Buffer.from(goodSignature, 'base64url').length))}`,
			'the signature of another token': `${goodHeader}.${goodPayload}.${(await sign({ ...payload, jti: 'x' })).split('.')[2]}`,
			'the payload of another token': `${goodHeader}.${b64(JSON.stringify({ ...payload, uid: 'root', sub: 'root' }))}.${goodSignature}`,
			'sub that is not uid': await sign({ ...payload, sub: 'root' }),
			'exp as text': await new jose.CompactSign(bytes(payloadText.replace(/"exp":(\d+)/, '"exp":"$1"')))
				.setProtectedHeader(header).sign(key),
			'exp as a fraction': await new jose.CompactSign(bytes(payloadText.replace(/"exp":(\d+)/, '"exp":$1.5')))
				.setProtectedHeader(header).sign(key),
			'an epoch beyond 64 bits': await new jose.CompactSign(bytes(payloadText.replace(/"epoch":\d+/, '"epoch":18446744073709551617')))
				.setProtectedHeader(header).sign(key),
			'another issuer': await sign({ ...payload, iss: 'https://elsewhere.example' }),
			'another audience': await sign({ ...payload, aud: 'https://elsewhere.example' }),
			'an empty list of audiences': await sign({ ...payload, aud: [] }),
			'expired': await sign({ ...payload, iat: payload.iat - 7200, exp: payload.iat - 3600 }),
			'issued in the future': await sign({ ...payload, iat: payload.iat + 3600, exp: payload.iat + 7200 }),
			'not before the future': await sign({ ...payload, nbf: payload.iat + 3600 }),
		};
		for (const name of ['iss', 'aud', 'sub', 'client_id', 'jti', 'iat', 'exp', 'tid', 'uid', 'sid', 'epoch', 'tepoch'])
			tokens[`no ${name}`] = await sign(without(name));

		// The last character of a part carries bits that belong to no byte: zero, or another spelling of the same token.
		const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
		if (goodSignature.length % 4 !== 0)
			tokens['another spelling of the same signature'] = good.slice(0, -1) + alphabet[alphabet.indexOf(good.at(-1)) + 1];
		const plain = `${goodHeader}.${goodPayload}.${Buffer.from(goodSignature, 'base64url').toString('base64')}`;
		if (plain !== good)
			tokens['standard base64'] = plain;

		if (alg === 'ES256') {
			tokens['the signature in DER'] = signedAsIs(headerText, payloadText, keyObject, { dsaEncoding: 'der' });
			tokens['the algorithm of another curve'] = signedAsIs(JSON.stringify({ ...header, alg: 'ES384' }), payloadText, keyObject);
		}
		if (alg === 'RS256')
			for (const name of ['PS256', 'RS384', 'RS512']) {
				const weak = await jose.importJWK(pair.private, name);
				tokens[`an RSA key as ${name}`] = await new jose.SignJWT(payload).setProtectedHeader({ ...header, alg: name }).sign(weak);
			}
		if (alg === 'EdDSA')
			tokens['the algorithm of another curve'] = signedAsIs(JSON.stringify({ ...header, alg: 'Ed448' }), payloadText, keyObject);
		return { good, tokens };
	},
};

const results = [];
for (const [name, args] of JSON.parse(readFileSync(0, 'utf8'))) {
	try {
		results.push(await requests[name](args ?? {}));
	} catch (error) {
		results.push({ error: error.code ?? String(error) });
	}
}
process.stdout.write(JSON.stringify(results));
