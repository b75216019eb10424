-- What happened, for looking at: hive, section 14.1. Times are UTC milliseconds.

CREATE TABLE turn(
  id TEXT PRIMARY KEY, agent TEXT NOT NULL, session TEXT, boot_epoch INTEGER NOT NULL,
  started INTEGER NOT NULL, ended INTEGER NOT NULL, outcome TEXT NOT NULL, model TEXT, wake_kind TEXT,
  envelopes INTEGER NOT NULL, in_tokens INTEGER, out_tokens INTEGER, cache_tokens INTEGER, cost_microusd INTEGER,
  tool_calls INTEGER NOT NULL, wait_ms INTEGER, error TEXT) WITHOUT ROWID;
CREATE INDEX turn_agent ON turn(agent, started);

CREATE TABLE tool_call(
  turn TEXT NOT NULL, agent TEXT NOT NULL, tool TEXT NOT NULL, at INTEGER NOT NULL, ms INTEGER NOT NULL, ok INTEGER NOT NULL);
CREATE INDEX tool_agent ON tool_call(agent, at);

CREATE TABLE event(id INTEGER PRIMARY KEY, agent TEXT NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
CREATE INDEX event_agent ON event(agent, at);

CREATE TABLE day(
  agent TEXT NOT NULL, day INTEGER NOT NULL, turns INTEGER NOT NULL, errors INTEGER NOT NULL, ms INTEGER NOT NULL,
  in_tokens INTEGER NOT NULL, out_tokens INTEGER NOT NULL, cost_microusd INTEGER NOT NULL,
  PRIMARY KEY(agent, day)) WITHOUT ROWID;
CREATE TABLE tool_day(
  agent TEXT NOT NULL, day INTEGER NOT NULL, tool TEXT NOT NULL, calls INTEGER NOT NULL, errors INTEGER NOT NULL,
  ms INTEGER NOT NULL, PRIMARY KEY(agent, day, tool)) WITHOUT ROWID;
