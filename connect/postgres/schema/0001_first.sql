-- compatible: 1

-- Maps, lists and structs are jsonb, NULL when empty. Tokens and states are
-- SHA-256 digests, never themselves.

CREATE TABLE IF NOT EXISTS keycaddy.connections (
	-- The number of a deleted connection never comes again.
	serial          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	uid             text        NOT NULL UNIQUE,
	integration     text        NOT NULL,
	connection      text        NOT NULL,
	provider        text        NOT NULL,
	status          text        NOT NULL,
	cause           text        NOT NULL,
	config          jsonb,
	metadata        jsonb,
	tags            jsonb,
	end_user        jsonb,
	-- What queries select by, written along with end_user.
	end_user_id     text        NOT NULL,
	organization_id text        NOT NULL,
	-- Connection id, end user's name and e-mail in lower case (as Go has it,
	-- whatever the database's locale is), with U+001F between them.
	search          text        NOT NULL,
	version         bigint      NOT NULL,
	expires         timestamptz,
	created         timestamptz NOT NULL,
	updated         timestamptz NOT NULL,
	UNIQUE (integration, connection)
);
CREATE INDEX IF NOT EXISTS connections_connection   ON keycaddy.connections (connection);
CREATE INDEX IF NOT EXISTS connections_end_user     ON keycaddy.connections (end_user_id)     WHERE end_user_id <> '';
CREATE INDEX IF NOT EXISTS connections_organization ON keycaddy.connections (organization_id) WHERE organization_id <> '';

CREATE INDEX IF NOT EXISTS connections_updated ON keycaddy.connections (updated);

-- Connections that were removed of late, so that other nodes hear of it.
CREATE TABLE IF NOT EXISTS keycaddy.removed (
	uid         text        PRIMARY KEY,
	integration text        NOT NULL,
	connection  text        NOT NULL,
	at          timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS removed_at ON keycaddy.removed (at);

CREATE TABLE IF NOT EXISTS keycaddy.sessions (
	token        bytea       PRIMARY KEY,
	end_user     jsonb,
	organization jsonb,
	tags         jsonb,
	allowed      jsonb,
	connection   text        NOT NULL,
	reconnect    boolean     NOT NULL,
	defaults     jsonb,
	created      timestamptz NOT NULL,
	expires      timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_expires ON keycaddy.sessions (expires);

CREATE TABLE IF NOT EXISTS keycaddy.flows (
	id           text        PRIMARY KEY,
	state        bytea       NOT NULL UNIQUE,
	browser      bytea       NOT NULL,
	session      bytea       NOT NULL,
	integration  text        NOT NULL,
	config       jsonb,
	redirect_url text        NOT NULL,
	expires      timestamptz NOT NULL,
	taken        boolean     NOT NULL DEFAULT false,
	outcome      jsonb
);
CREATE INDEX IF NOT EXISTS flows_expires ON keycaddy.flows (expires);

-- holder is '' when the lease was given back.
CREATE TABLE IF NOT EXISTS keycaddy.leases (
	name       text        PRIMARY KEY,
	holder     text        NOT NULL,
	generation bigint      NOT NULL,
	until      timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS leases_until ON keycaddy.leases (until);

-- The generations of all leases. It is apart from the leases, so that they can
-- be removed and still no generation repeats.
CREATE SEQUENCE IF NOT EXISTS keycaddy.generations CACHE 1;

CREATE TABLE IF NOT EXISTS keycaddy.api_keys (
	name    text        PRIMARY KEY,
	key     bytea       NOT NULL UNIQUE,
	created timestamptz NOT NULL
);

-- What the sealed vault keeps here (vault/sealed): nothing of it can be read
-- without the key ring, which is elsewhere.
CREATE TABLE IF NOT EXISTS keycaddy.blobs (
	name    text   PRIMARY KEY,
	version bigint NOT NULL,
	data    bytea  NOT NULL
);
