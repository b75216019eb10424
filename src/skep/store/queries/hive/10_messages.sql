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

-- name: lane_put
-- Take the next place in a lane for a message that is ready now; make the lane when it is new.
INSERT INTO lane(recipient, session, mailbox, chat, next_seq, ready_n, head_at, urgency, quiet_cap)
VALUES(?1, ?2, ?3, ?4, 2, 1, ?5, ?6, ?7)
ON CONFLICT(recipient, session) DO UPDATE SET
  next_seq = next_seq + 1, ready_n = ready_n + 1, chat = coalesce(excluded.chat, chat), mailbox = excluded.mailbox,
  urgency = max(urgency, excluded.urgency),
  head_at = CASE
    WHEN ready_n = 0 THEN excluded.head_at
    WHEN excluded.urgency > 0 THEN min(head_at, ?8)
    WHEN quiet_cap IS NOT NULL AND excluded.quiet_cap IS NOT NULL AND head_at > ?8 THEN min(quiet_cap, max(head_at, excluded.head_at))
    ELSE head_at END,
  quiet_cap = CASE WHEN ready_n = 0 THEN excluded.quiet_cap ELSE quiet_cap END
RETURNING id, next_seq - 1, lease_id, hold, head_at;

-- name: lane_ensure
-- The lane of a message that is not due yet; make it when it is new.
INSERT INTO lane(recipient, session, mailbox, chat) VALUES(?1, ?2, ?3, ?4)
ON CONFLICT(recipient, session) DO UPDATE SET chat = coalesce(excluded.chat, chat), mailbox = excluded.mailbox
RETURNING id;

-- name: lane_put_due
-- Take the next place in a lane that exists.
UPDATE lane SET next_seq = next_seq + 1, ready_n = ready_n + 1, urgency = max(urgency, ?2),
  head_at = CASE WHEN ready_n = 0 THEN ?3 WHEN ?2 > 0 THEN min(head_at, ?3) ELSE head_at END
WHERE id = ?1 RETURNING next_seq - 1, mailbox, recipient;

-- name: delivery_insert
-- One delivery of a message.
INSERT INTO delivery(message, lane, lane_seq, state, urgency, broadcast, not_before, deadline_at, at)
VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9);

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
