-- name: account_heard
-- An account was heard from: whose it is, and how that person is.
UPDATE account SET seen_at = ?4, name = ?5 WHERE platform = ?1 AND namespace = ?2 AND user_id = ?3
RETURNING person, (SELECT state FROM person WHERE person.id = account.person);

-- name: door_ask
-- A question, for whoever is to answer it.
SELECT a.id, a.target, a.state, m.choices FROM ask a JOIN message m ON m.id = a.id WHERE a.id = ?1;

-- name: door_ask_of_delivery
-- The question that a delivery carries.
SELECT a.id, a.target, a.state, m.choices FROM delivery d JOIN ask a ON a.id = d.message
JOIN message m ON m.id = a.id WHERE d.id = ?1;

-- name: door_newest_ask
-- The newest open question with choices that was put to a person in a chat.
SELECT a.id, a.target, a.state, m.choices FROM ask a JOIN message m ON m.id = a.id
WHERE a.target = ?1 AND a.state = 'open' AND m.chat = ?2 AND m.choices IS NOT NULL
ORDER BY a.asked_at DESC LIMIT 1;

-- name: refused_count
-- How many events were refused.
SELECT count(*) FROM refused;
