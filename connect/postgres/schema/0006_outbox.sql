-- compatible: 1

-- Where the events of a connection go, and what keeps it from being renewed.
ALTER TABLE keycaddy.connections ADD COLUMN IF NOT EXISTS webhook_url text NOT NULL DEFAULT '';
ALTER TABLE keycaddy.connections ADD COLUMN IF NOT EXISTS trouble     jsonb;
ALTER TABLE keycaddy.sessions    ADD COLUMN IF NOT EXISTS webhook_url text NOT NULL DEFAULT '';

-- What has happened: see connect.Event, which body is. routed: its deliveries
-- were made.
CREATE TABLE IF NOT EXISTS keycaddy.events (
	serial bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id     text        NOT NULL UNIQUE,
	body   text        NOT NULL,
	at     timestamptz NOT NULL,
	routed boolean     NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS events_unrouted ON keycaddy.events (serial) WHERE NOT routed;
CREATE INDEX IF NOT EXISTS events_at       ON keycaddy.events (at);

CREATE TABLE IF NOT EXISTS keycaddy.deliveries (
	serial      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	event       bigint      NOT NULL REFERENCES keycaddy.events (serial) ON DELETE CASCADE,
	endpoint    text        NOT NULL,
	-- Of the event, for queries.
	integration text        NOT NULL,
	connection  text        NOT NULL,
	state       text        NOT NULL,
	attempts    bigint      NOT NULL,
	since       timestamptz NOT NULL,
	next        timestamptz NOT NULL,
	tried       timestamptz,
	status      bigint      NOT NULL,
	error       text        NOT NULL,
	UNIQUE (event, endpoint)
);
CREATE INDEX IF NOT EXISTS deliveries_waiting    ON keycaddy.deliveries (endpoint, next) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS deliveries_since      ON keycaddy.deliveries (since)          WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS deliveries_endpoint   ON keycaddy.deliveries (endpoint, serial);
CREATE INDEX IF NOT EXISTS deliveries_connection ON keycaddy.deliveries (connection, serial);

-- next: when the earliest delivery is due; NULL: none waits. held: until when
-- holder alone delivers.
CREATE TABLE IF NOT EXISTS keycaddy.endpoints (
	name     text        PRIMARY KEY,
	url      text        NOT NULL,
	failures bigint      NOT NULL DEFAULT 0,
	paused   timestamptz NOT NULL DEFAULT 'epoch',
	next     timestamptz,
	holder   text        NOT NULL DEFAULT '',
	held     timestamptz NOT NULL DEFAULT 'epoch'
);
CREATE INDEX IF NOT EXISTS endpoints_next ON keycaddy.endpoints (next) WHERE next IS NOT NULL;
