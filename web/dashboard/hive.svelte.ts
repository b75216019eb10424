/**
 * What this page knows of the hive, and how it hears of changes.
 *
 * One event stream per tab. An event says what changed, never how it is drawn: what it touches is asked for
 * again, gathered, at most once in a while for each part. So the page never shows a state that the hive did not say.
 */
import { SvelteMap } from 'svelte/reactivity';

import { speak } from '../shared/live.svelte';
import { call, CallError } from './api';
import type {
  AgentRow,
  Ask,
  Findings,
  HiveEvent,
  Message,
  Page,
  Reminder,
  Stats,
  Status,
  Thread,
} from './types';
import { whoOf, type Who } from './words';

/** Parts of the page that are asked for by themselves. */
export type Part = 'status' | 'health' | 'agents' | 'stats' | 'threads' | 'thread' | 'asks' | 'reminders';

const GATHER_MS = 120;
/** How long after it was asked for the same part is asked for again. */
const GAP_MS: Readonly<Record<Part, number>> = {
  status: 5000,
  health: 2000,
  agents: 500,
  stats: 5000,
  threads: 1000,
  thread: 1000,
  asks: 500,
  reminders: 500,
};
const TOUCHES: Readonly<Record<string, readonly Part[]>> = {
  delivery: ['agents', 'threads', 'thread'],
  agent: ['agents', 'health', 'status'],
  ask: ['asks', 'agents', 'threads', 'thread'],
  reminder: ['reminders', 'agents'],
  health: ['health'],
  relay: ['status', 'health'],
};
const ALL: readonly Part[] = [
  'status',
  'health',
  'agents',
  'stats',
  'threads',
  'asks',
  'reminders',
  'thread',
];
const REFRESH_MS = 60_000;
const HIDDEN_MS = 30_000;
const BACK_MS = 6000;
const RETRY_MS = [500, 1000, 2000, 5000] as const;
const ASKS_SHOWN = 100;
const THREADS_SHOWN = 50;

interface Turn {
  readonly agent: string;
  readonly state: string;
  readonly tool: string;
}

export class Hive {
  /** `opening`: nothing is known yet. `away`: what is shown is from `asOf`. */
  line = $state<'opening' | 'live' | 'away'>('opening');
  isSignedOut = $state(false);
  /** Each part has been asked for once: the page is drawn in one go, and nothing moves. */
  isSettled = $state(false);
  /** When the daemon answered last, by this machine's clock. */
  asOf = $state(0);
  nextTryAt = $state(0);
  /** How long it was away; for a few seconds after it came back. */
  backAfterMs = $state<number>();

  status = $state.raw<Status>();
  health = $state.raw<Findings>();
  healthAt = $state(0);
  agents = $state.raw<AgentRow[]>();
  stats = $state.raw<ReadonlyMap<string, Stats>>(new Map());
  threads = $state.raw<Thread[]>();
  asks = $state.raw<Ask[]>();
  reminders = $state.raw<Reminder[]>();
  messages = $state.raw<Message[]>();
  openThread = $state<string>();
  /** Display names of people. */
  readonly names = new SvelteMap<string, string>();
  readonly problems = new SvelteMap<Part, CallError>();
  /** What each running turn does now. */
  readonly turns = new SvelteMap<string, Turn>();

  #skewMs = 0;
  #loaders: Readonly<Record<Part, () => Promise<void>>>;
  #dirty = new Set<Part>();
  #loading = new Set<Part>();
  #askedAt = new Map<Part, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #source: EventSource | undefined;
  #after = '';
  #tries = 0;
  #unsettled = new Set<Part>(ALL);
  #awaySince: number | undefined;

  constructor() {
    this.#loaders = {
      status: async () => {
        const status = await call<Status>('status.get');
        this.#skewMs = status.now ? status.now - Date.now() : 0;
        this.status = status;
      },
      health: async () => {
        const before = new Set((this.health?.findings ?? []).map(({ id }) => id));
        const health = await call<Findings>('health.list');
        const fresh = (health.findings ?? []).find(({ id }) => !before.has(id));
        if (this.health) {
          if (fresh) speak(fresh.problem);
          else if ((health.findings ?? []).length < before.size) speak('A finding has cleared');
        }
        this.health = health;
        this.healthAt = Date.now();
      },
      agents: async () => {
        this.agents = (await call<{ agents?: AgentRow[] }>('agent.list')).agents ?? [];
      },
      stats: async () => {
        this.stats = new Map((await this.#query<Stats>('stats', {})).map((row) => [row.agent, row]));
      },
      threads: async () => {
        this.threads = await this.#query<Thread>('threads', { limit: THREADS_SHOWN });
      },
      thread: async () => {
        const id = this.openThread;
        if (id === undefined) return;
        const messages = await this.#query<Message>('thread', { id });
        if (id === this.openThread) this.messages = messages;
      },
      asks: async () => {
        this.asks = await this.#query<Ask>('asks', { limit: ASKS_SHOWN });
      },
      reminders: async () => {
        this.reminders = await this.#query<Reminder>('reminders', { limit: ASKS_SHOWN });
      },
    };
  }

  /** Follow the hive until the returned function is called. */
  start(): () => void {
    this.isSignedOut = false;
    this.#open();
    const refresh = setInterval(() => this.mark('health', 'agents', 'stats'), REFRESH_MS);
    let sleep: ReturnType<typeof setTimeout> | undefined;
    const onVisibility = (): void => {
      clearTimeout(sleep);
      if (document.hidden) {
        // A browser opens few connections to one name: a tab that nobody sees gives its own back.
        sleep = setTimeout(() => this.#close(), HIDDEN_MS);
      } else if (this.#source) {
        this.#schedule();
      } else if (!this.isSignedOut) {
        this.#open();
      }
    };
    document.addEventListener('visibilitychange', onVisibility);
    return () => {
      clearInterval(refresh);
      clearTimeout(sleep);
      clearTimeout(this.#timer);
      document.removeEventListener('visibilitychange', onVisibility);
      this.#close();
    };
  }

  /** Nothing has happened here yet: one thing to do, instead of a page of zeros. */
  get isFirst(): boolean {
    return (
      this.agents !== undefined &&
      this.threads?.length === 0 &&
      this.asks?.length === 0 &&
      this.reminders?.length === 0 &&
      this.agents.every((row) => !row.turns_today && !row.busy && !row.queue)
    );
  }

  /** Return the hive's time for a time of this machine. */
  hiveTime(at: number): number {
    return at + this.#skewMs;
  }

  /** Ask again for `parts`, soon. */
  mark(...parts: Part[]): void {
    for (const part of parts) this.#dirty.add(part);
    this.#schedule();
  }

  /** Show the thread of `id`, or none. */
  show(id: string | undefined): void {
    if (id === this.openThread) return;
    this.openThread = id;
    this.messages = undefined;
    this.problems.delete('thread');
    this.#askedAt.delete('thread');
    if (id !== undefined) this.mark('thread');
  }

  /** Return who a principal is, by the name that the hive told. */
  who(principal: string): Who {
    return whoOf(principal, this.names);
  }

  /** Return what `agent` does in its turn, in the word of its tool. */
  toolOf(agent: string): string {
    for (const turn of this.turns.values()) if (turn.agent === agent && turn.tool) return turn.tool;
    return '';
  }

  /** The session is gone: nothing more is asked. */
  signedOut(): void {
    this.isSignedOut = true;
    this.#close();
    clearTimeout(this.#timer);
    this.#dirty.clear();
  }

  async #query<Row>(name: string, params: object): Promise<Row[]> {
    const page = await call<Page<Row>>('hive.query', { name, params });
    for (const [principal, called] of Object.entries(page.names ?? {})) this.names.set(principal, called);
    return page.rows ?? [];
  }

  #open(): void {
    this.#close();
    const source = new EventSource(`api/events${this.#after ? `?after=${this.#after}` : ''}`);
    this.#source = source;
    source.addEventListener('ready', (event) => {
      this.#after = event.lastEventId;
      this.#live();
      this.turns.clear();
      this.mark(...ALL);
    });
    source.addEventListener('hive', (event: MessageEvent<string>) => {
      this.#after = event.lastEventId;
      this.#hear(JSON.parse(event.data) as HiveEvent);
    });
    source.addEventListener('away', (event: MessageEvent<string>) => {
      const { next_ms } = JSON.parse(event.data) as { next_ms: number };
      this.#away(next_ms);
    });
    source.addEventListener('sign_in', () => this.signedOut());
    source.addEventListener('error', () => {
      if (this.#source === source) void this.#lost();
    });
  }

  #close(): void {
    this.#source?.close();
    this.#source = undefined;
  }

  /** The stream broke: signed out, or the web process is away. A stream does not tell which, so ask. */
  async #lost(): Promise<void> {
    this.#close();
    const wait = RETRY_MS[Math.min(this.#tries++, RETRY_MS.length - 1)] ?? 5000;
    try {
      await call('health.list');
    } catch (error) {
      if (error instanceof CallError && error.isSignedOut) {
        this.signedOut();
        return;
      }
    }
    this.#away(wait);
    setTimeout(() => {
      if (!this.#source && !this.isSignedOut) this.#open();
    }, wait);
  }

  #live(): void {
    this.#tries = 0;
    if (this.#awaySince !== undefined) {
      this.backAfterMs = Date.now() - this.#awaySince;
      this.#awaySince = undefined;
      speak('The daemon answers again');
      setTimeout(() => (this.backAfterMs = undefined), BACK_MS);
    }
    this.line = 'live';
    this.asOf = Date.now();
  }

  #away(nextMs: number): void {
    this.nextTryAt = Date.now() + nextMs;
    if (this.line === 'away') return;
    this.line = 'away';
    this.#awaySince = Date.now();
    this.asOf = this.asOf || Date.now();
    this.isSettled = true;
    this.turns.clear();
    speak('No answer from the daemon');
  }

  #hear({ kind, data = {} }: HiveEvent): void {
    this.asOf = Date.now();
    if (kind === 'resync') {
      this.mark(...ALL);
    } else if (kind === 'turn') {
      this.#hearTurn(data);
    } else {
      this.mark(...(TOUCHES[kind] ?? []));
    }
  }

  /** A turn tells its words many times a second; only a new state or tool changes this page. */
  #hearTurn(data: Record<string, unknown>): void {
    const text = (name: string): string => (typeof data[name] === 'string' ? data[name] : '');
    const id = text('turn_id');
    const turn = { agent: text('agent'), state: text('state'), tool: text('tool') };
    const before = this.turns.get(id);
    if (before?.state === turn.state && before.tool === turn.tool) return;
    const isOver = turn.state === 'ended' || turn.state === 'dropped';
    if (isOver) this.turns.delete(id);
    else this.turns.set(id, turn);
    if (isOver || !before) this.mark('agents', 'threads', 'thread');
    if (isOver) this.mark('stats');
  }

  #schedule(): void {
    if (document.hidden || this.#dirty.size === 0 || this.isSignedOut) return;
    clearTimeout(this.#timer);
    const now = performance.now();
    let wait = Infinity;
    for (const part of this.#dirty) {
      if (this.#loading.has(part)) continue;
      const free = (this.#askedAt.get(part) ?? -Infinity) + GAP_MS[part];
      wait = Math.min(wait, Math.max(GATHER_MS, free - now));
    }
    if (wait < Infinity) this.#timer = setTimeout(() => this.#load(), wait);
  }

  #load(): void {
    const now = performance.now();
    for (const part of [...this.#dirty]) {
      if (this.#loading.has(part)) continue;
      if ((this.#askedAt.get(part) ?? -Infinity) + GAP_MS[part] > now + 1) continue;
      this.#dirty.delete(part);
      this.#askedAt.set(part, now);
      void this.#loadPart(part);
    }
    this.#schedule();
  }

  async #loadPart(part: Part): Promise<void> {
    this.#loading.add(part);
    try {
      await this.#loaders[part]();
      this.problems.delete(part);
      this.asOf = Date.now();
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      if (error.isSignedOut) this.signedOut();
      else if (!error.isAway) this.problems.set(part, error);
    } finally {
      this.#loading.delete(part);
      this.#unsettled.delete(part);
      if (this.#unsettled.size === 0) this.isSettled = true;
      this.#schedule();
    }
  }
}

export const hive = new Hive();
