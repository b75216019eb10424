/** The chat of one signed-in account in one tab: book, line and outbox, and what a person can do with them. */
import { SvelteMap } from 'svelte/reactivity';

import { speak } from '../shared/live.svelte';
import { oneLine, shortName } from '../shared/words';
import { api, ApiError } from './api';
import { Book, type Conversation } from './book.svelte';
import { Line, type LineState, type Socket } from './line';
import { Outbox, type Kept } from './outbox';
import { placeOf } from './place';
import type { ConversationRow, Me, Message, Problem, ServerEvent } from './protocol';

/** A line that is away for less than this is not worth a word. */
const QUIET_MS = 2000;
const PAGE = 50;
/** So few rows are no conversation: when the newest pages are nearly all replies in threads, more is asked for. */
const FEW = 10;
const MANY = 500;
/** Enough of a conversation to show who is in it, and what was said last. */
const PREVIEW = 4;
/** Kept of a conversation that nobody looks at. */
const KEEP = 100;
/** An answer to a `send` later than this means that the line only looks open. */
const STORED_WITHIN_MS = 10_000;
/** What another tab keeps is sent by us when that tab did not do so. */
const OTHERS_AFTER_MS = 4000;
const SETTLE_AFTER_MS = 1500;
const AGAIN_AFTER_MS = 2000;

const storage = (): Storage | undefined => {
  try {
    return window.localStorage;
  } catch {
    return undefined;
  }
};

const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join(
    '',
  );

const REMEMBERED = 30;
/** Conversations in one answer of the server. */
const ROWS = 50;

/** A row of the list, as this browser keeps it for the next visit. */
interface Remembered extends ConversationRow {
  readonly what: string;
  readonly agent: string;
}

export class Chat {
  readonly me: Me;
  readonly book: Book;
  readonly #outbox: Outbox;
  readonly #line: Line;
  readonly #store = storage();
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  readonly #onOver: () => void;
  readonly #typed = new Map<string, string>();
  #lastKept = 0;
  #sentTimer: ReturnType<typeof setTimeout> | undefined;
  #quietTimer: ReturnType<typeof setTimeout> | undefined;
  #isMaking = false;
  #isListing = false;
  #listWanted = false;
  #drafts: ServerEvent[] = [];
  #frame = 0;

  line = $state.raw<LineState>({ at: 'connecting' });
  /** The line has been away long enough to say so. */
  isOffline = $state(false);
  kept = $state.raw<readonly Kept[]>([]);
  /** The list of conversations was asked for and came. */
  hasList = $state(false);
  hasMore = $state(false);
  /** Something that failed and has no better place. */
  problem = $state.raw<Problem | undefined>();
  /** Held back by the server until then. */
  waitsUntil = $state(0);
  /** Words could not be written to this browser's storage. */
  isFull = $state(false);
  /** The conversation in view. */
  current = $state<string | undefined>();
  /** The thread that is open beside it, by its first message. */
  thread = $state<string | undefined>();
  /** Places that were asked to stop. */
  stopping = $state.raw<ReadonlySet<string>>(new Set());
  /** Choices that were pressed, by prompt, until the server tells them. */
  readonly pressed = new SvelteMap<string, string>();

  constructor(me: Me, onOver: () => void) {
    this.me = me;
    this.#onOver = onOver;
    this.book = new Book();
    this.book.n = Number(this.#read('n') ?? 0) || 0;
    this.#outbox = new Outbox(me.account, this.#store);
    this.kept = [...this.#outbox.all];
    this.#remembered();
    this.#line = new Line({
      connect: () =>
        new WebSocket(new URL('api/socket', location.href.replace(/^http/, 'ws'))) as unknown as Socket,
      check: async () => {
        try {
          await api.me();
          return 'in';
        } catch (error) {
          return error instanceof ApiError && error.status === 401 ? 'out' : 'away';
        }
      },
      seen: () => this.book.n,
      heard: (event) => this.#hear(event),
      changed: (state) => this.#lineChanged(state),
    });
  }

  /** Begin; returns what ends it. */
  start(): () => void {
    this.#line.start();
    this.#quietTimer = setTimeout(() => this.#away(), QUIET_MS);
    void this.loadList();
    const wake = (): void => this.#line.now();
    const visible = (): void => {
      if (document.visibilityState !== 'visible') return;
      wake();
      if (this.current && this.#sees()) this.saw(this.current);
    };
    const lost = (): void => this.#line.again();
    const others = ({ key }: StorageEvent): void => {
      if (key !== null && !key.startsWith(this.#outbox.prefix)) return;
      this.#outbox.reload();
      this.kept = [...this.#outbox.all];
      this.#after(OTHERS_AFTER_MS, () => this.#pump());
    };
    window.addEventListener('online', wake);
    window.addEventListener('offline', lost);
    window.addEventListener('storage', others);
    document.addEventListener('visibilitychange', visible);
    return () => {
      window.removeEventListener('online', wake);
      window.removeEventListener('offline', lost);
      window.removeEventListener('storage', others);
      document.removeEventListener('visibilitychange', visible);
      clearTimeout(this.#quietTimer);
      clearTimeout(this.#sentTimer);
      cancelAnimationFrame(this.#frame);
      for (const timer of this.#timers) clearTimeout(timer);
      this.#line.end();
    };
  }

  // Reading.

  /** Have the newest conversations. Asked for while it is being asked, it is asked once more. */
  async loadList(): Promise<void> {
    this.#listWanted = true;
    if (this.#isListing) return;
    this.#isListing = true;
    try {
      while (this.#listWanted) {
        this.#listWanted = false;
        const rows = await api.conversations();
        this.book.putRows(rows);
        this.hasMore = rows.length >= ROWS;
        this.hasList = true;
      }
      this.#remember();
      if (this.current && this.#sees()) this.saw(this.current);
      void this.#preview();
    } catch (error) {
      this.#failed(error);
      if (this.line.at !== 'over' && !this.hasList) this.#after(AGAIN_AFTER_MS, () => void this.loadList());
    } finally {
      this.#isListing = false;
    }
  }

  /** Older conversations than those in the list. */
  async loadMore(): Promise<void> {
    const oldest = [...this.book.conversations.values()]
      .filter(({ id, lastAt }) => !isNew(id) && lastAt > 0)
      .sort((a, b) => a.lastAt - b.lastAt || (a.id < b.id ? -1 : 1))[0];
    try {
      const rows = await api.conversations(oldest?.id);
      this.book.putRows(rows);
      this.hasMore = rows.length >= ROWS;
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Have the newest messages of `id`, unless they are there. */
  async load(id: string, { again = false }: { again?: boolean } = {}): Promise<void> {
    if (isNew(id)) return;
    const conversation = this.book.of(id);
    if (!again && (conversation.loaded === 'yes' || conversation.loaded === 'asked')) return;
    conversation.loaded = 'asked';
    try {
      conversation.putPage(await api.messages(id, { limit: PAGE }), { isNewest: true, limit: PAGE });
      this.#reconcile(conversation);
      const lacks = (): boolean => conversation.in().length < FEW && conversation.messages.length < MANY;
      while (lacks() && conversation.hasOlder && (await this.loadOlder(id)));
    } catch (error) {
      conversation.loaded = 'failed';
      this.#failed(error);
      if (error instanceof ApiError && error.status === 0) {
        this.#after(AGAIN_AFTER_MS, () => this.current === id && void this.load(id));
      }
    }
  }

  /** Have the page before what is there of `id`. Returns whether it came. */
  async loadOlder(id: string): Promise<boolean> {
    const conversation = this.book.of(id);
    const oldest = conversation.messages[0];
    if (conversation.loaded !== 'yes' || !conversation.hasOlder || !oldest) return false;
    conversation.loaded = 'asked';
    try {
      const page = await api.messages(id, { before: oldest.id, limit: PAGE });
      conversation.putPage(page, { isNewest: false, limit: PAGE });
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    } finally {
      conversation.loaded = 'yes';
    }
  }

  /** Look at `id`, and at a thread of it; what was in view before may be forgotten but for its end. */
  open(id: string | undefined, thread?: string): void {
    if (this.current && this.current !== id) this.book.conversations.get(this.current)?.trim(KEEP);
    this.current = id;
    this.thread = id === undefined ? undefined : thread;
    if (id === undefined) return;
    if (thread !== undefined) this.book.of(id).fresh.delete(thread);
    void this.load(id);
  }

  /** The person has seen the newest of `id`. */
  saw(id: string): void {
    const conversation = this.book.conversations.get(id);
    if (!conversation?.unread || document.visibilityState !== 'visible') return;
    if (this.#line.say({ t: 'read', conversation: id })) conversation.unread = 0;
  }

  // Writing.

  /** Keep `text` and send it when it is its turn. Returns the conversation it went to. */
  write(
    text: string,
    { conversation, thread }: { conversation: string | undefined; thread?: string | undefined },
  ): { readonly id: string; readonly to: string } {
    const id = newId();
    const to = conversation ?? `new:${newId()}`;
    const at = Math.max(Date.now(), this.#lastKept + 1);
    this.#lastKept = at;
    this.isFull = !this.#outbox.add({ id, conversation: to, text, at, ...(thread ? { thread } : {}) });
    this.kept = [...this.#outbox.all];
    this.#pump();
    return { id, to };
  }

  /** What was written in a place and is not known to be kept. */
  keptIn(id: string | undefined, thread?: string): readonly Kept[] {
    return this.kept.filter((one) => one.conversation === id && one.thread === thread);
  }

  /** Take back the last words of a place that were not sent yet. */
  unwriteLast(id: string | undefined, thread?: string): string | undefined {
    const last = this.keptIn(id, thread).findLast((one) => !this.isFlying(one.id));
    return last && this.unwrite(last.id);
  }

  /** Take back what was not sent yet. */
  unwrite(id: string): string | undefined {
    if (this.#outbox.flying === id) return undefined;
    const kept = this.#outbox.drop(id);
    this.kept = [...this.#outbox.all];
    return kept?.text;
  }

  retry(id: string): void {
    this.#outbox.retry(id);
    this.kept = [...this.#outbox.all];
    this.#pump();
  }

  isFlying(id: string): boolean {
    return this.#outbox.flying === id;
  }

  /** Ask who answers in `id`, in a thread of it or outside of threads, to stop. */
  stop(id: string, thread?: string): void {
    if (!this.#line.say({ t: 'stop', conversation: id, thread: thread ?? null })) return;
    this.stopping = new Set([...this.stopping, placeOf(id, thread)]);
  }

  choose(conversation: string, prompt: string, option: string): void {
    if (this.#line.say({ t: 'choose', conversation, prompt, option })) this.pressed.set(prompt, option);
  }

  async rename(id: string, title: string): Promise<void> {
    const conversation = this.book.of(id);
    const was = conversation.title;
    conversation.title = title;
    try {
      await api.change(id, { title });
    } catch (error) {
      conversation.title = was;
      this.#failed(error);
    }
  }

  async archive(id: string, archived: boolean): Promise<boolean> {
    const conversation = this.book.of(id);
    conversation.isArchived = archived;
    try {
      await api.change(id, { archived });
      return true;
    } catch (error) {
      conversation.isArchived = !archived;
      this.#failed(error);
      return false;
    }
  }

  async signOut(): Promise<void> {
    try {
      await api.signOut();
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) {
        this.#failed(error);
        return;
      }
    }
    this.#forget();
    this.#line.end();
  }

  /** Words that were typed in `place` and not sent, across a reload. */
  typed(place: string): string {
    return this.#typed.get(place) ?? this.#read(`typed.${place}`) ?? '';
  }

  keepTyped(place: string, text: string): void {
    this.#typed.set(place, text);
    this.#write(`typed.${place}`, text || undefined);
  }

  /** Try the line at once. */
  now(): void {
    this.#line.now();
  }

  // What the line says.

  #lineChanged(state: LineState): void {
    const was = this.line.at;
    this.line = state;
    if (state.at === 'open') {
      clearTimeout(this.#quietTimer);
      this.#quietTimer = undefined;
      this.isOffline = false;
      this.problem = undefined;
      this.#after(SETTLE_AFTER_MS, () => this.line.at === 'open' && this.book.settle());
      if (!this.hasList) void this.loadList();
      if (this.current) {
        void this.load(this.current);
        if (this.#sees()) this.saw(this.current);
      }
      this.#outbox.reload();
      this.#pump();
    } else {
      clearTimeout(this.#sentTimer);
      this.#outbox.cut();
      if (was === 'open') this.book.doubt();
      this.stopping = new Set();
      this.pressed.clear();
      this.#quietTimer ??= setTimeout(() => this.#away(), QUIET_MS);
    }
    if (state.at === 'over') this.#onOver();
  }

  #away(): void {
    if (this.line.at === 'open') return;
    this.isOffline = true;
    this.book.rest();
  }

  #hear(event: ServerEvent): void {
    if (event.t === 'draft') {
      // Words of an answer are drawn each frame at most; a hidden tab catches up with one paint.
      this.#drafts.push(event);
      this.#frame ||= requestAnimationFrame(() => this.#drawDrafts());
      return;
    }
    this.#drawDrafts();
    const before = this.book.n;
    const fresh = this.book.hear(event);
    switch (event.t) {
      case 'ready':
        if (event.n < before) this.#reload();
        break;
      case 'reset':
        this.book.n = event.n;
        this.#reload();
        break;
      case 'stored':
        this.#stored(event.id, event.message);
        break;
      case 'message':
        if (event.message.prompt) this.pressed.delete(event.message.prompt.id);
        if (event.message.client_id) this.#arrived(event.message.client_id);
        if (event.message.from.kind !== 'person')
          this.#ended(placeOf(event.conversation, event.message.thread));
        if (fresh) this.#news(fresh.conversation, fresh.message);
        break;
      case 'typing':
        if (!event.on) this.#ended(placeOf(event.conversation, event.thread));
        break;
      case 'error':
        this.#refused(event);
        break;
    }
    if (this.book.n !== before) this.#write('n', String(this.book.n));
  }

  #drawDrafts(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const waiting = this.#drafts;
    this.#drafts = [];
    for (const event of waiting) this.book.hear(event);
  }

  /** What we have heard has a gap: ask for all of it again. */
  #reload(): void {
    void this.loadList();
    for (const conversation of this.book.conversations.values()) {
      if (conversation.loaded === 'some') continue;
      if (conversation.id === this.current) void this.load(conversation.id, { again: true });
      else conversation.loaded = 'some';
    }
  }

  #news(conversation: Conversation, message: Message): void {
    if (!conversation.isListed) void this.loadList();
    this.#remember();
    if (message.from.kind === 'person') return;
    if (message.at > conversation.listedAt) conversation.unread += 1;
    const { thread } = message;
    const isHere = conversation.id === this.current;
    if (thread !== undefined && !(isHere && thread === this.thread)) conversation.fresh.add(thread);
    if (this.line.at === 'open')
      speak(`${shortName(message.from.name)} answered${thread === undefined ? '' : ' in a thread'}`);
    if (isHere && this.#sees()) this.saw(conversation.id);
  }

  /** Whether the newest is in view; the view knows. */
  #sees: () => boolean = () => true;

  watch(sees: () => boolean): void {
    this.#sees = sees;
  }

  #ended(place: string): void {
    if (!this.stopping.has(place)) return;
    this.stopping = new Set([...this.stopping].filter((asked) => asked !== place));
  }

  // The outbox.

  #pump(): void {
    this.kept = [...this.#outbox.all];
    if (this.line.at !== 'open' || this.#isMaking || Date.now() < this.waitsUntil) return;
    const next = this.#outbox.take();
    if (!next) return;
    if (isNew(next.conversation)) {
      this.#outbox.cut();
      void this.#make(next);
      return;
    }
    const { id, conversation, text, thread } = next;
    this.#line.say({ t: 'send', id, conversation, text, reply_to: null, ...(thread ? { thread } : {}) });
    clearTimeout(this.#sentTimer);
    this.#sentTimer = setTimeout(() => this.#line.again(), STORED_WITHIN_MS);
  }

  /** Make the conversation that the first words of `kept` begin; other tabs wait, so that it is made once. */
  async #make(kept: Kept): Promise<void> {
    this.#isMaking = true;
    const from = kept.conversation;
    const make = async (): Promise<void> => {
      this.#outbox.reload();
      if (!this.#outbox.all.some(({ conversation }) => conversation === from)) return;
      const id = await api.create();
      const conversation = this.book.of(id);
      conversation.title = oneLine(kept.text, 60);
      conversation.lastAt = Date.now();
      conversation.isListed = true;
      conversation.loaded = 'yes';
      conversation.hasOlder = false;
      this.#outbox.moved(from, id);
      if (this.current !== from) return;
      // Whoever is typing the next words goes on typing them.
      this.keepTyped(id, this.typed(NEW_PLACE));
      this.keepTyped(NEW_PLACE, '');
      this.#moved(from, id);
    };
    try {
      // `locks` is there only on https and on loopback.
      const locks = navigator.locks as LockManager | undefined;
      await (locks ? locks.request(from, make) : make());
    } catch (error) {
      this.#failed(error);
      this.waitsUntil = Date.now() + AGAIN_AFTER_MS;
      this.#after(AGAIN_AFTER_MS, () => this.#pump());
    } finally {
      this.#isMaking = false;
    }
    this.#pump();
  }

  #moved: (from: string, to: string) => void = () => undefined;

  /** Have `moved` told when a conversation in view gets its id. */
  onMoved(moved: (from: string, to: string) => void): void {
    this.#moved = moved;
  }

  #stored(id: string, message: string): void {
    clearTimeout(this.#sentTimer);
    const kept = this.#outbox.drop(id);
    const conversation = kept && this.book.of(kept.conversation);
    if (conversation) conversation.isArchived = false;
    if (conversation && !conversation.messages.some((known) => known.id === message)) {
      conversation.put({
        id: message,
        from: { kind: 'person', name: this.me.name },
        text: kept.text,
        reply_to: null,
        answers: [],
        at: Date.now(),
        state: 'stored',
        client_id: id,
        ...(kept.thread ? { thread: kept.thread } : {}),
      });
    }
    this.#pump();
  }

  /** The server told of words under the id we sent them with: they are kept there. */
  #arrived(id: string): void {
    if (!this.#outbox.all.some((kept) => kept.id === id)) return;
    clearTimeout(this.#sentTimer);
    this.#outbox.drop(id);
    this.#pump();
  }

  #reconcile(conversation: Conversation): void {
    for (const { client_id: id } of conversation.messages) if (id) this.#arrived(id);
  }

  #refused(event: Problem & { readonly id?: string }): void {
    if (!event.id || this.pressed.delete(event.id)) {
      this.problem = event;
      return;
    }
    clearTimeout(this.#sentTimer);
    if (event.retry_after_ms !== undefined) {
      this.#outbox.cut();
      this.waitsUntil = Date.now() + event.retry_after_ms;
      this.#after(event.retry_after_ms + 20, () => this.#pump());
    } else {
      this.#outbox.refuse(event.id, event);
    }
    this.#pump();
  }

  // This browser's memory of names, so that a page is not empty while it asks.

  async #preview(): Promise<void> {
    for (const conversation of this.book.list.slice(0, 20)) {
      if (conversation.messages.length > 0 || conversation.loaded !== 'some') continue;
      try {
        const page = await api.messages(conversation.id, { limit: PREVIEW });
        if (conversation.messages.length === 0) for (const message of page) conversation.put(message);
      } catch {
        return;
      }
    }
    this.#remember();
  }

  #remember(): void {
    const rows = this.book.list.slice(0, REMEMBERED).map((conversation): Remembered => {
      const { id, title, lastAt, unread, last } = conversation;
      const what = last
        ? `${last.from.kind === 'person' ? 'You: ' : ''}${oneLine(last.text, 80)}`
        : conversation.was;
      return { id, title, last_at: lastAt, unread, what, agent: conversation.agent };
    });
    this.#write('list', JSON.stringify(rows));
  }

  #remembered(): void {
    try {
      const rows = JSON.parse(this.#read('list') ?? '[]') as Remembered[];
      this.book.putRows(rows);
      for (const { id, what, agent } of rows) this.book.of(id).remember({ what, agent });
    } catch {
      // Of an older form: the server's list comes.
    }
  }

  #forget(): void {
    const own = (key: string): boolean => key.startsWith('skep.') && key !== 'skep.theme';
    const keys = Array.from({ length: this.#store?.length ?? 0 }, (_, i) => this.#store?.key(i) ?? '');
    for (const key of keys.filter(own)) this.#store?.removeItem(key);
  }

  #failed(error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) this.#line.end();
    // The line says itself that it is away.
    else if (error.status !== 0)
      this.problem = { code: error.code, problem: error.message, hint: error.hint };
  }

  #read(name: string): string | undefined {
    try {
      return this.#store?.getItem(`skep.${name}.${this.me.account}`) ?? undefined;
    } catch {
      return undefined;
    }
  }

  #write(name: string, value: string | undefined): void {
    const key = `skep.${name}.${this.me.account}`;
    try {
      if (value === undefined) this.#store?.removeItem(key);
      else this.#store?.setItem(key, value);
    } catch {
      // Only comfort is kept here: without it the page asks again.
    }
  }

  #after(ms: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      run();
    }, ms);
    this.#timers.add(timer);
  }
}

/** Where words of a conversation that is not begun are typed. */
export const NEW_PLACE = 'new';

/** Whether `id` is of a conversation that the server does not know yet. */
export const isNew = (id: string): boolean => id.startsWith('new:');
