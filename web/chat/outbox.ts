/**
 * Words that were written and are not yet known to be kept. They go once, in order, under an id of their own, so
 * that sending one again does no harm; they survive a reload, and every tab of the account sees the same ones.
 * Pure but for the `Storage` it is given.
 */
import type { Problem } from './protocol';

export interface Kept {
  /** The client's id: the server answers a repeat of it with the same message. */
  readonly id: string;
  /** A conversation's id, or `new:…` for one that is not made yet. */
  readonly conversation: string;
  readonly text: string;
  /** The first message of the thread it is written in. */
  readonly thread?: string;
  readonly at: number;
  /** Refused for good: it waits for the person. */
  readonly refused?: Problem;
}

type Store = Pick<Storage, 'getItem' | 'setItem' | 'removeItem' | 'key' | 'length'>;

export class Outbox {
  readonly #store: Store | undefined;
  readonly #prefix: string;
  #kept: Kept[] = [];
  /** The one that was sent and has no answer yet. */
  #flying: string | undefined;

  constructor(account: string, store: Store | undefined) {
    this.#store = store;
    this.#prefix = `skep.out.${account}.`;
    this.reload();
  }

  /** All that is kept, in the order it was written. */
  get all(): readonly Kept[] {
    return this.#kept;
  }

  get flying(): string | undefined {
    return this.#flying;
  }

  get prefix(): string {
    return this.#prefix;
  }

  /** Keep it. Returns false when it could be kept only for the life of this page. */
  add(kept: Kept): boolean {
    this.#kept = inOrder([...this.#kept.filter(({ id }) => id !== kept.id), kept]);
    return this.#write(kept);
  }

  /** The next to send, which then is in flight until `answered` or `cut`. One at a time keeps the order. */
  take(): Kept | undefined {
    if (this.#flying !== undefined) return undefined;
    const next = this.#kept.find(({ refused }) => !refused);
    this.#flying = next?.id;
    return next;
  }

  /** The server has it (or a person took it back): returns what it was. */
  drop(id: string): Kept | undefined {
    const found = this.#kept.find((kept) => kept.id === id);
    if (this.#flying === id) this.#flying = undefined;
    this.#kept = this.#kept.filter((kept) => kept.id !== id);
    try {
      this.#store?.removeItem(this.#prefix + id);
    } catch {
      // Storage went away: there is nothing in it to remove.
    }
    return found;
  }

  /** The server will never take it as it is. */
  refuse(id: string, problem: Problem): void {
    this.#change(id, (kept) => ({ ...kept, refused: problem }));
    if (this.#flying === id) this.#flying = undefined;
  }

  /** Try a refused one again. */
  retry(id: string): void {
    this.#change(id, ({ refused: _, ...kept }) => kept);
  }

  /** Not now: the line broke, or the server asked to wait. What was in flight is sent again later. */
  cut(): void {
    this.#flying = undefined;
  }

  /** A conversation that was to be made has its id now. */
  moved(from: string, to: string): void {
    for (const kept of this.#kept.filter(({ conversation }) => conversation === from)) {
      this.#change(kept.id, (was) => ({ ...was, conversation: to }));
    }
  }

  /** Read what other tabs kept or sent. */
  reload(): void {
    if (!this.#store) return;
    const found = new Map<string, Kept>();
    try {
      for (let i = 0; i < this.#store.length; i += 1) {
        const key = this.#store.key(i);
        if (!key?.startsWith(this.#prefix)) continue;
        const kept = parse(this.#store.getItem(key));
        if (kept) found.set(kept.id, kept);
      }
    } catch {
      return;
    }
    // What we sent ourselves stays until we are answered, although another tab may have heard of it first.
    const ours = this.#kept.filter(({ id }) => this.#unwritten.has(id) || id === this.#flying);
    for (const kept of ours) found.set(kept.id, kept);
    this.#kept = inOrder([...found.values()]);
  }

  readonly #unwritten = new Set<string>();

  #change(id: string, change: (kept: Kept) => Kept): void {
    const found = this.#kept.find((kept) => kept.id === id);
    if (found) this.add(change(found));
  }

  #write(kept: Kept): boolean {
    try {
      this.#store?.setItem(this.#prefix + kept.id, JSON.stringify(kept));
      if (this.#store) {
        this.#unwritten.delete(kept.id);
        return true;
      }
    } catch {
      // Full, or switched off: kept in memory, and said so.
    }
    this.#unwritten.add(kept.id);
    return false;
  }
}

const inOrder = (kept: Kept[]): Kept[] => kept.sort((a, b) => a.at - b.at || (a.id < b.id ? -1 : 1));

function parse(text: string | null): Kept | undefined {
  try {
    const value = JSON.parse(text ?? '') as Partial<Kept> | null;
    const whole =
      typeof value?.id === 'string' &&
      typeof value.conversation === 'string' &&
      typeof value.text === 'string' &&
      typeof value.at === 'number';
    return whole ? (value as Kept) : undefined;
  } catch {
    return undefined;
  }
}
