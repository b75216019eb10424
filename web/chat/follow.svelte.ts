/**
 * Following the newest. One flag, changed only by the person: scrolling up stops it; reaching the end, the End key,
 * the button and sending start it. It is never derived from a distance when the content changes.
 */
import type { Attachment } from 'svelte/attachments';

import type { Message } from './protocol';

/** Scrolling this long after a gesture still belongs to it: a finger's swing goes on. */
const GESTURE_MS = 1500;
/** Own words come to rest here, so that the answer grows below them into free space. */
const REST_AT = 1 / 3;

export class Follow {
  on = $state(true);
  /** What came of others below what is in view. */
  below = $state(0);
  #seen: string | undefined;
  #node: HTMLElement | undefined;
  #inner: HTMLElement | undefined;
  #space: HTMLElement | undefined;
  #anchor: (() => Element | null | undefined) | undefined;
  #gestureAt = -GESTURE_MS;
  #isHeld = false;
  #lastTop = 0;

  /** Go to the end and stay there. */
  start(): void {
    this.on = true;
    this.#fit();
  }

  /** These are the rows now; while the person reads further up, what comes is counted. Returns whether all is seen. */
  count(messages: readonly Message[]): boolean {
    const newest = messages.at(-1);
    if (this.on || !newest) {
      this.below = 0;
      this.#seen = newest?.id;
      return true;
    }
    const from = messages.findIndex(({ id }) => id === this.#seen);
    this.below =
      from < 0 ? 0 : messages.slice(from + 1).filter((message) => message.from.kind !== 'person').length;
    return false;
  }

  /** Another conversation is in view: it begins at its end. */
  reset(): void {
    this.#anchor = undefined;
    this.below = 0;
    this.start();
  }

  /** Own words were sent: the row that `find` finds comes to the top third, and the answer below it. */
  rest(find: () => Element | null | undefined): void {
    this.#anchor = find;
    this.start();
  }

  /** Run `change`, which puts rows above, without moving what is in view. */
  async hold(change: () => Promise<void>): Promise<void> {
    const node = this.#node;
    const first = node && firstInView(node);
    const before = first?.getBoundingClientRect().top;
    await change();
    if (node && first?.isConnected && before !== undefined && !this.on) {
      const moved = first.getBoundingClientRect().top - before;
      if (Math.abs(moved) > 0.5) node.scrollTop += moved;
    }
  }

  /** Watch a scrolling element whose first child holds the rows and whose last child is the free space. */
  readonly attach: Attachment<HTMLElement> = (node) => {
    this.#node = node;
    this.#inner = node.firstElementChild as HTMLElement;
    this.#space = node.lastElementChild as HTMLElement;
    const sizes = new ResizeObserver(() => this.#fit());
    sizes.observe(node);
    sizes.observe(this.#inner);

    let touchY = 0;
    const gesture = (): void => void (this.#gestureAt = performance.now());
    const up = (): void => {
      if (node.scrollTop > 0) this.on = false;
    };
    const listeners: [keyof HTMLElementEventMap, (event: never) => void][] = [
      [
        'wheel',
        (event: WheelEvent) => {
          gesture();
          if (event.deltaY < 0 && !event.ctrlKey) up();
        },
      ],
      [
        'touchstart',
        (event: TouchEvent) => {
          gesture();
          touchY = event.touches[0]?.clientY ?? 0;
        },
      ],
      [
        'touchmove',
        (event: TouchEvent) => {
          gesture();
          if ((event.touches[0]?.clientY ?? 0) > touchY + 3) up();
        },
      ],
      ['pointerdown', () => void (this.#isHeld = true)],
      [
        'scroll',
        () => {
          const isTheirs = this.#isHeld || performance.now() - this.#gestureAt < GESTURE_MS;
          const top = node.scrollTop;
          if (isTheirs) {
            if (this.#isHeld && top < this.#lastTop - 1) this.on = false;
            else if (node.scrollHeight - node.clientHeight - top < 2) this.on = true;
          }
          this.#lastTop = top;
        },
      ],
    ];
    const release = (): void => void (this.#isHeld = false);
    for (const [name, run] of listeners) node.addEventListener(name, run as EventListener, { passive: true });
    window.addEventListener('pointerup', release);
    window.addEventListener('pointercancel', release);
    this.#fit();
    return () => {
      sizes.disconnect();
      for (const [name, run] of listeners) node.removeEventListener(name, run as EventListener);
      window.removeEventListener('pointerup', release);
      window.removeEventListener('pointercancel', release);
      this.#node = this.#inner = this.#space = this.#anchor = undefined;
    };
  };

  /** A key that scrolls was pressed, and no field has the focus. Returns whether it was one. */
  key(event: KeyboardEvent): boolean {
    const node = this.#node;
    if (!node) return false;
    const page = node.clientHeight * 0.9;
    const by =
      event.key === 'PageUp'
        ? -page
        : event.key === 'PageDown'
          ? page
          : event.key === 'Home'
            ? -node.scrollHeight
            : 0;
    if (event.key === 'End') {
      this.start();
      return true;
    }
    if (by === 0) {
      if (event.key === 'ArrowUp' && node.scrollTop > 0 && node.contains(document.activeElement))
        this.on = false;
      if (event.key.startsWith('Arrow')) this.#gestureAt = performance.now();
      return false;
    }
    this.#gestureAt = performance.now();
    if (by < 0 && node.scrollTop > 0) this.on = false;
    node.scrollBy({ top: by });
    return true;
  }

  #fit(): void {
    const node = this.#node;
    const inner = this.#inner;
    if (!node || !inner || !this.#space) return;
    let space = 0;
    const row = this.#anchor?.();
    if (row) {
      const below = inner.getBoundingClientRect().bottom - row.getBoundingClientRect().top;
      space = Math.max(0, Math.floor(node.clientHeight * (1 - REST_AT) - below));
    }
    this.#space.style.height = `${space}px`;
    if (this.on) this.#toEnd();
  }

  #toEnd(): void {
    const node = this.#node;
    if (!node) return;
    node.scrollTop = node.scrollHeight;
    this.#lastTop = node.scrollTop;
  }
}

function firstInView(node: HTMLElement): HTMLElement | undefined {
  const top = node.getBoundingClientRect().top;
  for (const row of node.firstElementChild?.children ?? []) {
    if (row.getBoundingClientRect().bottom > top && (row as HTMLElement).dataset['row'])
      return row as HTMLElement;
  }
  return undefined;
}
