-- compatible: 1

-- What keycaddy has done: see connect.Log. took is in microseconds.
CREATE TABLE IF NOT EXISTS keycaddy.logs (
	serial      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	id          text        NOT NULL UNIQUE,
	kind        text        NOT NULL,
	status      text        NOT NULL,
	integration text        NOT NULL,
	connection  text        NOT NULL,
	provider    text        NOT NULL,
	end_user    text        NOT NULL,
	caller      text        NOT NULL,
	code        text        NOT NULL,
	message     text        NOT NULL,
	detail      text        NOT NULL,
	method      text        NOT NULL,
	path        text        NOT NULL,
	answer      bigint      NOT NULL,
	retries     bigint      NOT NULL,
	replayed    boolean     NOT NULL,
	started     timestamptz NOT NULL,
	changed     timestamptz NOT NULL,
	took        bigint      NOT NULL,
	search      text        NOT NULL
);
CREATE INDEX IF NOT EXISTS logs_started    ON keycaddy.logs (started);
CREATE INDEX IF NOT EXISTS logs_changed    ON keycaddy.logs (changed);
CREATE INDEX IF NOT EXISTS logs_connection ON keycaddy.logs (connection, serial) WHERE connection <> '';

CREATE TABLE IF NOT EXISTS keycaddy.log_steps (
	log     bigint      NOT NULL REFERENCES keycaddy.logs (serial) ON DELETE CASCADE,
	at      timestamptz NOT NULL,
	name    text        NOT NULL,
	message text        NOT NULL,
	detail  text        NOT NULL,
	PRIMARY KEY (log, at, name)
);
