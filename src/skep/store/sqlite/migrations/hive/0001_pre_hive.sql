-- Hive, section 3.2; people and chats: control protocol, section 5.
-- Times are milliseconds. `head_at`, `at` and lease times are the broker's steady clock, others UTC.

CREATE TABLE meta(k TEXT PRIMARY KEY, v TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE message(
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, sender TEXT NOT NULL, addressed_to TEXT NOT NULL,
  thread TEXT NOT NULL, in_reply_to TEXT, body TEXT NOT NULL, attachments TEXT, origin TEXT,
  idem TEXT, body_hash BLOB NOT NULL, turn_id TEXT, created_at INTEGER NOT NULL,
  from_session TEXT,                           -- session of the turn that sent it: a reply returns there
  chat INTEGER REFERENCES chat(id),            -- where a person wrote it, or where it is said to a person
  platform_id TEXT,                            -- the platform's id of what a person wrote
  answers TEXT,                                -- platform ids that it answers, newest last (JSON)
  reply_key TEXT,                              -- null: m:<id>
  choices TEXT,                                -- of an ask (JSON)
  late INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE UNIQUE INDEX message_idem   ON message(sender, idem) WHERE idem IS NOT NULL;
CREATE INDEX        message_thread ON message(thread, id);
CREATE INDEX        message_turn   ON message(turn_id) WHERE turn_id IS NOT NULL;

CREATE TABLE lane(
  id INTEGER PRIMARY KEY, recipient TEXT NOT NULL, session TEXT NOT NULL,
  mailbox TEXT NOT NULL,                       -- who leases it: agent:NAME, door:RELAY, operator:ID
  chat INTEGER REFERENCES chat(id),            -- of an agent's session: where its person writes
  next_seq INTEGER NOT NULL DEFAULT 1,
  ready_n INTEGER NOT NULL DEFAULT 0, head_at INTEGER, urgency INTEGER NOT NULL DEFAULT 0,
  quiet_cap INTEGER,                           -- until when a burst may put off the lane at most
  hold TEXT,                                   -- null, or the reason: restart, paused, loop_guard, retired, zombie
  lease_id TEXT, fence INTEGER NOT NULL DEFAULT 0, lease_holder TEXT, leased_at INTEGER, lease_until INTEGER,
  turn_id TEXT, call_id TEXT, call_seq INTEGER, -- last `more`, so that a repeat gives the same
  done_turn TEXT, done_reply TEXT,             -- last turn that ended here, so that a repeat is known
  UNIQUE(recipient, session));
CREATE INDEX lane_pick  ON lane(mailbox, urgency, head_at) WHERE lease_id IS NULL AND hold IS NULL AND ready_n > 0;
CREATE INDEX lane_lease ON lane(mailbox, lease_until)      WHERE lease_id IS NOT NULL;
CREATE INDEX lane_chat  ON lane(chat)                      WHERE chat IS NOT NULL;

CREATE TABLE delivery(
  id INTEGER PRIMARY KEY, message TEXT NOT NULL REFERENCES message(id), lane INTEGER NOT NULL REFERENCES lane(id),
  lane_seq INTEGER,                            -- null while scheduled: the place is taken when it is due
  state TEXT NOT NULL, urgency INTEGER NOT NULL, broadcast INTEGER NOT NULL DEFAULT 0,
  not_before INTEGER NOT NULL DEFAULT 0, deadline_at INTEGER, at INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, requeued INTEGER NOT NULL DEFAULT 0,
  lease_id TEXT, shown_turn TEXT, done_at INTEGER, reason TEXT, UNIQUE(lane, lane_seq));
CREATE INDEX delivery_message ON delivery(message);
CREATE INDEX delivery_live    ON delivery(lane, state, lane_seq) WHERE done_at IS NULL;
CREATE INDEX delivery_due     ON delivery(not_before)           WHERE state = 'scheduled';
CREATE INDEX delivery_ddl     ON delivery(deadline_at)          WHERE deadline_at IS NOT NULL AND state IN ('scheduled', 'ready');
CREATE INDEX delivery_dead    ON delivery(done_at)              WHERE state IN ('dead', 'expired');

CREATE TABLE ask(
  id TEXT PRIMARY KEY REFERENCES message(id), asker TEXT NOT NULL, asker_session TEXT NOT NULL, target TEXT NOT NULL,
  state TEXT NOT NULL, asked_at INTEGER NOT NULL, deadline_at INTEGER, answer TEXT REFERENCES message(id),
  closed_at INTEGER, told INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX ask_asker  ON ask(asker, asked_at);
CREATE INDEX ask_open   ON ask(asker)       WHERE state = 'open';
CREATE INDEX ask_target ON ask(target)      WHERE state = 'open';
CREATE INDEX ask_ddl    ON ask(deadline_at) WHERE state = 'open' AND deadline_at IS NOT NULL;

CREATE TABLE reminder(
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, session TEXT NOT NULL, body TEXT NOT NULL, idem TEXT,
  due_at INTEGER NOT NULL, rrule TEXT, missed TEXT NOT NULL DEFAULT 'once', state TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, sent_at INTEGER, last_error TEXT, created_at INTEGER NOT NULL,
  turn_id TEXT) WITHOUT ROWID;
CREATE INDEX        reminder_turn  ON reminder(turn_id) WHERE turn_id IS NOT NULL;
CREATE INDEX        reminder_due   ON reminder(due_at) WHERE state = 'armed';
CREATE INDEX        reminder_owner ON reminder(owner, sent_at);
CREATE UNIQUE INDEX reminder_idem  ON reminder(owner, idem) WHERE idem IS NOT NULL;
CREATE TABLE reminder_attempt(reminder TEXT NOT NULL, owner TEXT NOT NULL, at INTEGER NOT NULL, ok INTEGER NOT NULL);
CREATE INDEX reminder_attempt_ix ON reminder_attempt(owner, at);

CREATE TABLE bucket(
  owner TEXT NOT NULL, what TEXT NOT NULL, tokens REAL NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(owner, what)) WITHOUT ROWID;

CREATE TABLE agent(
  name TEXT PRIMARY KEY, role TEXT NOT NULL, state TEXT NOT NULL, people TEXT NOT NULL, talks_to TEXT NOT NULL,
  retired INTEGER NOT NULL DEFAULT 0, uid INTEGER, harness TEXT, boot_epoch INTEGER, pid INTEGER, pid_start INTEGER,
  pump_at INTEGER, tools_at INTEGER, restarts TEXT, note TEXT) WITHOUT ROWID;

CREATE TABLE audit(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL, act TEXT NOT NULL, object TEXT, detail TEXT);

CREATE TABLE person(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, peer TEXT UNIQUE, state TEXT NOT NULL DEFAULT 'active',
  created_at INTEGER NOT NULL);
CREATE TABLE account(
  id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES person(id), platform TEXT NOT NULL,
  namespace TEXT NOT NULL, user_id TEXT NOT NULL, name TEXT NOT NULL, created_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL, UNIQUE(platform, namespace, user_id));
CREATE INDEX account_person ON account(person);
CREATE TABLE chat(
  id INTEGER PRIMARY KEY, relay TEXT NOT NULL, platform TEXT NOT NULL, bot_id TEXT NOT NULL, scope_id TEXT NOT NULL,
  chat_id TEXT NOT NULL, thread_id TEXT NOT NULL, chat_type TEXT NOT NULL, user_id TEXT NOT NULL, agent TEXT,
  last_seen INTEGER NOT NULL, UNIQUE(relay, platform, bot_id, scope_id, chat_id, thread_id));
CREATE TABLE chat_person(
  chat INTEGER NOT NULL REFERENCES chat(id), person INTEGER NOT NULL REFERENCES person(id), last_at INTEGER NOT NULL,
  PRIMARY KEY(chat, person)) WITHOUT ROWID;
CREATE INDEX chat_person_ix ON chat_person(person, last_at);
CREATE TABLE intake(key TEXT PRIMARY KEY, outcome TEXT NOT NULL, message TEXT, reason TEXT, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE refused(key TEXT PRIMARY KEY, relay TEXT NOT NULL, event TEXT NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE said(
  chat INTEGER NOT NULL REFERENCES chat(id), platform_id TEXT NOT NULL, message TEXT NOT NULL,
  PRIMARY KEY(chat, platform_id)) WITHOUT ROWID;

CREATE TABLE once_code(hash BLOB PRIMARY KEY, purpose TEXT NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE operator_session(
  hash BLOB PRIMARY KEY, operator TEXT NOT NULL, created_at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL) WITHOUT ROWID;
