-- name: lane_pick
-- The next lanes of a mailbox, by urgency, then the oldest head (each part is one probe of an index), and the envelope
-- at the head of each.
SELECT l.id, d.id, d.lane_seq, d.urgency, d.broadcast, d.deadline_at, d.attempt, d.shown_turn, d.requeued, m.id, m.kind,
  m.sender, m.addressed_to, m.thread, m.in_reply_to, m.body, m.attachments, m.origin, m.created_at, m.chat,
  m.platform_id, m.reply_key, m.answers, m.choices, m.late, d.failures
FROM (
  SELECT * FROM (SELECT id FROM lane WHERE mailbox = ?1 AND urgency = 2
    AND head_at <= ?2 AND lease_id IS NULL AND hold IS NULL ORDER BY head_at LIMIT ?3)
  UNION ALL
  SELECT * FROM (SELECT id FROM lane WHERE mailbox = ?1 AND urgency = 1
    AND head_at <= ?2 AND lease_id IS NULL AND hold IS NULL ORDER BY head_at LIMIT ?3)
  UNION ALL
  SELECT * FROM (SELECT id FROM lane WHERE mailbox = ?1 AND urgency = 0
    AND head_at <= ?2 AND lease_id IS NULL AND hold IS NULL ORDER BY head_at LIMIT ?3)
  LIMIT ?3) AS l
CROSS JOIN delivery AS d CROSS JOIN message AS m
WHERE d.id = (SELECT id FROM delivery WHERE lane = l.id AND done_at IS NULL AND state = 'ready' ORDER BY lane_seq LIMIT 1)
  AND m.id = d.message;

-- name: mailbox_waiting
-- What waits in the lanes of a mailbox that can be leased; of a long list only the start is counted.
SELECT coalesce(sum(ready_n), 0) FROM (SELECT ready_n FROM lane WHERE mailbox = ?1 AND lease_id IS NULL AND hold IS NULL
  AND head_at IS NOT NULL LIMIT ?2);

-- name: lane_next_at
-- When the next lane of a mailbox can be taken.
SELECT min(at) FROM (
  SELECT (SELECT head_at FROM lane WHERE mailbox = ?1 AND urgency = 2 AND lease_id IS NULL AND hold IS NULL
    AND head_at IS NOT NULL ORDER BY head_at LIMIT 1) AS at
  UNION ALL SELECT (SELECT head_at FROM lane WHERE mailbox = ?1 AND urgency = 1 AND lease_id IS NULL AND hold IS NULL
    AND head_at IS NOT NULL ORDER BY head_at LIMIT 1)
  UNION ALL SELECT (SELECT head_at FROM lane WHERE mailbox = ?1 AND urgency = 0 AND lease_id IS NULL AND hold IS NULL
    AND head_at IS NOT NULL ORDER BY head_at LIMIT 1));

-- name: envelopes_ready
-- The head of a lane, in order.
SELECT d.id, d.lane_seq, d.urgency, d.broadcast, d.deadline_at, d.attempt, d.shown_turn, d.requeued, m.id, m.kind,
  m.sender, m.addressed_to, m.thread, m.in_reply_to, m.body, m.attachments, m.origin, m.created_at, m.chat,
  m.platform_id, m.reply_key, m.answers, m.choices, m.late, d.failures
FROM delivery d JOIN message m ON m.id = d.message
WHERE d.lane = ?1 AND d.done_at IS NULL AND d.state = 'ready' ORDER BY d.lane_seq LIMIT ?2;

-- name: envelopes_interrupt
-- The first interrupt of a lane: it goes before all else.
SELECT d.id, d.lane_seq, d.urgency, d.broadcast, d.deadline_at, d.attempt, d.shown_turn, d.requeued, m.id, m.kind,
  m.sender, m.addressed_to, m.thread, m.in_reply_to, m.body, m.attachments, m.origin, m.created_at, m.chat,
  m.platform_id, m.reply_key, m.answers, m.choices, m.late, d.failures
FROM delivery d JOIN message m ON m.id = d.message
WHERE d.lane = ?1 AND d.done_at IS NULL AND d.state = 'ready' AND d.urgency = 2 ORDER BY d.lane_seq LIMIT 1;

-- name: envelopes_held
-- What a lease holds, in order, from a place on.
SELECT d.id, d.lane_seq, d.urgency, d.broadcast, d.deadline_at, d.attempt, d.shown_turn, d.requeued, m.id, m.kind,
  m.sender, m.addressed_to, m.thread, m.in_reply_to, m.body, m.attachments, m.origin, m.created_at, m.chat,
  m.platform_id, m.reply_key, m.answers, m.choices, m.late, d.failures
FROM delivery d JOIN message m ON m.id = d.message
WHERE d.lane = ?1 AND d.done_at IS NULL AND d.state = 'shown' AND d.lane_seq >= ?2 ORDER BY d.lane_seq;

-- name: delivery_lease
-- One delivery goes out with a lease.
UPDATE delivery SET state = 'leased', lease_id = ?2, attempt = attempt + 1 WHERE id = ?1 AND state = 'ready';

-- name: delivery_show_more
-- One more delivery goes into a running turn.
UPDATE delivery SET state = 'shown', lease_id = ?2, shown_turn = ?3, attempt = attempt + 1
WHERE id = ?1 AND state = 'ready';

-- name: lane_grant
-- Lease a lane.
UPDATE lane SET lease_id = ?2, fence = ?3, lease_holder = ?4, leased_at = ?5, lease_until = ?6,
  ready_n = ?7, quiet_cap = NULL, turn_id = NULL, call_id = NULL, call_seq = NULL
WHERE id = ?1;

-- name: lane_take_more
-- Note what a running turn took, so that a repeat gives the same.
UPDATE lane SET ready_n = ?2, call_id = ?3, call_seq = ?4 WHERE id = ?1;

-- name: lane
-- A lane and its lease.
SELECT id, recipient, session, mailbox, chat, lease_id, fence, lease_holder, turn_id, ready_n, urgency, done_turn,
  done_reply, call_id, call_seq, hold, next_seq, head_at, quiet_cap
FROM lane WHERE id = ?1;

-- name: lane_head
-- Since when the first that is ready in a lane waits.
SELECT at FROM delivery WHERE lane = ?1 AND done_at IS NULL AND state = 'ready' ORDER BY lane_seq LIMIT 1;

-- name: lane_urgency
-- How urgent the most urgent that is ready in a lane is.
SELECT coalesce(max(urgency), 0) FROM delivery WHERE lane = ?1 AND done_at IS NULL AND state = 'ready' AND urgency > 0;

-- name: lane_start
-- The turn of a lease begins.
UPDATE lane SET turn_id = ?2 WHERE id = ?1;

-- name: delivery_show
-- What was leased is shown.
UPDATE delivery SET state = 'shown', shown_turn = ?2 WHERE id = ?1;

-- name: lane_renew
-- A lease goes on.
UPDATE lane SET lease_until = ?4 WHERE id = ?1 AND lease_id = ?2 AND fence = ?3;

-- name: deliveries_of_lease
-- What a lease holds, leased or shown: id, state, attempt, failures, and of the message id, kind, sender, created, chat, platform id.
SELECT d.id, d.state, d.attempt, d.failures, m.id, m.kind, m.sender, m.created_at, m.chat, m.platform_id, m.thread,
  d.requeued, d.shown_turn
FROM delivery d JOIN message m ON m.id = d.message
WHERE d.lane = ?1 AND d.done_at IS NULL AND d.state = ?2 ORDER BY d.lane_seq;

-- name: delivery_done
-- What a lease holds, leased or shown, is done.
UPDATE delivery SET state = 'done', done_at = ?2, shown_turn = ?3, lease_id = NULL WHERE id = ?1;

-- name: delivery_back
-- One delivery is ready again, in its place: attempt and failures as given.
UPDATE delivery SET state = 'ready', lease_id = NULL, attempt = ?2, failures = ?3, reason = ?4
WHERE id = ?1 AND state IN ('leased', 'shown');

-- name: delivery_close
-- One delivery ends in a final state.
UPDATE delivery SET state = ?2, done_at = ?3, reason = ?4, lease_id = NULL
WHERE id = ?1 AND state IN ('scheduled', 'ready', 'leased', 'shown');

-- name: lane_release
-- A lane is free again.
UPDATE lane SET lease_id = NULL, fence = ?2, lease_holder = NULL, leased_at = NULL, lease_until = NULL, turn_id = NULL,
  call_id = NULL, call_seq = NULL, ready_n = ?3, head_at = ?4, urgency = ?5, done_turn = ?6, done_reply = ?7
WHERE id = ?1;

-- name: lane_recount
-- After a ready delivery has left its lane other than by a lease.
UPDATE lane SET ready_n = ready_n - 1,
  head_at = CASE WHEN ready_n > 1 THEN head_at END,
  urgency = CASE WHEN urgency > 0 THEN coalesce((SELECT max(urgency) FROM delivery
    WHERE delivery.lane = lane.id AND done_at IS NULL AND state = 'ready' AND urgency > 0), 0) ELSE 0 END
WHERE id = ?1;

-- name: turn_was_done
-- Whether a turn without an answer ended here not long ago.
SELECT 1 FROM (SELECT lane, shown_turn, state FROM delivery ORDER BY id DESC LIMIT 2000)
WHERE lane = ?1 AND shown_turn = ?2 AND state = 'done' LIMIT 1;

-- name: reply_of_turn
-- The message that a turn sent as its answer.
SELECT id FROM message WHERE turn_id = ?1 AND idem LIKE 'r:%' LIMIT 1;

-- name: pending_from
-- Who waits in a lane.
SELECT DISTINCT sender FROM (SELECT m.sender AS sender FROM delivery d JOIN message m ON m.id = d.message
  WHERE d.lane = ?1 AND d.done_at IS NULL AND d.state = 'ready' ORDER BY d.lane_seq LIMIT 20) LIMIT 5;

-- name: pending_oldest
-- When the oldest that waits in a lane was stored.
SELECT m.created_at FROM delivery d JOIN message m ON m.id = d.message
WHERE d.lane = ?1 AND d.done_at IS NULL AND d.state = 'ready' ORDER BY d.lane_seq LIMIT 1;

-- name: pending_elsewhere
-- Who waits at the head of other lanes of a mailbox, and since when.
SELECT m.sender, m.created_at FROM (SELECT id FROM lane WHERE mailbox = ?1 AND lease_id IS NULL AND hold IS NULL
  AND head_at IS NOT NULL LIMIT 5) l
JOIN delivery d ON d.id = (SELECT id FROM delivery WHERE lane = l.id AND done_at IS NULL AND state = 'ready' ORDER BY lane_seq LIMIT 1)
JOIN message m ON m.id = d.message;

-- name: leases_lost
-- Leases that ran out, or were never started in time.
SELECT id, recipient, session, lease_id, lease_holder, turn_id, turn_id IS NULL AND leased_at <= ?2 FROM lane
WHERE lease_id IS NOT NULL AND (lease_until <= ?1 OR (turn_id IS NULL AND leased_at <= ?2)) LIMIT 256;

-- name: leases_of_holder
-- Leases of one connection.
SELECT id, recipient, session, lease_id, lease_holder, turn_id, 0 FROM lane
WHERE lease_id IS NOT NULL AND lease_holder = ?1;

-- name: leases_of_mailbox
-- Leases of one mailbox.
SELECT id, recipient, session, lease_id, lease_holder, turn_id, 0 FROM lane WHERE lease_id IS NOT NULL AND mailbox = ?1;

-- name: leases_all
-- Every lease.
SELECT id, recipient, session, lease_id, lease_holder, turn_id, 0 FROM lane WHERE lease_id IS NOT NULL;

-- name: lease_next_end
-- When the next lease runs out or must have been started.
SELECT min(lease_until), min(CASE WHEN turn_id IS NULL THEN leased_at END) FROM lane WHERE lease_id IS NOT NULL;

-- name: mailbox_is_busy
-- Whether a lane of a mailbox is leased.
SELECT 1 FROM lane WHERE mailbox = ?1 AND lease_id IS NOT NULL LIMIT 1;

-- name: lanes_clamp
-- After a start: no lane waits for a time of the clock before.
UPDATE lane SET head_at = ?1 WHERE head_at > ?1 AND ready_n > 0;

-- name: deliveries_clamp
-- After a start: nothing that is ready counts as younger than now.
UPDATE delivery SET at = ?1 WHERE done_at IS NULL AND state = 'ready' AND at > ?1;

-- name: lanes_unhold_boot
-- After a start: what was held for the process before is free.
UPDATE lane SET hold = NULL WHERE hold IN ('restart', 'zombie');

-- name: lane_hold
-- Grant no lease of a lane.
UPDATE lane SET hold = ?2 WHERE id = ?1 AND (hold IS NULL OR hold <> ?2);

-- name: mailbox_hold
-- Grant no lease of a mailbox.
UPDATE lane SET hold = ?2 WHERE mailbox = ?1 AND hold IS NULL;

-- name: lane_unhold
-- Free a lane.
UPDATE lane SET hold = NULL WHERE id = ?1 AND hold IS NOT NULL AND (?2 IS NULL OR hold = ?2) RETURNING mailbox;

-- name: mailbox_unhold
-- Free the lanes of a mailbox.
UPDATE lane SET hold = NULL WHERE mailbox = ?1 AND hold IS NOT NULL AND (?2 IS NULL OR hold = ?2) RETURNING mailbox;

-- name: due_scheduled
-- Scheduled deliveries that are due.
SELECT d.id, d.lane, d.urgency, d.message FROM delivery d WHERE d.state = 'scheduled' AND d.not_before <= ?1
ORDER BY d.not_before, d.id LIMIT ?2;

-- name: delivery_due
-- A scheduled delivery takes its place.
UPDATE delivery SET state = 'ready', lane_seq = ?2, at = ?3 WHERE id = ?1 AND state = 'scheduled';

-- name: next_scheduled
-- When the next scheduled delivery is due.
SELECT min(not_before) FROM delivery WHERE state = 'scheduled';

-- name: past_deadline
-- Deliveries whose deadline has passed.
SELECT id FROM delivery WHERE deadline_at IS NOT NULL AND state IN ('scheduled', 'ready') AND deadline_at <= ?1
ORDER BY deadline_at LIMIT ?2;

-- name: next_deadline
-- The next deadline of a delivery.
SELECT min(deadline_at) FROM delivery WHERE deadline_at IS NOT NULL AND state IN ('scheduled', 'ready');

-- name: too_old
-- Ready deliveries that have waited too long; operators may take their time.
SELECT d.id FROM delivery d JOIN message m ON m.id = d.message JOIN lane l ON l.id = d.lane
WHERE d.done_at IS NULL AND d.state = 'ready' AND l.mailbox NOT LIKE 'operator:%'
AND m.created_at < CASE WHEN m.kind = 'system' THEN ?1 ELSE ?2 END LIMIT ?3;
