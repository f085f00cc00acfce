-- Who holds a lease, and what it had begun: see connect.Intent.
ALTER TABLE leases ADD COLUMN node   TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN intent TEXT;
CREATE INDEX leases_intent ON leases (until) WHERE intent IS NOT NULL;

-- When a connection is to be renewed whether it is used or not.
ALTER TABLE connections ADD COLUMN due INTEGER;
CREATE INDEX connections_due ON connections (due) WHERE due IS NOT NULL;

-- When the next turn is at what all processes together may do only so often.
CREATE TABLE turns (
	name TEXT    PRIMARY KEY,
	next INTEGER NOT NULL
) STRICT;
