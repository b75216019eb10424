-- What an operator looks at, and how one signs in. Lists of ids come as JSON.

-- name: op_threads
-- Threads by their newest message, newest first; ?1 is where the last page ended, ?2 who takes part.
SELECT m.thread, m.id FROM message AS m
WHERE m.id < ?1
  AND NOT EXISTS (SELECT 1 FROM message AS n WHERE n.thread = m.thread AND n.id > m.id)
  AND (?2 IS NULL OR EXISTS (
    SELECT 1 FROM message AS t WHERE t.thread = m.thread AND (t.sender = ?2 OR t.addressed_to = ?2)))
ORDER BY m.id DESC LIMIT ?3;

-- name: op_thread_spans
-- First message, count, first and last time of some threads.
SELECT thread, min(id), count(*), min(created_at), max(created_at) FROM message
WHERE thread IN (SELECT value FROM json_each(?1)) GROUP BY thread;

-- name: op_openings
-- How some messages begin, behind what was said around them before.
SELECT id, kind, sender, addressed_to, substr(body, CASE WHEN body GLOB '[[]Recent channel messages]*' || char(10, 10) || '*'
  THEN instr(body, char(10, 10)) + 2 ELSE 1 END, 200) FROM message
WHERE id IN (SELECT value FROM json_each(?1));

-- name: op_thread_people
-- Who takes part in some threads, in the order in which they came.
SELECT thread, who FROM (
  SELECT thread, sender AS who, min(id) || ' 0' AS came FROM message
  WHERE thread IN (SELECT value FROM json_each(?1)) GROUP BY thread, sender
  UNION ALL
  SELECT thread, addressed_to, min(id) || ' 1' FROM message
  WHERE thread IN (SELECT value FROM json_each(?1)) GROUP BY thread, addressed_to)
GROUP BY thread, who ORDER BY thread, min(came);

-- name: op_thread_states
-- Deliveries of some threads by state, and whether their lanes are held.
SELECT m.thread, d.state, l.hold IS NOT NULL, count(*)
FROM message AS m JOIN delivery AS d ON d.message = m.id JOIN lane AS l ON l.id = d.lane
WHERE m.thread IN (SELECT value FROM json_each(?1)) GROUP BY 1, 2, 3;

-- name: op_messages
-- Messages of one thread, oldest first.
SELECT id, kind, sender, addressed_to, body, created_at, in_reply_to, turn_id FROM message
WHERE thread = ?1 AND id > ?2 ORDER BY id LIMIT ?3;

-- name: op_deliveries
-- Where some messages stand for each recipient.
SELECT d.message, d.id, l.recipient, d.state, d.lane, d.attempt, d.urgency, d.not_before, d.deadline_at,
  d.done_at, d.shown_turn, d.reason, l.hold, d.broadcast
FROM delivery AS d JOIN lane AS l ON l.id = d.lane
WHERE d.message IN (SELECT value FROM json_each(?1)) ORDER BY d.id;

-- name: op_asks_of
-- The asks that some messages are.
SELECT a.id, a.asker, a.target, m.body, a.state, a.asked_at, m.thread, a.deadline_at, a.closed_at, b.body
FROM ask AS a JOIN message AS m ON m.id = a.id LEFT JOIN message AS b ON b.id = a.answer
WHERE a.id IN (SELECT value FROM json_each(?1));

-- name: op_asks
-- Asks, newest first; ?2 is open, closed or all; ?3 asks or is asked.
SELECT a.id, a.asker, a.target, m.body, a.state, a.asked_at, m.thread, a.deadline_at, a.closed_at, b.body
FROM ask AS a JOIN message AS m ON m.id = a.id LEFT JOIN message AS b ON b.id = a.answer
WHERE a.id < ?1 AND (?2 = 'all' OR (?2 = 'open') = (a.state = 'open'))
  AND (?3 IS NULL OR a.asker = ?3 OR a.target = ?3)
ORDER BY a.id DESC LIMIT ?4;

-- name: op_reminders_open
-- Armed reminders by when they are due, after (?1, ?2).
SELECT id, owner, session, body, due_at, state, created_at, rrule, attempts, sent_at, last_error FROM reminder
WHERE state = 'armed' AND (due_at, id) > (?1, ?2) AND (?3 IS NULL OR owner = ?3)
ORDER BY due_at, id LIMIT ?4;

-- name: op_reminders
-- Reminders, newest first; ?2 is closed or all.
SELECT id, owner, session, body, due_at, state, created_at, rrule, attempts, sent_at, last_error FROM reminder
WHERE id < ?1 AND (?2 = 'all' OR state <> 'armed') AND (?3 IS NULL OR owner = ?3)
ORDER BY id DESC LIMIT ?4;

-- name: op_lanes
-- Lanes in which something waits, runs or is held, after lane ?1.
SELECT l.id, l.recipient, l.session, l.ready_n, l.urgency, l.hold, l.turn_id,
  (SELECT m.created_at FROM delivery AS d JOIN message AS m ON m.id = d.message
   WHERE d.lane = l.id AND d.done_at IS NULL AND d.state = 'ready' ORDER BY d.lane_seq LIMIT 1)
FROM lane AS l
WHERE l.id > ?1 AND (l.ready_n > 0 OR l.lease_id IS NOT NULL OR l.hold IS NOT NULL)
  AND (?2 IS NULL OR l.recipient = ?2)
ORDER BY l.id LIMIT ?3;

-- name: op_dead
-- What was given up, newest first, before (?1, ?2).
SELECT d.id, m.id, m.kind, m.sender, l.recipient, m.addressed_to, m.thread, substr(m.body, 1, 200), d.state,
  m.created_at, d.reason, d.attempt, coalesce(d.done_at, 0)
FROM delivery AS d JOIN message AS m ON m.id = d.message JOIN lane AS l ON l.id = d.lane
WHERE d.state IN ('dead', 'expired') AND (coalesce(d.done_at, 0), d.id) < (?1, ?2)
  AND (?3 IS NULL OR l.recipient = ?3 OR m.sender = ?3)
ORDER BY coalesce(d.done_at, 0) DESC, d.id DESC LIMIT ?4;

-- name: op_timeline
-- The newest deliveries to one agent that were stored before ?2.
SELECT d.id, m.created_at, m.kind, d.state, d.done_at
FROM delivery AS d JOIN lane AS l ON l.id = d.lane JOIN message AS m ON m.id = d.message
WHERE l.recipient = ?1 AND m.created_at < ?2 ORDER BY d.id DESC LIMIT ?3;

-- name: op_audit
-- The audit, newest first.
SELECT id, at, actor, act, object, detail FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2;

-- name: op_open_asks
-- How many open asks each asker has.
SELECT asker, count(*) FROM ask WHERE state = 'open' GROUP BY asker;

-- name: op_open_reminders
-- How many armed reminders each owner has.
SELECT owner, count(*) FROM reminder WHERE state = 'armed' GROUP BY owner;

-- name: op_reminders_sent
-- Delivered reminders of some owners since ?2 (hive, section 14.4).
SELECT r.owner, count(*)
FROM json_each(?1) AS w JOIN reminder AS r ON r.owner = w.value AND r.sent_at >= ?2 GROUP BY r.owner;

-- name: op_reminder_hours
-- Attempts and successes of some owners since ?2, by hour.
SELECT a.owner, (a.at - ?2) / 3600000, count(*), sum(a.ok)
FROM json_each(?1) AS w JOIN reminder_attempt AS a ON a.owner = w.value AND a.at >= ?2 GROUP BY 1, 2;

-- name: op_dead_letters
-- How many deliveries to each recipient were given up.
SELECT l.recipient, count(*) FROM delivery AS d JOIN lane AS l ON l.id = d.lane
WHERE d.state = 'dead' GROUP BY l.recipient;

-- name: op_waiting
-- What waits for each recipient, and since when.
SELECT l.recipient, count(*), min(m.created_at)
FROM lane AS l JOIN delivery AS d ON d.lane = l.id AND d.done_at IS NULL AND d.state = 'ready'
JOIN message AS m ON m.id = d.message WHERE l.ready_n > 0 GROUP BY l.recipient;

-- name: op_held
-- How many lanes are held, by reason.
SELECT hold, count(*) FROM lane WHERE hold IS NOT NULL GROUP BY hold;

-- name: op_names
-- Names of some people.
SELECT id, name FROM person WHERE id IN (SELECT value FROM json_each(?1));

-- name: op_code
-- What a one-time code is for, and until when it can be used.
SELECT purpose, expires_at FROM once_code WHERE hash = ?1;

-- name: op_code_spend
-- Mark a code as used, so that a second try is told why it fails.
UPDATE once_code SET purpose = 'used' WHERE hash = ?1 AND purpose = ?2;
