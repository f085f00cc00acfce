-- compatible: 1

-- What a key may do, when it ends, and the one from before it was rotated. Keys
-- that were made before could do everything.
ALTER TABLE keycaddy.api_keys ADD COLUMN IF NOT EXISTS former       bytea;
ALTER TABLE keycaddy.api_keys ADD COLUMN IF NOT EXISTS former_until timestamptz;
ALTER TABLE keycaddy.api_keys ADD COLUMN IF NOT EXISTS scopes       text  NOT NULL DEFAULT 'environment:*';
ALTER TABLE keycaddy.api_keys ADD COLUMN IF NOT EXISTS limits       jsonb NOT NULL DEFAULT '{}';
ALTER TABLE keycaddy.api_keys ADD COLUMN IF NOT EXISTS expires      timestamptz;
ALTER TABLE keycaddy.api_keys ADD COLUMN IF NOT EXISTS used         timestamptz;
CREATE UNIQUE INDEX IF NOT EXISTS api_keys_former ON keycaddy.api_keys (former) WHERE former IS NOT NULL;

-- The version of the list of keys; one row.
CREATE TABLE IF NOT EXISTS keycaddy.api_keys_version (
	one     boolean PRIMARY KEY DEFAULT true CHECK (one),
	version bigint  NOT NULL
);
INSERT INTO keycaddy.api_keys_version (version) VALUES (1) ON CONFLICT DO NOTHING;
