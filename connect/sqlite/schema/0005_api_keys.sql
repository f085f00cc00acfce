-- What a key may do, when it ends, and the one from before it was rotated. Keys
-- that were made before could do everything.
ALTER TABLE api_keys ADD COLUMN former       BLOB;
ALTER TABLE api_keys ADD COLUMN former_until INTEGER;
ALTER TABLE api_keys ADD COLUMN scopes       TEXT NOT NULL DEFAULT 'environment:*';
ALTER TABLE api_keys ADD COLUMN limits       TEXT NOT NULL DEFAULT '{}';
ALTER TABLE api_keys ADD COLUMN expires      INTEGER;
ALTER TABLE api_keys ADD COLUMN used         INTEGER;
CREATE UNIQUE INDEX api_keys_former ON api_keys (former) WHERE former IS NOT NULL;

-- The version of the list of keys; one row.
CREATE TABLE api_keys_version (version INTEGER NOT NULL) STRICT;
INSERT INTO api_keys_version VALUES (1);
