-- name: agent
-- One agent that is not retired.
SELECT name, role, state, people, talks_to FROM agent WHERE name = ?1 AND retired = 0;

-- name: agents
-- All agents that are not retired.
SELECT name, role, state, people, talks_to FROM agent WHERE retired = 0 ORDER BY name;

-- name: agent_put
-- What the configuration says of an agent.
INSERT INTO agent(name, role, state, people, talks_to) VALUES(?1, ?2, ?3, ?4, ?5)
ON CONFLICT(name) DO UPDATE SET role = excluded.role, people = excluded.people, talks_to = excluded.talks_to, retired = 0;

-- name: agent_retire
-- The agent is gone from the configuration.
UPDATE agent SET retired = 1, state = 'stopped' WHERE name = ?1 AND retired = 0;

-- name: agent_state
-- What the supervisor says.
UPDATE agent SET state = ?2 WHERE name = ?1;

-- name: agent_facts
-- What the supervisor keeps, of every agent.
SELECT name, role, state, uid, harness, boot_epoch, pid, pid_start, pump_at, tools_at, restarts, note FROM agent WHERE retired = 0;

-- name: agent_facts_set
-- Keep facts of the supervisor.
UPDATE agent SET uid = ?2, harness = ?3, boot_epoch = ?4, pid = ?5, pid_start = ?6, pump_at = ?7, tools_at = ?8,
  restarts = ?9, note = ?10 WHERE name = ?1;

-- name: manager
-- The agent that coordinates.
SELECT name FROM agent WHERE role = 'manager' AND retired = 0 LIMIT 1;

-- name: intake_get
-- What became of an event.
SELECT outcome, message, reason FROM intake WHERE event = ?1 AND place = ?2;

-- name: intake_known
-- The event, if it came before: its key, and the message that it became.
SELECT event, place, message FROM intake WHERE event = ?1 AND place = ?2;

-- name: intake_put
-- Keep what became of an event.
INSERT INTO intake(event, place, outcome, message, reason, at) VALUES(?1, ?2, ?3, ?4, ?5, ?6);

-- name: refused_put
-- Keep an event that will never be taken.
INSERT INTO refused(key, relay, event, reason, at) VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT(key) DO NOTHING;

-- name: chat_put
-- A chat was heard from; make it when it is new. A thread begins with the agent of its chat.
INSERT INTO chat(relay, platform, bot_id, scope_id, chat_id, thread_id, chat_type, user_id, last_seen, agent)
VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, (SELECT agent FROM chat WHERE ?6 <> '' AND relay = ?1 AND platform = ?2
  AND bot_id = ?3 AND scope_id = ?4 AND chat_id = ?5 AND thread_id = ''))
ON CONFLICT(relay, platform, bot_id, scope_id, chat_id, thread_id) DO UPDATE SET
  chat_type = excluded.chat_type, user_id = excluded.user_id, last_seen = excluded.last_seen
RETURNING id, relay, platform, bot_id, scope_id, chat_id, thread_id, chat_type, user_id, agent, last_seen;

-- name: chat
-- One chat.
SELECT id, relay, platform, bot_id, scope_id, chat_id, thread_id, chat_type, user_id, agent, last_seen FROM chat WHERE id = ?1;

-- name: chat_person_put
-- A person wrote in a chat.
INSERT INTO chat_person(chat, person, last_at) VALUES(?1, ?2, ?3)
ON CONFLICT(chat, person) DO UPDATE SET last_at = excluded.last_at;

-- name: chat_has_person
-- Whether a person writes in a chat.
SELECT 1 FROM chat_person WHERE chat = ?1 AND person = ?2;

-- name: chat_latest_direct
-- The latest direct chat of a person.
SELECT chat.id FROM chat_person JOIN chat ON chat.id = chat_person.chat
WHERE chat_person.person = ?1 AND chat.chat_type = 'dm' ORDER BY chat_person.last_at DESC LIMIT 1;

-- name: chat_bind
-- The agent that answers in a chat; null for the default.
UPDATE chat SET agent = ?2 WHERE id = ?1;

-- name: agent_knows_person
-- Whether a person writes in a chat where an agent has a session.
SELECT 1 FROM chat_person JOIN lane ON lane.chat = chat_person.chat
WHERE chat_person.person = ?1 AND lane.recipient = ?2 LIMIT 1;

-- name: said_put
-- What the platform called a message of ours.
INSERT INTO said(chat, platform_id, message) VALUES(?1, ?2, ?3)
ON CONFLICT(chat, platform_id) DO UPDATE SET message = excluded.message;

-- name: said_get
-- Our message behind a platform's id.
SELECT message FROM said WHERE chat = ?1 AND platform_id = ?2;

-- name: person_insert
-- A person.
INSERT INTO person(name, peer, created_at) VALUES(?1, ?2, ?3) RETURNING id;

-- name: person
-- One person.
SELECT id, name, peer, state, created_at FROM person WHERE id = ?1;

-- name: account_insert
-- An account of a person.
INSERT INTO account(person, platform, namespace, user_id, name, created_at, seen_at)
VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?6) RETURNING id;

-- name: code_put
-- A one-time code.
INSERT INTO once_code(hash, purpose, expires_at) VALUES(?1, ?2, ?3);

-- name: codes_expire
-- Forget codes that have run out.
DELETE FROM once_code WHERE expires_at <= ?1;

-- name: session_put
-- An operator's session.
INSERT INTO operator_session(hash, operator, created_at, seen_at, expires_at) VALUES(?1, ?2, ?3, ?3, ?4);

-- name: session_get
-- One session.
SELECT operator, created_at, seen_at, expires_at FROM operator_session WHERE hash = ?1;

-- name: session_seen
-- A session is in use.
UPDATE operator_session SET seen_at = ?2, expires_at = ?3 WHERE hash = ?1;

-- name: session_end
-- A session ends.
DELETE FROM operator_session WHERE hash = ?1;

-- name: sessions_expire
-- Forget sessions that have run out.
DELETE FROM operator_session WHERE expires_at <= ?1;
