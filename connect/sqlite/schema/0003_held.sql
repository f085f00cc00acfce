-- What a flow has brought, sealed, until it is proved who has brought it.
ALTER TABLE flows ADD COLUMN held_key   BLOB;
ALTER TABLE flows ADD COLUMN held       BLOB;
ALTER TABLE flows ADD COLUMN held_until INTEGER;
CREATE UNIQUE INDEX flows_held_key ON flows (held_key) WHERE held_key IS NOT NULL;

-- Where the app wants its visitors back, and how the latest attempt stands.
ALTER TABLE sessions ADD COLUMN return_url TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN result     TEXT;

-- In which language the pages are, and how they look.
ALTER TABLE sessions ADD COLUMN language TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN look     TEXT;
