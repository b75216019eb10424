/** What this account's conversations say, as far as this tab has heard. Fed with pages and events; asks nobody. */
import { SvelteMap, SvelteSet } from 'svelte/reactivity';

import type { TickState } from '../shared/ticks';
import { DraftText } from './draft';
import type { AgentRow, ConversationRow, Message, ServerEvent } from './protocol';

/** An answer that is being written. */
export class Draft {
  readonly message: string;
  readonly agent: string;
  readonly since: number;
  readonly thread: string | undefined;
  readonly #buffer = new DraftText();
  text = $state('');
  /** The line broke since: what it says may be old. */
  isStale = $state(false);

  constructor(message: string, agent: string, since: number, thread?: string) {
    this.message = message;
    this.agent = agent;
    this.since = since;
    this.thread = thread;
  }

  apply(at: number, add: string): void {
    this.isStale = false;
    if (this.#buffer.apply(at, add)) this.text = this.#buffer.text;
  }
}

export interface Work {
  readonly agent: string;
  readonly since: number;
  readonly thread: string | undefined;
  /** The line broke since. */
  readonly isStale?: boolean;
}

const NONE: readonly Message[] = [];

const workOf = (agent: string, thread: string | undefined): string => `${agent} ${thread ?? ''}`;

export class Conversation {
  readonly id: string;
  title = $state('');
  lastAt = $state(0);
  unread = $state(0);
  isArchived = $state(false);
  /** The server's list names it; until then it is known only by what was said in it. */
  isListed = $state(false);
  /** Up to then the count of what is new is the server's. */
  listedAt = 0;
  /** What its last line said, as this browser remembers it, until the messages come. */
  was = $state('');
  /** Oldest first. */
  messages = $state.raw<readonly Message[]>([]);
  /** `some`: only what came by itself; the page before it was not asked for. */
  loaded = $state<'some' | 'asked' | 'yes' | 'failed'>('some');
  hasOlder = $state(true);
  readonly drafts = new SvelteMap<string, Draft>();
  /** Who is at work here, by thread and name. */
  readonly working = new SvelteMap<string, Work>();
  /** Threads in which something was said that nobody looked at, in this tab. */
  readonly fresh = new SvelteSet<string>();
  /** What was said in each thread, by its first message, and under `undefined` what was said outside of threads. */
  readonly #parts = $derived.by(() => {
    const parts = new Map<string | undefined, Message[]>();
    for (const message of this.messages) {
      const part = parts.get(message.thread);
      if (part) part.push(message);
      else parts.set(message.thread, [message]);
    }
    return parts;
  });
  /** Ids of messages that an answer names. */
  readonly answered = new SvelteSet<string>();
  /** Who spoke here, in the order of their newest words. */
  readonly agents = $derived([
    ...new Set(
      this.messages
        .filter(({ from }) => from.kind === 'agent')
        .map(({ from }) => from.name)
        .reverse(),
    ),
  ]);
  readonly last = $derived(this.messages.at(-1));

  #wasAgent = $state<string>();

  constructor(id: string) {
    this.id = id;
  }

  /** Show this until the messages are there. */
  remember({ what, agent }: { what: string; agent: string | undefined }): void {
    this.was = what;
    this.#wasAgent = agent;
  }

  /** What was said in `thread`, or outside of threads; oldest first. */
  in(thread?: string): readonly Message[] {
    return this.#parts.get(thread) ?? NONE;
  }

  worksIn(thread?: string): readonly Work[] {
    return [...this.working.values()].filter((work) => work.thread === thread);
  }

  draftsIn(thread?: string): readonly Draft[] {
    return [...this.drafts.values()].filter((draft) => draft.thread === thread);
  }

  /** Who began to work last, in a thread or outside of them. */
  get busy(): string | undefined {
    return [...this.working.values()].at(-1)?.agent;
  }

  /** Who answers in `thread`, or outside of threads: the last agent that spoke or works there. */
  agentIn(thread?: string): string | undefined {
    return (
      this.worksIn(thread).at(-1)?.agent ??
      this.in(thread).findLast(({ from }) => from.kind === 'agent')?.from.name
    );
  }

  /** Who answers here. */
  get agent(): string {
    return this.agentIn() ?? this.agents[0] ?? this.#wasAgent ?? 'concierge';
  }

  /** Put `message` in its place: over an older form of it, else at the end. */
  put(message: Message): 'new' | 'same' {
    for (const id of message.answers) this.answered.add(id);
    this.drafts.delete(message.id);
    const at = this.messages.findLastIndex(({ id }) => id === message.id);
    if (at >= 0) {
      const was = this.messages[at];
      const state = furthest(was?.state, message.state);
      this.messages = this.messages.with(at, state ? { ...message, state } : message);
      return 'same';
    }
    this.messages = [...this.messages, message];
    this.lastAt = Math.max(this.lastAt, message.at);
    return 'new';
  }

  /** Put a page of older messages before what is there, or under it what came meanwhile. */
  putPage(page: readonly Message[], { isNewest, limit }: { isNewest: boolean; limit: number }): void {
    const known = new Map(this.messages.map((message) => [message.id, message]));
    const fresh = page.map((message) => {
      for (const id of message.answers) this.answered.add(id);
      const state = furthest(known.get(message.id)?.state, message.state);
      return state ? { ...message, state } : message;
    });
    const inPage = new Set(page.map(({ id }) => id));
    const rest = this.messages.filter(({ id }) => !inPage.has(id));
    if (isNewest) {
      // What is older than the page has a gap before it; what came while it was asked for stays.
      const from = page.at(-1)?.at ?? 0;
      this.messages = [...fresh, ...rest.filter(({ at }) => at >= from)];
      this.loaded = 'yes';
    } else {
      this.messages = [...fresh, ...rest];
    }
    if (isNewest || page.length > 0) this.hasOlder = page.length >= limit;
    else this.hasOlder = false;
    this.lastAt = Math.max(this.lastAt, this.messages.at(-1)?.at ?? 0);
  }

  /** Forget all but the newest, when nobody looks. */
  trim(keep: number): void {
    if (this.messages.length <= keep) return;
    this.messages = this.messages.slice(-keep);
    this.hasOlder = true;
  }

  /** How far a person's own message is, as a mark. */
  tick(message: Message): TickState {
    if (message.state === 'failed') return 'dead';
    if (this.answered.has(message.id)) return 'done';
    return message.state === 'seen' ? 'shown' : 'ready';
  }
}

const ORDER = ['stored', 'delivered', 'seen', 'failed'] as const;

/** A state never goes back, in whatever order it is heard. */
function furthest(a: Message['state'], b: Message['state']): Message['state'] {
  if (!a || !b) return a ?? b;
  return ORDER.indexOf(a) >= ORDER.indexOf(b) ? a : b;
}

export class Book {
  readonly conversations = new SvelteMap<string, Conversation>();
  /** Who can be written to, as far as the server said. */
  agents = $state.raw<readonly AgentRow[]>([]);
  /** The last event heard; a line resumes after it. */
  n = 0;
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** Newest first, without the archived. */
  readonly list = $derived.by(() =>
    [...this.conversations.values()]
      .filter((c) => c.isListed && !c.isArchived)
      .sort((a, b) => b.lastAt - a.lastAt),
  );

  of(id: string): Conversation {
    let found = this.conversations.get(id);
    if (!found) {
      found = new Conversation(id);
      this.conversations.set(id, found);
    }
    return found;
  }

  putRows(rows: readonly ConversationRow[]): void {
    for (const row of rows) {
      const conversation = this.of(row.id);
      // No title yet there: the one we gave it ourselves, from its first words, is the one it will get.
      conversation.title = row.title ?? conversation.title;
      conversation.lastAt = Math.max(conversation.lastAt, row.last_at);
      conversation.unread = row.unread;
      conversation.isListed = true;
      conversation.listedAt = row.last_at;
      conversation.isArchived = row.archived ?? false;
    }
  }

  /** Take in an event; returns the message that is new by it. */
  hear(event: ServerEvent): { readonly conversation: Conversation; readonly message: Message } | undefined {
    if ('n' in event && event.t !== 'reset')
      this.n = event.t === 'ready' ? event.n : Math.max(this.n, event.n);
    switch (event.t) {
      case 'message': {
        const conversation = this.of(event.conversation);
        const isNew = conversation.put(event.message) === 'new';
        // Words of the person bring a conversation back from the archive, on the server too.
        if (isNew && event.message.from.kind === 'person' && event.message.at > conversation.listedAt) {
          conversation.isArchived = false;
        }
        return isNew ? { conversation, message: event.message } : undefined;
      }
      case 'state': {
        for (const conversation of this.conversations.values()) {
          const message = conversation.messages.findLast(({ id }) => id === event.message);
          if (message) conversation.put({ ...message, state: event.state });
        }
        return undefined;
      }
      case 'typing': {
        const { working } = this.of(event.conversation);
        const { agent, thread } = event;
        const key = workOf(agent, thread);
        if (event.on) working.set(key, { agent, thread, since: working.get(key)?.since ?? this.#now() });
        else working.delete(key);
        return undefined;
      }
      case 'draft': {
        const conversation = this.of(event.conversation);
        // An answer that is whole is not written again.
        if (conversation.messages.some(({ id }) => id === event.message)) return undefined;
        let draft = conversation.drafts.get(event.message);
        if (!draft) {
          const { thread } = event;
          const agent = event.agent ?? conversation.agentIn(thread) ?? conversation.agent;
          const since = conversation.working.get(workOf(agent, thread))?.since ?? this.#now();
          draft = new Draft(event.message, agent, since, thread);
          conversation.drafts.set(event.message, draft);
        }
        draft.apply(event.at, event.add);
        return undefined;
      }
      case 'agents':
        this.agents = event.agents;
        return undefined;
      default:
        return undefined;
    }
  }

  /** The line broke: who worked may have ended since. A line that comes back at once changes nothing in view. */
  doubt(): void {
    for (const conversation of this.conversations.values()) {
      for (const [key, work] of conversation.working)
        conversation.working.set(key, { ...work, isStale: true });
      for (const draft of conversation.drafts.values()) draft.isStale = true;
    }
  }

  /** The line is away: nobody is known to work. */
  rest(): void {
    this.agents = this.agents.map(({ name, role }) => ({ name, role }));
    for (const conversation of this.conversations.values()) conversation.working.clear();
  }

  /** The line is back and has told what runs: what it did not name is over. */
  settle(): void {
    for (const conversation of this.conversations.values()) {
      for (const [key, work] of conversation.working) if (work.isStale) conversation.working.delete(key);
      for (const [id, draft] of conversation.drafts) if (draft.isStale) conversation.drafts.delete(id);
    }
  }
}
