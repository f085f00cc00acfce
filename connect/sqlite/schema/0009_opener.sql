-- Which of the app's pages has started a flow, and who waits for its end.
ALTER TABLE flows ADD COLUMN opener TEXT NOT NULL DEFAULT '';
ALTER TABLE flows ADD COLUMN waiter BLOB;
CREATE INDEX flows_waiter ON flows (waiter) WHERE waiter IS NOT NULL;
