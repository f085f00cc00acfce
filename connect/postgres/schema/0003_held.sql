-- compatible: 1

-- What a flow has brought, sealed, until it is proved who has brought it.
ALTER TABLE keycaddy.flows ADD COLUMN IF NOT EXISTS held_key   bytea;
ALTER TABLE keycaddy.flows ADD COLUMN IF NOT EXISTS held       bytea;
ALTER TABLE keycaddy.flows ADD COLUMN IF NOT EXISTS held_until timestamptz;
CREATE UNIQUE INDEX IF NOT EXISTS flows_held_key ON keycaddy.flows (held_key) WHERE held_key IS NOT NULL;

-- Where the app wants its visitors back, and how the latest attempt stands.
ALTER TABLE keycaddy.sessions ADD COLUMN IF NOT EXISTS return_url text NOT NULL DEFAULT '';
ALTER TABLE keycaddy.sessions ADD COLUMN IF NOT EXISTS result     jsonb;

-- In which language the pages are, and how they look.
ALTER TABLE keycaddy.sessions ADD COLUMN IF NOT EXISTS language text NOT NULL DEFAULT '';
ALTER TABLE keycaddy.sessions ADD COLUMN IF NOT EXISTS look     jsonb;
