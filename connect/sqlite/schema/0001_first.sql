-- Times are microseconds since 1970 in UTC; maps, lists and structs are JSON,
-- NULL when empty. Tokens and states are SHA-256 digests, never themselves.

CREATE TABLE connections (
	-- AUTOINCREMENT: the number of a deleted connection never comes again.
	serial          INTEGER PRIMARY KEY AUTOINCREMENT,
	uid             TEXT    NOT NULL UNIQUE,
	integration     TEXT    NOT NULL,
	connection      TEXT    NOT NULL,
	provider        TEXT    NOT NULL,
	status          TEXT    NOT NULL,
	cause           TEXT    NOT NULL,
	config          TEXT,
	metadata        TEXT,
	tags            TEXT,
	end_user        TEXT,
	-- What queries select by, written along with end_user.
	end_user_id     TEXT    NOT NULL,
	organization_id TEXT    NOT NULL,
	-- Connection id, end user's name and e-mail in lower case (which SQLite
	-- itself knows for ASCII only), with U+001F between them.
	search          TEXT    NOT NULL,
	version         INTEGER NOT NULL,
	expires         INTEGER,
	created         INTEGER NOT NULL,
	updated         INTEGER NOT NULL,
	UNIQUE (integration, connection)
) STRICT;
CREATE INDEX connections_connection   ON connections (connection);
CREATE INDEX connections_end_user     ON connections (end_user_id)     WHERE end_user_id <> '';
CREATE INDEX connections_organization ON connections (organization_id) WHERE organization_id <> '';
CREATE INDEX connections_expires      ON connections (expires)         WHERE expires IS NOT NULL;

CREATE INDEX connections_updated      ON connections (updated);

-- Connections that were removed of late, so that other processes hear of it.
CREATE TABLE removed (
	uid         TEXT    PRIMARY KEY,
	integration TEXT    NOT NULL,
	connection  TEXT    NOT NULL,
	at          INTEGER NOT NULL
) STRICT;
CREATE INDEX removed_at ON removed (at);

CREATE TABLE sessions (
	token        BLOB    PRIMARY KEY,
	end_user     TEXT,
	organization TEXT,
	tags         TEXT,
	allowed      TEXT,
	connection   TEXT    NOT NULL,
	reconnect    INTEGER NOT NULL,
	defaults     TEXT,
	created      INTEGER NOT NULL,
	expires      INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE flows (
	id           TEXT    PRIMARY KEY,
	state        BLOB    NOT NULL UNIQUE,
	browser      BLOB    NOT NULL,
	session      BLOB    NOT NULL,
	integration  TEXT    NOT NULL,
	config       TEXT,
	redirect_url TEXT    NOT NULL,
	expires      INTEGER NOT NULL,
	taken        INTEGER NOT NULL DEFAULT 0,
	outcome      TEXT
) STRICT;
CREATE INDEX flows_expires ON flows (expires);

CREATE TABLE leases (
	name       TEXT    PRIMARY KEY,
	holder     TEXT    NOT NULL,
	generation INTEGER NOT NULL,
	until      INTEGER NOT NULL
) STRICT;
CREATE INDEX leases_until ON leases (until);

-- The last generation given to any lease. It is apart from the leases, so that
-- they can be removed and still no generation repeats.
CREATE TABLE generations (last INTEGER NOT NULL) STRICT;
INSERT INTO generations (last) VALUES (0);

CREATE TABLE api_keys (
	name    TEXT    PRIMARY KEY,
	key     BLOB    NOT NULL UNIQUE,
	created INTEGER NOT NULL
) STRICT;

-- What the sealed vault keeps here (vault/sealed): nothing of it can be read
-- without the key ring, which is elsewhere.
CREATE TABLE blobs (
	name    TEXT    PRIMARY KEY,
	version INTEGER NOT NULL,
	data    BLOB    NOT NULL
) STRICT;
