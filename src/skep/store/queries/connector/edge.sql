-- name: meta
-- One fact about this database.
SELECT value FROM meta WHERE name = ?;

-- name: meta_put
-- Write down one fact, once.
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: next_start
-- Count the starts of the process.
INSERT INTO meta (name, value) VALUES ('starts', 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value;

-- name: tenant_add
-- Make a tenant that may be there already.
INSERT INTO tenant (tenant, created_at) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: tenant
-- Whether a tenant is known.
SELECT 1 FROM tenant WHERE tenant = ?;

-- name: gateway
-- One gateway.
SELECT gateway_id, tenant, instance, is_skep, last_seen_at, revoked_at FROM gateway WHERE gateway_id = ?;

-- name: gateways
-- All gateways that are not revoked.
SELECT gateway_id, tenant, instance, is_skep, last_seen_at, revoked_at
FROM gateway WHERE revoked_at IS NULL ORDER BY gateway_id;

-- name: gateway_put
-- Make a gateway, or bring a revoked one back under its (perhaps new) tenant.
INSERT INTO gateway (gateway_id, tenant, instance, created_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (gateway_id) DO UPDATE SET tenant = ?2, instance = ?3, revoked_at = NULL;

-- name: gateway_seen
-- A gateway said hello.
UPDATE gateway SET last_seen_at = ?2, is_skep = ?3 WHERE gateway_id = ?1;

-- name: gateway_revoke
-- Cut a gateway off.
UPDATE gateway SET revoked_at = ?2 WHERE gateway_id = ?1;

-- name: secrets
-- Secrets of a gateway that still open something, newest first.
SELECT mark, sealed FROM gateway_secret
WHERE gateway_id = ?1 AND (until IS NULL OR until > ?2) ORDER BY created_at DESC, until IS NULL DESC;

-- name: secret_put
-- Give a gateway a secret.
INSERT INTO gateway_secret (gateway_id, mark, sealed, created_at) VALUES (?, ?, ?, ?);

-- name: secrets_age
-- Let the secrets that a new one replaces run out.
UPDATE gateway_secret SET until = ?2 WHERE gateway_id = ?1 AND until IS NULL;

-- name: secrets_drop
-- Forget all secrets of a gateway.
DELETE FROM gateway_secret WHERE gateway_id = ?;

-- name: secrets_sweep
-- Forget secrets that ran out.
DELETE FROM gateway_secret WHERE until <= ?;

-- name: binding
-- Whose this author is.
SELECT tenant, instance FROM binding WHERE platform = ? AND user_ns = ? AND user_id = ?;

-- name: bind
-- Bind an author who is bound to nobody.
INSERT INTO binding (platform, user_ns, user_id, tenant, instance, bound_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: unbind_instance
-- Unbind all authors of an instance.
DELETE FROM binding WHERE tenant = ? AND instance = ?;

-- name: chat_put
-- Remember where a tenant was written to, and by whom last.
INSERT INTO chat (tenant, platform, bot_id, chat_id, instance, scope_id, user_id, source)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (tenant, platform, chat_id, bot_id)
DO UPDATE SET instance = ?5, scope_id = ?6, user_id = ?7, source = ?8;

-- name: chats
-- The chats with this id that the tenant received from.
SELECT platform, bot_id, chat_id, instance, scope_id, user_id, source
FROM chat WHERE tenant = ? AND platform = ? AND chat_id = ?;

-- name: chats_drop
-- Forget where an instance was written to.
DELETE FROM chat WHERE tenant = ? AND instance = ?;

-- name: intake
-- Remember what was taken; no change when it was there.
INSERT INTO intake (dedupe_key, at) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: intake_fresh
-- Remember what was never taken before.
INSERT INTO intake (dedupe_key, at) VALUES (?, ?);

-- name: intake_old
-- Of the keys after one, those that no platform repeats any more.
SELECT dedupe_key FROM intake WHERE dedupe_key > ? AND at < ? ORDER BY dedupe_key LIMIT ?;

-- name: intake_forget
-- Forget what was taken.
DELETE FROM intake WHERE dedupe_key = ?;

-- name: deliver
-- Keep an event until its gateway acknowledges it.
INSERT INTO delivery (delivery_id, tenant, instance, platform, message_id, event, at) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: deliveries
-- What waits for an instance after a row, oldest first.
SELECT delivery_id, event FROM delivery
WHERE tenant = ? AND instance = ? AND delivery_id > ? ORDER BY delivery_id LIMIT ?;

-- name: deliveries_take
-- Forget what was acknowledged or given up, all from one id to another.
DELETE FROM delivery WHERE delivery_id BETWEEN ? AND ?
RETURNING tenant, instance, platform, message_id, length(event);

-- name: deliveries_oldest
-- What would be given up first, after a row.
SELECT delivery_id, length(event) FROM delivery
WHERE tenant = ? AND instance = ? AND delivery_id > ? ORDER BY delivery_id LIMIT ?;

-- name: deliveries_expired
-- What waited too long.
SELECT delivery_id FROM delivery WHERE at < ? ORDER BY delivery_id LIMIT ?;

-- name: deliveries_drop
-- Forget everything that waits for an instance.
DELETE FROM delivery WHERE tenant = ? AND instance = ?;

-- name: buffered
-- How much waits for whom.
SELECT tenant, instance, count(*), sum(length(event)) FROM delivery GROUP BY tenant, instance;

-- name: egress
-- What became of a send.
SELECT result FROM egress WHERE gateway_id = ? AND idem = ?;

-- name: egress_begin
-- Write a send down before its platform is called.
INSERT INTO egress (gateway_id, idem, at) VALUES (?, ?, ?);

-- name: egress_end
-- Write down what the platform answered.
UPDATE egress SET result = ?3 WHERE gateway_id = ?1 AND idem = ?2;

-- name: egress_forget
-- Forget a send that certainly did not happen.
DELETE FROM egress WHERE gateway_id = ? AND idem = ?;

-- name: egress_sweep
-- Forget sends that nobody repeats any more.
DELETE FROM egress WHERE at < ?;
