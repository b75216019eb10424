/** What the daemon answers. Source: control protocol, section 9. Fields that are at their default may be absent. */
import type { TickState } from '../shared/ticks';

export type Severity = 'broken' | 'soon' | 'look';

export interface Finding {
  id: string;
  severity: Severity;
  problem: string;
  fix?: string;
  depends_on?: string[];
}

export interface Findings {
  findings?: Finding[];
  passed?: string[];
  not_checked?: string[];
}

export interface AgentRow {
  name: string;
  role: string;
  runtime: string;
  state: 'defined' | 'starting' | 'up' | 'draining' | 'stopped' | 'suspect' | 'failed' | 'held';
  note?: string;
  up_since?: number;
  busy?: number;
  turn_started_at?: number;
  queue?: number;
  oldest_at?: number;
  turns_today?: number;
  turn_p50_ms?: number;
  turn_p95_ms?: number;
  reminders_sent?: number;
  reminders_tried?: number;
  reminder_hours?: [number, number][];
  open_asks?: number;
  open_reminders?: number;
  dead?: number;
  missed_starts?: number;
  is_default?: boolean;
}

export interface RelayRow {
  relay: string;
  state: 'off' | 'connecting' | 'connected' | 'away';
  detail?: string;
  platforms?: string[];
  since?: number;
}

export interface Status {
  build: string;
  boot_epoch: number;
  started_at: number;
  gateway_attached: boolean;
  relays?: RelayRow[];
  now?: number;
}

/** Where a message stands for one recipient: what its tick is drawn from. */
export interface Delivery {
  delivery_id: number;
  to: string;
  state: Exclude<TickState, 'kept'>;
  lane: number;
  attempt?: number;
  not_before?: number;
  deadline_at?: number;
  done_at?: number;
  turn_id?: string;
  reason?: string;
  hold?: string;
}

export interface Ask {
  id: string;
  asker: string;
  target: string;
  question: string;
  state: 'open' | 'answered' | 'cancelled' | 'expired' | 'target_gone';
  asked_at: number;
  thread: string;
  deadline_at?: number;
  closed_at?: number;
  answer?: string;
  target_state?: string;
}

export interface Reminder {
  id: string;
  owner: string;
  session: string;
  body: string;
  due_at: number;
  state: 'armed' | 'sent' | 'cancelled' | 'skipped' | 'failed';
  created_at: number;
  rrule?: string;
  attempts?: number;
  sent_at?: number;
  last_error?: string;
}

export interface Thread {
  id: string;
  kind: string;
  from: string;
  to: string;
  opening: string;
  stage: 'moving' | 'stuck' | 'earlier';
  messages: number;
  started_at: number;
  last_at: number;
  waiting?: number;
  dead?: number;
  people?: string[];
}

export interface Message {
  id: string;
  kind: string;
  from: string;
  to: string;
  body: string;
  created_at: number;
  in_reply_to?: string;
  broadcast?: boolean;
  turn_id?: string;
  deliveries?: Delivery[];
  ask?: Ask;
}

/** Turns of one agent over 24 hours; the last hour is running. */
export interface Stats {
  agent: string;
  turns?: number;
  errors?: number;
  by_hour?: [turns: number, errors: number][];
}

export interface Page<Row> {
  rows?: Row[];
  cursor?: string;
  /** Display name of each `person:<n>` in the rows. */
  names?: Record<string, string>;
}

/** Something changed; `data` has ids and states. */
export interface HiveEvent {
  cursor: number;
  kind: string;
  data?: Record<string, unknown>;
}
