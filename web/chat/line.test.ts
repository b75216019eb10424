import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { Line, type LineState, type Socket } from './line';
import type { ServerEvent } from './protocol';

class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  readonly sent: unknown[] = [];
  isClosed = false;

  send(data: string): void {
    this.sent.push(JSON.parse(data));
  }
  close(): void {
    this.isClosed = true;
  }
  say(event: object): void {
    this.onmessage?.({ data: JSON.stringify(event) });
  }
}

describe('the line', () => {
  let sockets: FakeSocket[];
  let states: LineState[];
  let heard: ServerEvent[];
  let seen: number;
  let check: () => Promise<'in' | 'out' | 'away'>;
  let line: Line;
  const last = (): FakeSocket => sockets[sockets.length - 1] as FakeSocket;

  beforeEach(() => {
    vi.useFakeTimers();
    sockets = [];
    states = [];
    heard = [];
    seen = 0;
    check = () => Promise.resolve('away');
    line = new Line({
      connect: () => {
        const socket = new FakeSocket();
        sockets.push(socket);
        return socket;
      },
      check: () => check(),
      seen: () => seen,
      heard: (event) => {
        heard.push(event);
        if ('n' in event) seen = event.n;
      },
      changed: (state) => states.push(state),
      random: () => 0.5,
    });
    line.start();
  });
  afterEach(() => {
    line.end();
    vi.useRealTimers();
  });

  function open(n: number): void {
    last().onopen?.();
    last().say({ t: 'ready', n });
  }

  it('resumes after the last event, and is open when all of it came', () => {
    last().onopen?.();
    expect(last().sent).toEqual([{ t: 'resume', n: 0 }]);
    expect(line.say({ t: 'stop', conversation: 'c', thread: null })).toBe(false);
    last().say({ t: 'state', message: 'm', state: 'seen', n: 7 });
    last().say({ t: 'ready', n: 7 });
    expect(line.state.at).toBe('open');
    expect(line.say({ t: 'stop', conversation: 'c', thread: null })).toBe(true);

    last().onclose?.();
    expect(line.state.at).toBe('waiting');
    vi.advanceTimersByTime(500);
    last().onopen?.();
    expect(last().sent).toEqual([{ t: 'resume', n: 7 }]);
  });

  it('waits longer each time, and begins anew after it was open', () => {
    const waits: number[] = [];
    for (let i = 0; i < 8; i += 1) {
      last().onclose?.();
      const state = line.state;
      expect(state.at).toBe('waiting');
      if (state.at === 'waiting') waits.push(state.until - Date.now());
      vi.advanceTimersByTime(20_000 * 0 + (waits.at(-1) ?? 0));
    }
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
    open(1);
    last().onclose?.();
    const state = line.state;
    expect(state.at === 'waiting' && state.until - Date.now()).toBe(500);
  });

  it('does not wait when the person asks', () => {
    last().onclose?.();
    line.now();
    expect(sockets).toHaveLength(2);
    line.now();
    expect(sockets).toHaveLength(2);
  });

  it('gives up a line that never is ready', () => {
    last().onopen?.();
    vi.advanceTimersByTime(15_000);
    expect(sockets[0]?.isClosed).toBe(true);
    expect(line.state.at).toBe('waiting');
  });

  it('is over when the session is', async () => {
    check = () => Promise.resolve('out');
    last().onclose?.();
    await vi.advanceTimersByTimeAsync(0);
    expect(line.state.at).toBe('over');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sockets).toHaveLength(1);
  });

  it('hears nothing from a line it left', () => {
    open(1);
    const old = last();
    line.again();
    vi.advanceTimersByTime(500);
    heard.length = 0;
    old.say({ t: 'state', message: 'm', state: 'seen', n: 9 });
    old.onclose?.();
    expect(heard).toEqual([]);
    expect(line.state.at).toBe('connecting');
  });

  it('passes over what it does not understand', () => {
    open(1);
    heard.length = 0;
    for (const data of ['{', '[]', '"x"', 'null', '{"t":"new kind"}', '{"t":"draft"}', new ArrayBuffer(3)]) {
      last().onmessage?.({ data });
    }
    expect(heard).toEqual([]);
    expect(line.state.at).toBe('open');
  });
});
