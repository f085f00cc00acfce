import { accounts } from './provider.mjs';

const escape = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function page(prompt, params) {
  const choice = Object.entries(accounts).map(([id, name]) => `<option value="${id}">${name}</option>`).join('');
  return `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Allow access?</title>
<h1>Let ${escape(params.client_id)} use your account?</h1>
<p>It asks for: ${escape(params.scope ?? 'nothing in particular')}</p>
<form method="post">
${prompt.name === 'login' ? `<p><label>Sign in as <select name="account">${choice}</select></label></p>` : ''}
<p><button id="allow" name="decision" value="allow">Allow</button> <button id="deny" name="decision" value="deny">Deny</button></p>
</form>
</html>
`;
}

async function readForm(req) {
  let body = '';
  for await (const chunk of req) {
    body += chunk;
    if (body.length > 65536) throw new Error('form too long');
  }
  return new URLSearchParams(body);
}

// newInteraction returns the handler of the page where a visitor signs in and
// allows or denies, both with one click.
export function newInteraction(provider) {
  return async function interaction(req, res) {
    let details;
    try {
      details = await provider.interactionDetails(req, res);
    } catch (err) {
      res.writeHead(400, { 'content-type': 'text/plain; charset=utf-8' });
      res.end(`This visit has ended: ${err.message}\n`);
      return;
    }
    const { prompt, params, session } = details;
    if (req.method !== 'POST') {
      res.writeHead(200, {
        'cache-control': 'no-store',
        'content-security-policy': "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
        'content-type': 'text/html; charset=utf-8',
      });
      res.end(page(prompt, params));
      return;
    }

    const form = await readForm(req);
    if (form.get('decision') !== 'allow') {
      await provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'the visitor said no' });
      return;
    }
    const accountId = session?.accountId ?? form.get('account') ?? 'ada';
    if (!accounts[accountId]) {
      res.writeHead(400, { 'content-type': 'text/plain; charset=utf-8' });
      res.end('There is no such account.\n');
      return;
    }
    const grant = new provider.Grant({ accountId, clientId: params.client_id });
    if (params.scope) grant.addOIDCScope(params.scope);
    await provider.interactionFinished(req, res, {
      login: { accountId },
      consent: { grantId: await grant.save() },
    });
  };
}
