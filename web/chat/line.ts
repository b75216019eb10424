/**
 * The open line to the server: connects, resumes, and comes back by itself. It knows nothing of what is said on it.
 * A line that was never open may mean that the session is over, which a socket cannot say: then `check` asks.
 */
import { readEvent, type ClientEvent, type ServerEvent } from './protocol';

export type LineState =
  | { readonly at: 'connecting' }
  | { readonly at: 'open' }
  | { readonly at: 'waiting'; readonly until: number }
  | { readonly at: 'over' };

export interface Socket {
  onopen: (() => void) | null;
  onclose: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  send(data: string): void;
  close(): void;
}

export interface LineParts {
  readonly connect: () => Socket;
  /** Ask over HTTP whether we are still signed in. */
  readonly check: () => Promise<'in' | 'out' | 'away'>;
  /** The last event seen, to go on from. */
  readonly seen: () => number;
  readonly heard: (event: ServerEvent) => void;
  readonly changed: (state: LineState) => void;
  readonly now?: () => number;
  readonly random?: () => number;
}

const WAITS_MS = [500, 1000, 2000, 4000, 8000, 15_000] as const;
/** How long a line may take to be ready before it is given up. */
const READY_WITHIN_MS = 15_000;

export class Line {
  readonly #parts: LineParts;
  #socket: Socket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failures = 0;
  #state: LineState = { at: 'connecting' };

  constructor(parts: LineParts) {
    this.#parts = parts;
  }

  get state(): LineState {
    return this.#state;
  }

  start(): void {
    if (this.#socket || this.#state.at === 'over') return;
    clearTimeout(this.#timer);
    this.#set({ at: 'connecting' });
    let opened = false;
    const socket = this.#parts.connect();
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lost(socket, opened), READY_WITHIN_MS);
    socket.onopen = () => {
      opened = true;
      socket.send(JSON.stringify({ t: 'resume', n: this.#parts.seen() } satisfies ClientEvent));
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      const event = readEvent(data);
      if (!event) return;
      this.#parts.heard(event);
      if (event.t === 'ready' && this.#state.at !== 'open') {
        clearTimeout(this.#timer);
        this.#failures = 0;
        this.#set({ at: 'open' });
      }
    };
    socket.onclose = () => this.#lost(socket, opened);
  }

  /** Say something; returns false when the line is not open. */
  say(event: ClientEvent): boolean {
    if (this.#state.at !== 'open' || !this.#socket) return false;
    this.#socket.send(JSON.stringify(event));
    return true;
  }

  /** Do not wait any longer. */
  now(): void {
    if (this.#state.at !== 'waiting') return;
    clearTimeout(this.#timer);
    this.start();
  }

  /** The line looks open and is not: begin anew. */
  again(): void {
    const socket = this.#socket;
    if (socket) this.#lost(socket, true);
  }

  end(): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
    this.#set({ at: 'over' });
  }

  #lost(socket: Socket, opened: boolean): void {
    if (this.#socket !== socket) return;
    this.#socket = undefined;
    clearTimeout(this.#timer);
    socket.close();
    const base = WAITS_MS[Math.min(this.#failures, WAITS_MS.length - 1)] ?? 15_000;
    this.#failures += 1;
    // Some of them a little later than others, so that not all tabs come back at once.
    const wait = base * (0.8 + 0.4 * (this.#parts.random ?? Math.random)());
    this.#set({ at: 'waiting', until: (this.#parts.now ?? Date.now)() + wait });
    this.#timer = setTimeout(() => this.start(), wait);
    if (!opened || this.#failures > 1) {
      void this.#parts.check().then((answer) => {
        if (answer === 'out') this.end();
      });
    }
  }

  #set(state: LineState): void {
    this.#state = state;
    this.#parts.changed(state);
  }
}
