// Stats are what GET /admin/stats answers: counters since the start.
export class Stats {
  // Calls of the token endpoint by grant_type: those that were granted, and
  // those that were refused.
  token_calls = {};
  granted = {};
  refused = {};

  // Refreshes refused because the refresh token had been spent before. Only the
  // first reuse is recognised: after that the token is forgotten with its
  // grant, and counts as refused.
  refresh_reuse = 0;

  // Grants that lost all their tokens, by a reuse or a revocation.
  grants_revoked = 0;

  // Calls of the API by status and by method.
  api_by_status = {};
  api_by_method = {};

  // What should never happen.
  server_errors = 0;
}

// bump adds one to a counter in a group.
export function bump(group, name) {
  group[name] = (group[name] ?? 0) + 1;
}
