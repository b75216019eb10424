-- Connector: tenants, gateways, deliveries, and the web chat, whose server we are.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenant (
    tenant TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE gateway (
    gateway_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (tenant),
    instance TEXT NOT NULL,
    is_skep INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    last_seen_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX gateway_of_instance ON gateway (tenant, instance) WHERE revoked_at IS NULL;

-- Newest first to be tried; an older one lives until `until`.
CREATE TABLE gateway_secret (
    gateway_id TEXT NOT NULL REFERENCES gateway (gateway_id),
    mark TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (gateway_id, mark)
) STRICT, WITHOUT ROWID;

-- Whose a person's messages are. No row: they reach nobody.
CREATE TABLE binding (
    platform TEXT NOT NULL,
    user_ns TEXT NOT NULL,
    user_id TEXT NOT NULL,
    tenant TEXT NOT NULL REFERENCES tenant (tenant),
    instance TEXT NOT NULL,
    bound_at INTEGER NOT NULL,
    PRIMARY KEY (platform, user_ns, user_id)
) STRICT, WITHOUT ROWID;

-- Where a tenant may write: chats it received from, with the last source seen there.
CREATE TABLE chat (
    tenant TEXT NOT NULL REFERENCES tenant (tenant),
    platform TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    chat_id TEXT NOT NULL,
    instance TEXT NOT NULL,
    scope_id TEXT,
    user_id TEXT,
    source BLOB NOT NULL,
    PRIMARY KEY (tenant, platform, chat_id, bot_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE intake (
    dedupe_key TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX intake_by_age ON intake (at);

-- One row until the gateway has acknowledged it.
CREATE TABLE delivery (
    delivery_id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    instance TEXT NOT NULL,
    platform TEXT NOT NULL,
    message_id TEXT NOT NULL,
    event BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE INDEX delivery_of_instance ON delivery (tenant, instance, delivery_id);

-- Sends to platforms that are not exact: written before the call, `result` after it.
CREATE TABLE egress (
    gateway_id TEXT NOT NULL,
    idem TEXT NOT NULL,
    result BLOB,
    at INTEGER NOT NULL,
    PRIMARY KEY (gateway_id, idem)
) STRICT, WITHOUT ROWID;

CREATE INDEX egress_by_age ON egress (at);

CREATE TABLE web_account (
    account TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenant (tenant),
    name TEXT NOT NULL,
    is_owner INTEGER NOT NULL,
    n INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Only hashes: of one-time codes, and of session handles.
CREATE TABLE web_code (
    code BLOB PRIMARY KEY,
    account TEXT NOT NULL REFERENCES web_account (account),
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE web_session (
    handle BLOB PRIMARY KEY,
    account TEXT NOT NULL REFERENCES web_account (account),
    kind TEXT NOT NULL CHECK (kind IN ('cookie', 'bearer')),
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE web_conversation (
    conversation TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES web_account (account),
    title TEXT,
    is_archived INTEGER NOT NULL DEFAULT 0,
    read_seq INTEGER NOT NULL DEFAULT 0,
    last_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX web_conversation_of_account ON web_conversation (account, last_at);

CREATE TABLE web_message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    message TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL REFERENCES web_conversation (conversation),
    kind TEXT NOT NULL CHECK (kind IN ('person', 'agent', 'system')),
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL,
    n INTEGER NOT NULL,
    reply_to TEXT,
    thread TEXT,
    answers TEXT,
    client_id TEXT,
    state TEXT CHECK (state IN ('stored', 'delivered', 'seen', 'failed')),
    gateway_id TEXT,
    idem TEXT
) STRICT;

CREATE INDEX web_message_of_conversation ON web_message (conversation, seq);
CREATE UNIQUE INDEX web_message_once ON web_message (conversation, client_id) WHERE client_id IS NOT NULL;
CREATE UNIQUE INDEX web_message_answer_once ON web_message (gateway_id, idem) WHERE idem IS NOT NULL;

-- What each account's tabs were told, in order; `state` is null for a message itself.
CREATE TABLE web_event (
    account TEXT NOT NULL REFERENCES web_account (account),
    n INTEGER NOT NULL,
    message TEXT NOT NULL,
    state TEXT,
    PRIMARY KEY (account, n)
) STRICT, WITHOUT ROWID;
