-- name: turn_add
-- Keep a turn that has ended; a repeat changes nothing.
INSERT INTO turn(
  id, agent, session, boot_epoch, started, ended, outcome, model, wake_kind, envelopes,
  in_tokens, out_tokens, cache_tokens, cost_microusd, tool_calls, wait_ms, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: event_add
-- Keep one thing that happened to an agent.
INSERT INTO event(agent, at, kind, data) VALUES (?, ?, ?, ?);

-- name: turns_since
-- How many turns each agent has begun; ?1 is JSON, a list of [agent, since].
SELECT w.value ->> 0, count(*)
FROM json_each(?1) AS w JOIN turn AS t ON t.agent = w.value ->> 0 AND t.started >= w.value ->> 1
GROUP BY 1;

-- name: turns_of
-- Turns of some agents that began since ?2, oldest first; ?1 is JSON, a list of names.
SELECT t.agent, t.started, t.ended, t.outcome, t.in_tokens, t.out_tokens
FROM json_each(?1) AS w JOIN turn AS t ON t.agent = w.value AND t.started >= ?2
ORDER BY t.agent, t.started;

-- name: last_turns
-- The newest turns of one agent that ended before ?2.
SELECT id, started, ended, outcome FROM turn WHERE agent = ?1 AND started < ?2 ORDER BY started DESC LIMIT ?3;

-- name: last_events
-- The newest events of one agent before ?2.
SELECT id, at, kind, data FROM event WHERE agent = ?1 AND at < ?2 ORDER BY at DESC, id DESC LIMIT ?3;

-- name: events_since
-- How many events of a kind each agent has had; ?1 is JSON, a list of names.
SELECT e.agent, count(*)
FROM json_each(?1) AS w JOIN event AS e ON e.agent = w.value AND e.at >= ?3
WHERE e.kind = ?2
GROUP BY 1;
