import { generateKeyPairSync, randomBytes } from 'node:crypto';

import Provider from 'oidc-provider';

import { MemoryAdapter, alreadyUsed } from './adapter.mjs';
import { bump } from './stats.mjs';

// accounts are those that a visitor can sign in as.
export const accounts = { ada: 'Ada Lovelace', grace: 'Grace Hopper' };

// newProvider returns the authorization server, and the credentials of the
// resource server, which may ask it about everybody's tokens.
export function newProvider(issuer, settings, stats) {
  const resourceServer = { id: 'resource-server', secret: randomBytes(32).toString('hex') };
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const client = {
    client_id: settings.clientID,
    client_secret: settings.clientSecret,
    redirect_uris: settings.redirectURIs,
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
    response_types: ['code'],
  };

  const provider = new Provider(issuer, {
    adapter: MemoryAdapter,
    clients: [
      client,
      {
        client_id: resourceServer.id,
        client_secret: resourceServer.secret,
        grant_types: [],
        response_types: [],
        redirect_uris: [],
      },
    ],
    // Both ways of sending a secret are good for both clients.
    clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
    clientBasedCORS: () => false,
    cookies: { keys: [randomBytes(32).toString('hex')] },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },

    pkce: { required: () => true },
    responseTypes: ['code'],
    scopes: ['openid', 'offline_access', 'read', 'write'],
    rotateRefreshToken: true,
    issueRefreshToken: (ctx, c) => c.grantTypeAllowed('refresh_token'),
    expiresWithSession: () => false,
    ttl: {
      AccessToken: settings.accessTTL,
      AuthorizationCode: 60,
      ClientCredentials: settings.accessTTL,
      Grant: 86400,
      IdToken: 600,
      Interaction: 600,
      RefreshToken: 86400,
      Session: 86400,
    },

    findAccount: (ctx, id) => (accounts[id] ? { accountId: id, claims: () => ({ sub: id, name: accounts[id] }) } : undefined),
    // An earlier consent doesn't count: every visit is asked again.
    loadExistingGrant: (ctx) => {
      const id = ctx.oidc.result?.consent?.grantId;
      return id ? ctx.oidc.provider.Grant.find(id) : undefined;
    },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },

    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: {
        enabled: true,
        allowedPolicy: (ctx, c, token) => c.clientId === resourceServer.id || c.clientId === token.clientId,
      },
      revocation: { enabled: true, allowedPolicy: (ctx, c, token) => c.clientId === token.clientId },
      rpInitiatedLogout: { enabled: false },
    },
  });

  const grant = (ctx) => String(ctx.oidc?.params?.grant_type ?? ctx.oidc?.body?.grant_type ?? 'unknown');
  provider.on('grant.success', (ctx) => {
    bump(stats.token_calls, grant(ctx));
    bump(stats.granted, grant(ctx));
  });
  provider.on('grant.error', (ctx, err) => {
    bump(stats.token_calls, grant(ctx));
    bump(stats.refused, grant(ctx));
    if (err.error_detail === alreadyUsed) stats.refresh_reuse++;
  });
  provider.on('grant.revoked', () => stats.grants_revoked++);
  provider.on('server_error', (ctx, err) => {
    stats.server_errors++;
    console.error(err);
  });
  return { provider, resourceServer };
}
