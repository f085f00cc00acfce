-- compatible: 1

-- Whose account a connection is of, and which scopes it hasn't been granted.
-- What queries select by is written along with account.
ALTER TABLE keycaddy.connections ADD COLUMN IF NOT EXISTS account        jsonb;
ALTER TABLE keycaddy.connections ADD COLUMN IF NOT EXISTS account_id     text NOT NULL DEFAULT '';
ALTER TABLE keycaddy.connections ADD COLUMN IF NOT EXISTS missing_scopes jsonb;
CREATE INDEX IF NOT EXISTS connections_account ON keycaddy.connections (account_id) WHERE account_id <> '';

ALTER TABLE keycaddy.sessions ADD COLUMN IF NOT EXISTS allow_account_change boolean NOT NULL DEFAULT false;
