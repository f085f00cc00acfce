-- Whose account a connection is of, and which scopes it hasn't been granted.
-- What queries select by is written along with account.
ALTER TABLE connections ADD COLUMN account        TEXT;
ALTER TABLE connections ADD COLUMN account_id     TEXT NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN missing_scopes TEXT;
CREATE INDEX connections_account ON connections (account_id) WHERE account_id <> '';

ALTER TABLE sessions ADD COLUMN allow_account_change INTEGER NOT NULL DEFAULT 0;
