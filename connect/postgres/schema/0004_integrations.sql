-- compatible: 1

-- Integrations that were made through the API. What is secret of one rests in
-- the vault.
CREATE TABLE IF NOT EXISTS keycaddy.integrations (
	uid              text        PRIMARY KEY,
	key              text        NOT NULL UNIQUE,
	provider         text        NOT NULL,
	display_name     text        NOT NULL,
	forward_webhooks boolean     NOT NULL,
	sealed           boolean     NOT NULL,
	removing         boolean     NOT NULL,
	created          timestamptz NOT NULL,
	updated          timestamptz NOT NULL
);

-- How often that table was changed: all that a node has to ask for.
CREATE TABLE IF NOT EXISTS keycaddy.revisions (
	name     text   PRIMARY KEY,
	revision bigint NOT NULL
);
INSERT INTO keycaddy.revisions (name, revision) VALUES ('integrations', 0) ON CONFLICT DO NOTHING;

-- What the pages show otherwise, by integration.
ALTER TABLE keycaddy.sessions ADD COLUMN IF NOT EXISTS overrides   jsonb;
