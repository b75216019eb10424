/** What the web chat's API says, as types, and the one place where its words are checked. */

export interface Speaker {
  readonly kind: 'person' | 'agent' | 'system';
  readonly name: string;
}

/** How far a person's own message has come: kept by the server, in the hive, shown to an agent, given up. */
export type MessageState = 'stored' | 'delivered' | 'seen' | 'failed';

export interface Choice {
  readonly id: string;
  readonly label: string;
}

export interface Prompt {
  readonly id: string;
  readonly options: readonly Choice[];
  /** When it closes by itself. */
  readonly until?: number;
  readonly chosen?: string;
  readonly chosen_at?: number;
}

export interface Message {
  readonly id: string;
  readonly from: Speaker;
  readonly text: string;
  readonly reply_to: string | null;
  readonly answers: readonly string[];
  readonly at: number;
  /** The id of the first message of the thread that it was said in. */
  readonly thread?: string;
  readonly state?: MessageState;
  readonly client_id?: string;
  readonly prompt?: Prompt;
}

export interface ConversationRow {
  readonly id: string;
  readonly title: string | null;
  readonly last_at: number;
  readonly unread: number;
  readonly archived?: boolean;
}

export interface Me {
  readonly account: string;
  readonly name: string;
}

/** An agent that can be written to. */
export interface AgentRow {
  readonly name: string;
  readonly role: string;
  /** What it does now, if that is known. */
  readonly state?: string;
  /** Messages that it has not seen. */
  readonly waiting?: number;
}

export interface Problem {
  readonly code: string;
  readonly problem: string;
  readonly hint: string;
  readonly retry_after_ms?: number;
}

export type ServerEvent =
  | { readonly t: 'ready' | 'reset'; readonly n: number }
  | { readonly t: 'stored'; readonly id: string; readonly message: string; readonly n: number }
  | { readonly t: 'state'; readonly message: string; readonly state: MessageState; readonly n: number }
  | {
      readonly t: 'typing';
      readonly conversation: string;
      readonly agent: string;
      readonly on: boolean;
      readonly thread?: string;
    }
  | {
      readonly t: 'draft';
      readonly conversation: string;
      readonly message: string;
      readonly agent?: string;
      readonly at: number;
      readonly add: string;
      readonly thread?: string;
    }
  | { readonly t: 'message'; readonly n: number; readonly conversation: string; readonly message: Message }
  /** All of them, each time; who answers by default is the first. */
  | { readonly t: 'agents'; readonly agents: readonly AgentRow[] }
  | ({ readonly t: 'error'; readonly id?: string } & Problem);

export type ClientEvent =
  | { readonly t: 'resume'; readonly n: number }
  | {
      readonly t: 'send';
      readonly id: string;
      readonly conversation: string;
      readonly text: string;
      readonly reply_to: string | null;
      readonly thread?: string;
    }
  /** `null`: what is outside of threads. */
  | { readonly t: 'stop'; readonly conversation: string; readonly thread: string | null }
  | { readonly t: 'read'; readonly conversation: string }
  | { readonly t: 'choose'; readonly conversation: string; readonly prompt: string; readonly option: string };

/** Longest text of a person, in bytes of UTF-8. */
export const MAX_TEXT_BYTES = 65_536;

type Fields = Record<string, unknown>;

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const str = (value: unknown): value is string => typeof value === 'string';
const num = (value: unknown): value is number => typeof value === 'number';

const SHAPES = new Map<string, (f: Fields) => boolean>(
  Object.entries({
    ready: (f: Fields) => num(f['n']),
    reset: (f: Fields) => num(f['n']),
    stored: (f: Fields) => str(f['id']) && str(f['message']) && num(f['n']),
    state: (f: Fields) => str(f['message']) && str(f['state']) && num(f['n']),
    typing: (f: Fields) => str(f['conversation']) && str(f['agent']) && typeof f['on'] === 'boolean',
    draft: (f: Fields) => str(f['conversation']) && str(f['message']) && num(f['at']) && str(f['add']),
    message: (f: Fields) => num(f['n']) && str(f['conversation']) && isMessage(f['message']),
    agents: (f: Fields) => Array.isArray(f['agents']) && f['agents'].every(isAgent),
    error: (f: Fields) => str(f['code']) && str(f['problem']),
  }),
);

function isMessage(value: unknown): value is Message {
  if (!isFields(value) || !isFields(value['from'])) return false;
  return str(value['id']) && str(value['text']) && num(value['at']) && str(value['from']['name']);
}

function isAgent(value: unknown): value is AgentRow {
  if (!isFields(value) || !str(value['name']) || !str(value['role'])) return false;
  const { state, waiting } = value;
  return (state === undefined || str(state)) && (waiting === undefined || num(waiting));
}

/** Return the event in `data`, or nothing when it is of a kind or a form that this page does not know. */
export function readEvent(data: unknown): ServerEvent | undefined {
  if (!str(data)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return undefined;
  }
  if (!isFields(value) || !str(value['t'])) return undefined;
  return SHAPES.get(value['t'])?.(value) ? (value as ServerEvent) : undefined;
}

/** Return how many characters at the end of `text` are over the limit. */
export function overBy(text: string, limit: number = MAX_TEXT_BYTES): number {
  // A character is at most three bytes for each of its UTF-16 units.
  if (text.length * 3 <= limit) return 0;
  let over = bytesOf(text) - limit;
  let characters = 0;
  const points = over > 0 ? [...text] : [];
  while (over > 0) {
    over -= bytesOf(points[points.length - 1 - characters] ?? ' ');
    characters += 1;
  }
  return characters;
}

const encoder = new TextEncoder();
/** Return the length of `text` in bytes of UTF-8. */
export const bytesOf = (text: string): number => encoder.encode(text).length;
