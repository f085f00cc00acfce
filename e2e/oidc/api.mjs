import { createHash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';

import { bump } from './stats.mjs';

// newAPI returns the handler of the API. It knows no tokens: it asks the
// server's introspection endpoint (RFC 7662) about each, as another party
// would.
export function newAPI(url, resourceServer, stats) {
  const credentials = Buffer.from(`${resourceServer.id}:${resourceServer.secret}`).toString('base64');

  async function introspect(token) {
    const answer = await fetch(`${url}/token/introspection`, {
      method: 'POST',
      headers: { authorization: `Basic ${credentials}` },
      body: new URLSearchParams({ token, token_type_hint: 'access_token' }),
    });
    if (!answer.ok) throw new Error(`introspection answered ${answer.status}: ${await answer.text()}`);
    const about = await answer.json();
    // A refresh token is active too, but opens nothing.
    return about.active && about.token_type === 'Bearer' ? about : undefined;
  }

  return async function api(req, res) {
    const send = (status, body, headers = {}) => {
      bump(stats.api_by_status, status);
      res.writeHead(status, { 'cache-control': 'no-store', 'content-type': 'application/json', ...headers });
      res.end(JSON.stringify(body));
    };
    bump(stats.api_by_method, req.method);

    const [, token] = /^bearer +(\S+)$/i.exec(req.headers.authorization ?? '') ?? [];
    const about = token && await introspect(token);
    if (!about) {
      req.resume(); // answered before the body is there, but the body is let in
      send(401, { error: 'invalid_token' }, { 'www-authenticate': 'Bearer realm="oidc", error="invalid_token"' });
      return;
    }

    const { pathname, search, searchParams } = new URL(req.url, url);
    if (pathname === '/api/me') {
      send(200, { account: about.sub ?? null, client_id: about.client_id, scope: about.scope ?? '', exp: about.exp });
      return;
    }
    if (pathname === '/api/events') {
      bump(stats.api_by_status, 200);
      await sendEvents(res, Number(searchParams.get('n') ?? Infinity));
      return;
    }

    const sum = createHash('sha256');
    let length = 0;
    for await (const chunk of req) {
      sum.update(chunk);
      length += chunk.length;
    }
    send(200, {
      method: req.method,
      path: req.url.split('?', 1)[0], // as sent: a parsed URL has no dots and escapes left
      query: search.slice(1),
      header_names: Object.keys(req.headers).sort(),
      body_length: length,
      body_sha256: sum.digest('hex'),
      account: about.sub ?? null,
    });
  };
}

async function sendEvents(res, n) {
  res.writeHead(200, { 'cache-control': 'no-store', 'content-type': 'text/event-stream' });
  for (let i = 1; i <= n && !res.destroyed; i++) {
    res.write(`id: ${i}\nevent: tick\ndata: {"n":${i}}\n\n`);
    await wait(100);
  }
  res.end();
}
