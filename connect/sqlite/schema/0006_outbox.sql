-- Where the events of a connection go, and what keeps it from being renewed.
ALTER TABLE connections ADD COLUMN webhook_url TEXT NOT NULL DEFAULT '';
ALTER TABLE connections ADD COLUMN trouble     TEXT;
ALTER TABLE sessions    ADD COLUMN webhook_url TEXT NOT NULL DEFAULT '';

-- What has happened: see connect.Event, which body is. routed: its deliveries
-- were made.
CREATE TABLE events (
	serial INTEGER PRIMARY KEY AUTOINCREMENT,
	id     TEXT    NOT NULL UNIQUE,
	body   TEXT    NOT NULL,
	at     INTEGER NOT NULL,
	routed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX events_unrouted ON events (serial) WHERE routed = 0;
CREATE INDEX events_at       ON events (at);

CREATE TABLE deliveries (
	serial      INTEGER PRIMARY KEY AUTOINCREMENT,
	event       INTEGER NOT NULL REFERENCES events (serial) ON DELETE CASCADE,
	endpoint    TEXT    NOT NULL,
	-- Of the event, for queries.
	integration TEXT    NOT NULL,
	connection  TEXT    NOT NULL,
	state       TEXT    NOT NULL,
	attempts    INTEGER NOT NULL,
	since       INTEGER NOT NULL,
	next        INTEGER NOT NULL,
	tried       INTEGER,
	status      INTEGER NOT NULL,
	error       TEXT    NOT NULL,
	UNIQUE (event, endpoint)
) STRICT;
CREATE INDEX deliveries_waiting    ON deliveries (endpoint, next) WHERE state = 'waiting';
CREATE INDEX deliveries_since      ON deliveries (since)          WHERE state = 'waiting';
CREATE INDEX deliveries_endpoint   ON deliveries (endpoint, serial);
CREATE INDEX deliveries_connection ON deliveries (connection, serial);

-- next: when the earliest delivery is due; NULL: none waits. held: until when
-- holder alone delivers.
CREATE TABLE endpoints (
	name     TEXT    PRIMARY KEY,
	url      TEXT    NOT NULL,
	failures INTEGER NOT NULL DEFAULT 0,
	paused   INTEGER NOT NULL DEFAULT 0,
	next     INTEGER,
	holder   TEXT    NOT NULL DEFAULT '',
	held     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX endpoints_next ON endpoints (next) WHERE next IS NOT NULL;
