-- name: message_insert
-- Store a message; nothing when its sender has used the key before.
INSERT INTO message(id, kind, sender, addressed_to, thread, in_reply_to, body, attachments, origin, idem, body_hash,
  turn_id, created_at, from_session, chat, platform_id, answers, reply_key, choices, late)
VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
ON CONFLICT(sender, idem) WHERE idem IS NOT NULL DO NOTHING;

-- name: message_of_idem
-- The message that a sender stored under a key.
SELECT id, thread, body_hash, (SELECT count(*) FROM delivery WHERE message = message.id)
FROM message WHERE sender = ?1 AND idem = ?2;

-- name: message
-- What a reply needs to know of a message.
SELECT id, kind, sender, addressed_to, thread, from_session, chat, platform_id, turn_id, created_at, idem
FROM message WHERE id = ?1;

-- name: message_received_in
-- The session in which somebody got a message; null when they did not.
SELECT lane.session FROM delivery JOIN lane ON lane.id = delivery.lane
WHERE delivery.message = ?1 AND lane.recipient = ?2 LIMIT 1;

-- name: message_effects
-- What a turn had sent: kind, id, and the first 80 characters.
SELECT kind, id, substr(body, 1, 80) FROM message WHERE turn_id = ?1 ORDER BY id LIMIT 50;

-- name: reminder_effects
-- What a turn had armed.
SELECT 'reminder', id, substr(body, 1, 80) FROM reminder WHERE turn_id = ?1 ORDER BY id LIMIT 20;

-- name: thread_rate
-- How many messages of a thread are younger than an id, and how many of those are not from agents.
SELECT count(*), coalesce(sum(sender NOT LIKE 'agent:%'), 0)
FROM (SELECT sender FROM message WHERE thread = ?1 AND id > ?2 LIMIT ?3);

-- name: lane_of_session
-- The lane of a session, as `lane` gives it.
SELECT id, recipient, session, mailbox, chat, lease_id, fence, lease_holder, turn_id, ready_n, urgency, done_turn,
  done_reply, call_id, call_seq, hold, next_seq, head_at, quiet_cap
FROM lane WHERE recipient = ?1 AND session = ?2;

-- name: lane_insert
-- A new lane, as `lane` gives it.
INSERT INTO lane(recipient, session, mailbox, chat) VALUES(?1, ?2, ?3, ?4)
RETURNING id, recipient, session, mailbox, chat, lease_id, fence, lease_holder, turn_id, ready_n, urgency, done_turn,
  done_reply, call_id, call_seq, hold, next_seq, head_at, quiet_cap;

-- name: lane_moved
-- Somebody else leases the lane, or its person writes elsewhere.
UPDATE lane SET mailbox = ?2, chat = ?3 WHERE id = ?1;

-- name: lane_counted
-- Places of a lane were taken behind others that wait.
UPDATE lane SET next_seq = ?2, ready_n = ?3 WHERE id = ?1;

-- name: lane_placed
-- Places of a lane were taken, and with them it changed when it may be taken.
UPDATE lane SET next_seq = ?2, ready_n = ?3, head_at = ?4, urgency = ?5, quiet_cap = ?6 WHERE id = ?1;

-- name: delivery_insert
-- One delivery of a message.
INSERT INTO delivery(id, message, lane, lane_seq, state, urgency, broadcast, not_before, deadline_at, at)
VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10);

-- name: delivery_last
-- The newest delivery.
SELECT max(id) FROM delivery;

-- name: bucket_take
-- Take one token; below zero means refused, and the transaction is undone.
INSERT INTO bucket(owner, what, tokens, at) VALUES(?1, ?2, ?3 - 1.0, ?5)
ON CONFLICT(owner, what) DO UPDATE SET
  tokens = min(?3, tokens + max(0, ?5 - at) / ?4) - 1.0, at = ?5 RETURNING tokens;

-- name: audit_insert
-- One line of the audit.
INSERT INTO audit(at, actor, act, object, detail) VALUES(?1, ?2, ?3, ?4, ?5);

-- name: meta_get
-- One fact of this store.
SELECT v FROM meta WHERE k = ?1;

-- name: meta_set
-- Keep one fact of this store.
INSERT INTO meta(k, v) VALUES(?1, ?2) ON CONFLICT(k) DO UPDATE SET v = excluded.v;
