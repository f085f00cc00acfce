-- compatible: 1

-- Which of the app's pages has started a flow, and who waits for its end.
ALTER TABLE keycaddy.flows ADD COLUMN IF NOT EXISTS opener text NOT NULL DEFAULT '';
ALTER TABLE keycaddy.flows ADD COLUMN IF NOT EXISTS waiter bytea;
CREATE INDEX IF NOT EXISTS flows_waiter ON keycaddy.flows (waiter) WHERE waiter IS NOT NULL;
