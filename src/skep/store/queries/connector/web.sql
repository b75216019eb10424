-- name: web_account
-- One account.
SELECT account, tenant, name, is_owner, n FROM web_account WHERE account = ?;

-- name: web_account_add
-- Make an account that may be there already.
INSERT INTO web_account (account, tenant, name, is_owner, created_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: web_accounts_of
-- Accounts of a tenant.
SELECT account FROM web_account WHERE tenant = ?;

-- name: web_next_n
-- Take the next numbers of an account's events; the last of them is returned.
UPDATE web_account SET n = n + ?2 WHERE account = ?1 RETURNING n;

-- name: web_code_put
-- Keep the hash of a one-time code.
INSERT INTO web_code (code, account, expires_at) VALUES (?, ?, ?);

-- name: web_code
-- Whose a code is, until when, and whether it was used.
SELECT account, expires_at, used_at FROM web_code WHERE code = ?;

-- name: web_code_use
-- Use a code up.
UPDATE web_code SET used_at = ?2 WHERE code = ?1;

-- name: web_codes_sweep
-- Forget codes so old that nobody asks why they fail.
DELETE FROM web_code WHERE expires_at < ?;

-- name: web_session_put
-- Open a session.
INSERT INTO web_session (handle, account, kind, created_at, seen_at) VALUES (?1, ?2, ?3, ?4, ?4);

-- name: web_session
-- Whose a session is.
SELECT s.account, a.name, a.tenant, a.is_owner, s.kind, s.seen_at
FROM web_session AS s JOIN web_account AS a USING (account) WHERE s.handle = ?1 AND s.seen_at > ?2;

-- name: web_session_seen
-- A session was used.
UPDATE web_session SET seen_at = ?2 WHERE handle = ?1;

-- name: web_session_drop
-- Close a session.
DELETE FROM web_session WHERE handle = ?;

-- name: web_sessions_sweep
-- Close sessions that nobody used.
DELETE FROM web_session WHERE seen_at < ?;

-- name: web_conversation_put
-- Open a conversation.
INSERT INTO web_conversation (conversation, account, title, last_at) VALUES (?, ?, ?, ?);

-- name: web_conversation
-- One conversation.
SELECT account, title FROM web_conversation WHERE conversation = ?;

-- name: web_conversation_set
-- Change what is given.
UPDATE web_conversation SET title = coalesce(?2, title), is_archived = coalesce(?3, is_archived)
WHERE conversation = ?1;

-- name: web_conversation_read
-- Everything so far has been read.
UPDATE web_conversation SET read_seq = coalesce(
    (SELECT seq FROM web_message AS m WHERE m.conversation = ?1 ORDER BY seq DESC LIMIT 1), 0
) WHERE conversation = ?1;

-- name: web_conversation_said
-- The person wrote: newest, read, and named by its first words if it has no name.
UPDATE web_conversation SET last_at = ?2, read_seq = ?3, title = coalesce(title, ?4), is_archived = 0
WHERE conversation = ?1;

-- name: web_conversation_heard
-- Somebody else wrote.
UPDATE web_conversation SET last_at = ?2 WHERE conversation = ?1;

-- name: web_conversations
-- An account's conversations, newest first, from before a time.
SELECT c.conversation, c.title, c.last_at, c.is_archived, (
    SELECT count(*) FROM web_message AS m
    WHERE m.conversation = c.conversation AND m.seq > c.read_seq AND m.kind <> 'person'
)
FROM web_conversation AS c
WHERE c.account = ?1 AND (c.last_at, c.conversation) < (?2, ?3)
ORDER BY c.last_at DESC, c.conversation DESC LIMIT ?4;

-- name: web_conversation_at
-- Where a conversation stands in that list.
SELECT last_at FROM web_conversation WHERE conversation = ? AND account = ?;

-- name: web_sent
-- What became of words that were sent before.
SELECT message, n FROM web_message WHERE conversation = ? AND client_id = ?;

-- name: web_said
-- What became of an answer that was given before.
SELECT message, conversation FROM web_message WHERE gateway_id = ? AND idem = ?;

-- name: web_message_put
-- Keep a message.
INSERT INTO web_message (
    message, conversation, kind, name, text, at, n, reply_to, thread, answers, client_id, state, gateway_id, idem,
    prompt_id, prompt
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: web_message
-- One message.
SELECT message, conversation, kind, name, text, at, reply_to, thread, answers, client_id, state, prompt
FROM web_message WHERE message = ?;

-- name: web_message_of
-- Whether a message is of a conversation.
SELECT seq FROM web_message WHERE message = ? AND conversation = ?;

-- name: web_message_edit
-- Change the words of a message that a gateway wrote.
UPDATE web_message SET text = ?4 WHERE message = ?1 AND conversation = ?2 AND gateway_id = ?3;

-- name: web_thread_begun
-- Whether something was said in a thread.
SELECT 1 FROM web_message WHERE conversation = ? AND thread = ? LIMIT 1;

-- name: web_prompt
-- The newest message of a conversation with these choices.
SELECT message, conversation, kind, name, text, at, reply_to, thread, answers, client_id, state, prompt
FROM web_message WHERE conversation = ? AND prompt_id = ? ORDER BY seq DESC LIMIT 1;

-- name: web_prompt_set
-- Change what has become of the choices of a message.
UPDATE web_message SET prompt = ?2 WHERE message = ?1;

-- name: web_messages
-- Messages of a conversation from before one, newest first.
SELECT message, conversation, kind, name, text, at, reply_to, thread, answers, client_id, state, prompt
FROM web_message WHERE conversation = ? AND seq < ? ORDER BY seq DESC LIMIT ?;

-- name: web_delivered
-- The gateway has it. A state never goes back.
UPDATE web_message SET state = 'delivered' WHERE message = ? AND state = 'stored'
RETURNING (SELECT account FROM web_conversation AS c WHERE c.conversation = web_message.conversation);

-- name: web_seen
-- A turn began with it, or it was answered.
UPDATE web_message SET state = 'seen'
WHERE message = ? AND conversation = ? AND state IN ('stored', 'delivered') RETURNING conversation;

-- name: web_failed
-- It was given up before any gateway had it.
UPDATE web_message SET state = 'failed' WHERE message = ? AND state = 'stored' RETURNING conversation;

-- name: web_event_put
-- Tell an account something.
INSERT INTO web_event (account, n, message, state) VALUES (?, ?, ?, ?);

-- name: web_events
-- What an account was told after an event.
SELECT e.n, e.state, m.message, m.conversation, m.kind, m.name, m.text, m.at, m.reply_to, m.thread, m.answers,
    m.client_id, m.state, m.prompt
FROM web_event AS e JOIN web_message AS m USING (message)
WHERE e.account = ? AND e.n > ? ORDER BY e.n LIMIT ?;

-- name: web_events_sweep
-- Forget events that no tab resumes from.
DELETE FROM web_event WHERE n < (
    SELECT a.n FROM web_account AS a WHERE a.account = web_event.account
) - ?;

-- name: web_messages_old
-- Forget messages that are too old.
DELETE FROM web_message WHERE at < ? RETURNING message;

-- name: web_event_drop
-- Forget what was told about a message that is gone.
DELETE FROM web_event WHERE message = ?;

-- name: web_conversations_empty
-- Forget conversations that are too old and empty.
DELETE FROM web_conversation AS c WHERE last_at < ? AND NOT EXISTS (
    SELECT 1 FROM web_message AS m WHERE m.conversation = c.conversation
);
