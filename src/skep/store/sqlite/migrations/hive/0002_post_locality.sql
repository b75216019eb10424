-- A commit writes whole pages: what is new lies together, and what is over leaves the indexes.

-- Counting what is ready changes no index; only what becomes ready, or is not any more, does.
DROP INDEX lane_pick;
CREATE INDEX lane_pick ON lane(mailbox, urgency, head_at) WHERE lease_id IS NULL AND hold IS NULL AND head_at IS NOT NULL;

-- Places in a lane are unique among what is alive; finished deliveries are found by their message.
CREATE TABLE delivery_2(
  id INTEGER PRIMARY KEY, message TEXT NOT NULL REFERENCES message(id), lane INTEGER NOT NULL REFERENCES lane(id),
  lane_seq INTEGER,                            -- null while scheduled: the place is taken when it is due
  state TEXT NOT NULL, urgency INTEGER NOT NULL, broadcast INTEGER NOT NULL DEFAULT 0,
  not_before INTEGER NOT NULL DEFAULT 0, deadline_at INTEGER, at INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, requeued INTEGER NOT NULL DEFAULT 0,
  lease_id TEXT, shown_turn TEXT, done_at INTEGER, reason TEXT);
INSERT INTO delivery_2 SELECT id, message, lane, lane_seq, state, urgency, broadcast, not_before, deadline_at, at, attempt,
  failures, requeued, lease_id, shown_turn, done_at, reason FROM delivery;
DROP TABLE delivery;
ALTER TABLE delivery_2 RENAME TO delivery;
CREATE UNIQUE INDEX delivery_live    ON delivery(lane, lane_seq) WHERE done_at IS NULL;
CREATE INDEX        delivery_message ON delivery(message);
CREATE INDEX        delivery_due     ON delivery(not_before)     WHERE state = 'scheduled';
CREATE INDEX        delivery_ddl     ON delivery(deadline_at)    WHERE deadline_at IS NOT NULL AND state IN ('scheduled', 'ready');
CREATE INDEX        delivery_dead    ON delivery(done_at)        WHERE state IN ('dead', 'expired');

-- The key of an event, the part that grows first: `event` is the platform's message id (and which edit of it), `place`
-- is `<relay>:<platform>:<scope>:<chat>`. Until now the web chat was the only platform, whose ids begin with m_.
CREATE TABLE intake_2(
  event TEXT NOT NULL, place TEXT NOT NULL, outcome TEXT NOT NULL, message TEXT, reason TEXT, at INTEGER NOT NULL,
  PRIMARY KEY(event, place)) WITHOUT ROWID;
INSERT INTO intake_2
  SELECT substr(key, instr(key, ':m_') + 1), substr(key, 1, instr(key, ':m_') - 1), outcome, message, reason, at
  FROM intake WHERE instr(key, ':m_') > 0
  UNION ALL SELECT key, '', outcome, message, reason, at FROM intake WHERE instr(key, ':m_') = 0;
DROP TABLE intake;
ALTER TABLE intake_2 RENAME TO intake;
