-- What keycaddy has done: see connect.Log. took is in microseconds.
CREATE TABLE logs (
	serial      INTEGER PRIMARY KEY AUTOINCREMENT,
	id          TEXT    NOT NULL UNIQUE,
	kind        TEXT    NOT NULL,
	status      TEXT    NOT NULL,
	integration TEXT    NOT NULL,
	connection  TEXT    NOT NULL,
	provider    TEXT    NOT NULL,
	end_user    TEXT    NOT NULL,
	caller      TEXT    NOT NULL,
	code        TEXT    NOT NULL,
	message     TEXT    NOT NULL,
	detail      TEXT    NOT NULL,
	method      TEXT    NOT NULL,
	path        TEXT    NOT NULL,
	answer      INTEGER NOT NULL,
	retries     INTEGER NOT NULL,
	replayed    INTEGER NOT NULL,
	started     INTEGER NOT NULL,
	changed     INTEGER NOT NULL,
	took        INTEGER NOT NULL,
	search      TEXT    NOT NULL
) STRICT;
CREATE INDEX logs_started    ON logs (started);
CREATE INDEX logs_changed    ON logs (changed);
CREATE INDEX logs_connection ON logs (connection, serial) WHERE connection <> '';

CREATE TABLE log_steps (
	log     INTEGER NOT NULL REFERENCES logs (serial) ON DELETE CASCADE,
	at      INTEGER NOT NULL,
	name    TEXT    NOT NULL,
	message TEXT    NOT NULL,
	detail  TEXT    NOT NULL,
	PRIMARY KEY (log, at, name)
) STRICT, WITHOUT ROWID;
