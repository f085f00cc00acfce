-- Integrations that were made through the API. What is secret of one rests in
-- the vault.
CREATE TABLE integrations (
	uid              TEXT    PRIMARY KEY,
	key              TEXT    NOT NULL UNIQUE,
	provider         TEXT    NOT NULL,
	display_name     TEXT    NOT NULL,
	forward_webhooks INTEGER NOT NULL,
	sealed           INTEGER NOT NULL,
	removing         INTEGER NOT NULL,
	created          INTEGER NOT NULL,
	updated          INTEGER NOT NULL
) STRICT;

-- How often that table was changed: all that a process has to ask for.
CREATE TABLE revisions (
	name     TEXT    PRIMARY KEY,
	revision INTEGER NOT NULL
) STRICT;
INSERT INTO revisions (name, revision) VALUES ('integrations', 0);

-- What the pages show otherwise, by integration.
ALTER TABLE sessions ADD COLUMN overrides   TEXT;
