-- name: delivery
-- A delivery with its lane and message.
SELECT d.id, d.state, d.lane, d.urgency, d.requeued, d.attempt, d.failures, l.recipient, l.session, l.mailbox, m.id,
  m.kind, m.sender, m.addressed_to, m.thread, m.from_session, m.chat, m.platform_id, m.created_at, d.shown_turn
FROM delivery d JOIN lane l ON l.id = d.lane JOIN message m ON m.id = d.message WHERE d.id = ?1;

-- name: delivery_requeue
-- A dead delivery goes to the end of its lane.
UPDATE delivery SET state = 'ready', lane_seq = ?2, at = ?3, attempt = 0, failures = 0, requeued = requeued + 1,
  reason = NULL, done_at = NULL, deadline_at = NULL, shown_turn = NULL
WHERE id = ?1 AND state IN ('dead', 'expired');

-- name: delivery_drop
-- A dead delivery is given up.
UPDATE delivery SET state = 'cancelled', reason = 'dropped', done_at = ?2 WHERE id = ?1 AND state IN ('dead', 'expired');

-- name: deliveries_waiting_of_mailbox
-- What waits for a mailbox.
SELECT d.id FROM lane l JOIN delivery d ON d.lane = l.id WHERE l.mailbox = ?1 AND d.done_at IS NULL AND d.state IN ('ready', 'scheduled') LIMIT 1000;

-- name: delivery_of_message
-- The first delivery of a message.
SELECT id, state, lane FROM delivery WHERE message = ?1 ORDER BY id LIMIT 1;

-- name: delivery_claim
-- A waiting delivery is handed over outside its turn.
UPDATE delivery SET state = 'done', done_at = ?2, shown_turn = ?3, attempt = attempt + 1 WHERE id = ?1 AND state = 'ready';

-- name: ask_insert
-- An ask.
INSERT INTO ask(id, asker, asker_session, target, state, asked_at, deadline_at) VALUES(?1, ?2, ?3, ?4, 'open', ?5, ?6);

-- name: ask
-- One ask, with its words and the choices.
SELECT a.id, a.asker, a.asker_session, a.target, a.state, a.asked_at, a.deadline_at, a.answer, m.thread, m.chat,
  a.told, m.choices
FROM ask a JOIN message m ON m.id = a.id WHERE a.id = ?1;

-- name: ask_answer_text
-- What was answered.
SELECT m.body, d.id, d.state, d.lane, m.id, m.platform_id FROM ask a JOIN message m ON m.id = a.answer
LEFT JOIN delivery d ON d.message = m.id WHERE a.id = ?1;

-- name: ask_close
-- An ask ends; exactly one end wins.
UPDATE ask SET state = ?2, closed_at = ?3, answer = ?4 WHERE id = ?1 AND state = 'open';

-- name: ask_told
-- The asker is told once that the ask was seen.
UPDATE ask SET told = 1 WHERE id = ?1 AND told = 0;

-- name: ask_open_to
-- Whether an ask to somebody is open.
SELECT 1 FROM ask WHERE target = ?1 AND state = 'open' LIMIT 1;

-- name: ask_count_open
-- How many asks somebody has open.
SELECT count(*) FROM ask WHERE asker = ?1 AND state = 'open';

-- name: asks_past_deadline
-- Open asks whose deadline has passed.
SELECT id FROM ask WHERE state = 'open' AND deadline_at IS NOT NULL AND deadline_at <= ?1 ORDER BY deadline_at LIMIT ?2;

-- name: asks_next_deadline
-- The next deadline of an open ask.
SELECT min(deadline_at) FROM ask WHERE state = 'open' AND deadline_at IS NOT NULL;

-- name: asks_list
-- Asks of somebody (or of all), newest first.
SELECT a.id, a.asker, a.target, m.body, a.asked_at, a.deadline_at, a.state,
  (SELECT state FROM delivery WHERE message = a.id LIMIT 1), m.choices, (SELECT body FROM message WHERE id = a.answer)
FROM ask a JOIN message m ON m.id = a.id
WHERE (?1 IS NULL OR a.asker = ?1) AND (?2 IS NULL OR a.state = ?2) AND a.asked_at <= ?3
ORDER BY a.asked_at DESC, a.id DESC LIMIT ?4;

-- name: reminder_insert
-- A reminder; nothing when its owner has used the key before.
INSERT INTO reminder(id, owner, session, body, idem, due_at, rrule, missed, state, created_at, turn_id)
VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'armed', ?9, ?10)
ON CONFLICT(owner, idem) WHERE idem IS NOT NULL DO NOTHING;

-- name: reminder_of_idem
-- The reminder that an owner armed under a key.
SELECT id, due_at, body FROM reminder WHERE owner = ?1 AND idem = ?2;

-- name: reminder
-- One reminder.
SELECT id, owner, state FROM reminder WHERE id = ?1;

-- name: reminder_count
-- How many reminders somebody has armed.
SELECT count(*) FROM reminder WHERE owner = ?1 AND state = 'armed';

-- name: reminder_cancel
-- Cancel; loses against a reminder that was sent.
UPDATE reminder SET state = 'cancelled' WHERE id = ?1 AND state = 'armed';

-- name: reminders_due
-- What is due.
SELECT id, owner, session, body, due_at, missed FROM reminder WHERE state = 'armed' AND due_at <= ?1
ORDER BY due_at, id LIMIT ?2;

-- name: reminder_next
-- When the next is due.
SELECT min(due_at) FROM reminder WHERE state = 'armed';

-- name: reminder_done
-- Sent, skipped or failed; loses against a cancel.
UPDATE reminder SET state = ?2, sent_at = ?3, attempts = attempts + 1, last_error = ?4 WHERE id = ?1 AND state = 'armed';

-- name: reminder_attempt_insert
-- One try of a reminder.
INSERT INTO reminder_attempt(reminder, owner, at, ok) VALUES(?1, ?2, ?3, ?4);

-- name: reminders_list
-- Reminders of somebody (or of all) in a state (or any), soonest first.
SELECT id, owner, session, body, due_at, state, rrule, created_at, sent_at FROM reminder
WHERE (?1 IS NULL OR owner = ?1) AND (?2 IS NULL OR state = ?2) ORDER BY due_at, id LIMIT ?3;

-- name: queues
-- What waits for each mailbox, since when, and how many turns run.
SELECT mailbox, sum(ready_n), (SELECT min(m.created_at) FROM lane AS l JOIN delivery AS d ON d.lane = l.id
  JOIN message AS m ON m.id = d.message WHERE l.mailbox = lane.mailbox AND l.ready_n > 0 AND d.done_at IS NULL AND d.state = 'ready'),
  count(turn_id)
FROM lane WHERE ready_n > 0 OR lease_id IS NOT NULL GROUP BY mailbox;

-- name: thread_messages
-- The newest messages of a thread before an id, that somebody (or an operator, null) may read.
SELECT id, kind, sender, addressed_to, body, in_reply_to, created_at FROM message
WHERE thread = ?1 AND (?2 IS NULL OR id < ?2) AND (?3 IS NULL OR sender = ?3 OR addressed_to = ?3 OR EXISTS (
  SELECT 1 FROM delivery JOIN lane ON lane.id = delivery.lane
  WHERE delivery.message = message.id AND lane.recipient = ?3))
ORDER BY id DESC LIMIT ?4;
