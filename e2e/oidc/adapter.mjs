import { errors } from 'oidc-provider';

// What is stored, over all models: "Model:id" → { payload, expires }.
const store = new Map();

setInterval(() => {
  for (const key of store.keys()) live(key);
}, 10_000).unref();

// live returns what is stored under a key, unless it has expired.
function live(key) {
  const entry = store.get(key);
  if (entry && entry.expires <= Date.now()) {
    store.delete(key);
    return undefined;
  }
  return entry?.payload;
}

// first returns the first live thing of a model that a test is true of.
function first(model, test) {
  for (const key of store.keys()) {
    if (key.startsWith(`${model}:`)) {
      const payload = live(key);
      if (payload && test(payload)) return payload;
    }
  }
  return undefined;
}

// MemoryAdapter is oidc-provider's storage. Unlike the one that comes with it,
// it forgets nothing for want of room, and it refuses to consume a thing twice:
// of two refreshes at once with one token, only one can win.
export class MemoryAdapter {
  constructor(model) {
    this.model = model;
  }

  // drop forgets all of a model and returns how many were live.
  static drop(model) {
    let n = 0;
    for (const key of [...store.keys()]) {
      if (key.startsWith(`${model}:`)) {
        if (live(key)) n++;
        store.delete(key);
      }
    }
    return n;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload, expiresIn) {
    store.set(this.key(id), { payload, expires: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
  }

  async find(id) {
    return live(this.key(id));
  }

  async findByUid(uid) {
    return first(this.model, (payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return first(this.model, (payload) => payload.userCode === userCode);
  }

  async consume(id) {
    const payload = live(this.key(id));
    if (!payload || payload.consumed) {
      if (payload?.grantId) dropGrant(payload.grantId);
      throw new errors.InvalidGrant(alreadyUsed);
    }
    payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    store.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    dropGrant(grantId, this.model);
  }
}

// alreadyUsed is the detail that oidc-provider's own check gives its error.
export const alreadyUsed = 'refresh token already used';

// dropGrant forgets what belongs to a grant: of one model, or all of it and the
// grant itself, without which what is made of it meanwhile can't be refreshed.
function dropGrant(grantId, model) {
  for (const [key, { payload }] of [...store]) {
    if (payload.grantId === grantId && (!model || key.startsWith(`${model}:`))) store.delete(key);
  }
  if (!model) store.delete(`Grant:${grantId}`);
}
