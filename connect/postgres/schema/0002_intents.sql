-- compatible: 1

-- Who holds a lease, and what it had begun: see connect.Intent.
ALTER TABLE keycaddy.leases ADD COLUMN IF NOT EXISTS node   text NOT NULL DEFAULT '';
ALTER TABLE keycaddy.leases ADD COLUMN IF NOT EXISTS intent jsonb;
CREATE INDEX IF NOT EXISTS leases_intent ON keycaddy.leases (until) WHERE intent IS NOT NULL;
CREATE INDEX IF NOT EXISTS leases_node   ON keycaddy.leases (node)  WHERE holder <> '';

-- When a connection is to be renewed whether it is used or not.
ALTER TABLE keycaddy.connections ADD COLUMN IF NOT EXISTS due timestamptz;
CREATE INDEX IF NOT EXISTS connections_due ON keycaddy.connections (due) WHERE due IS NOT NULL;

-- When the next turn is at what all nodes together may do only so often.
CREATE TABLE IF NOT EXISTS keycaddy.turns (
	name text        PRIMARY KEY,
	next timestamptz NOT NULL
);
