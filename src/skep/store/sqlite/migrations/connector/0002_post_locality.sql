-- A commit writes whole pages: nothing is indexed by what lies scattered, and no id is counted in a row of its own.

-- Old keys are found by walking the table, now and then.
DROP INDEX intake_by_age;

-- The process counts ids itself: those of each start lie above all of the starts before.
CREATE TABLE delivery_2 (
    delivery_id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    instance TEXT NOT NULL,
    platform TEXT NOT NULL,
    message_id TEXT NOT NULL,
    event BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT;

INSERT INTO delivery_2 (delivery_id, tenant, instance, platform, message_id, event, at)
SELECT delivery_id, tenant, instance, platform, message_id, event, at FROM delivery;

DROP TABLE delivery;
ALTER TABLE delivery_2 RENAME TO delivery;

CREATE INDEX delivery_of_instance ON delivery (tenant, instance, delivery_id);
