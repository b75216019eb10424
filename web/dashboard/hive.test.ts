import { flushSync } from 'svelte';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { actOn, cancel } from './acts.svelte';
import { Hive } from './hive.svelte';
import { Kept } from './kept.svelte';

/** An event stream that the test speaks on. */
class Stream extends EventTarget {
  static last: Stream;
  closed = false;
  constructor(readonly url: string) {
    super();
    Stream.last = this;
  }
  close(): void {
    this.closed = true;
  }
  say(name: string, data: object, lastEventId = ''): void {
    this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data), lastEventId }));
  }
}

const asked: string[] = [];
let hive: Hive;
let answers: Record<string, () => Response>;
const json = (body: unknown, status = 200): Response => new Response(JSON.stringify(body), { status });

beforeEach(() => {
  vi.useFakeTimers();
  asked.length = 0;
  answers = {};
  hive = new Hive();
  vi.stubGlobal('EventSource', Stream);
  vi.stubGlobal('fetch', (url: string, init: { body?: string }) => {
    const method = url.replace('api/call/', '');
    const { name } = JSON.parse(init.body ?? '{}') as { name?: string };
    asked.push(name ? `${method} ${name}` : method);
    return Promise.resolve((answers[method] ?? (() => json({})))());
  });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe('the hive', () => {
  it('asks for everything once the stream is ready, and gathers what changes after that', async () => {
    const stop = hive.start();
    Stream.last.say('ready', { epoch: 1, cursor: 5 }, '1.5');
    await vi.advanceTimersByTimeAsync(200);
    expect([...asked].sort()).toEqual([
      'agent.list',
      'health.list',
      'hive.query asks',
      'hive.query reminders',
      'hive.query stats',
      'hive.query threads',
      'status.get',
    ]);

    asked.length = 0;
    for (let cursor = 6; cursor < 2006; cursor++)
      Stream.last.say('hive', { cursor, kind: 'delivery', data: {} }, `1.${cursor}`);
    await vi.advanceTimersByTimeAsync(2000);
    expect(asked.filter((each) => each === 'agent.list')).toHaveLength(1);
    expect(asked.filter((each) => each === 'hive.query threads')).toHaveLength(1);
    expect(asked).not.toContain('hive.query reminders');
    stop();
    expect(Stream.last.closed).toBe(true);
  });

  it('says that it is away, keeps what it had, and comes back by itself', async () => {
    answers['agent.list'] = () =>
      json({ agents: [{ name: 'scribe', role: 'agent', runtime: 'x', state: 'up' }] });
    const stop = hive.start();
    Stream.last.say('ready', { epoch: 1, cursor: 5 }, '1.5');
    await vi.advanceTimersByTimeAsync(1000);
    Stream.last.say('away', { next_ms: 250 });
    expect(hive.line).toBe('away');
    expect(hive.agents).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(41_000);
    Stream.last.say('ready', { epoch: 2, cursor: 0 }, '2.0');
    expect(hive.line).toBe('live');
    expect(hive.backAfterMs).toBe(41_000);
    await vi.advanceTimersByTimeAsync(6000);
    expect(hive.backAfterMs).toBeUndefined();
    stop();
  });

  it('opens its stream anew from where it was when the web process goes away', async () => {
    const stop = hive.start();
    Stream.last.say('ready', { epoch: 1, cursor: 5 }, '1.5');
    await vi.advanceTimersByTimeAsync(1000);
    const lost = Stream.last;
    answers['health.list'] = () => {
      throw new TypeError('refused');
    };
    lost.dispatchEvent(new Event('error'));
    await vi.advanceTimersByTimeAsync(600);
    expect(hive.line).toBe('away');
    expect(Stream.last).not.toBe(lost);
    expect(Stream.last.url).toBe('api/events?after=1.5');
    stop();
  });

  it('is signed out when the stream says so', () => {
    const stop = hive.start();
    Stream.last.say('sign_in', {});
    expect(hive.isSignedOut).toBe(true);
    expect(Stream.last.closed).toBe(true);
    stop();
  });
});

describe('a cancelled ask', () => {
  it('is drawn as asked at once, and is true when the hive says so', async () => {
    answers['ask.cancel'] = () => json({ state: 'cancelled' });
    const act = cancel('ask', 'a_1');
    expect(actOn('a_1')).toEqual({ state: 'asked' });
    await act;
    expect(actOn('a_1')).toEqual({ state: 'done' });
  });

  it('comes back with the reason when it is refused', async () => {
    answers['ask.cancel'] = () =>
      json({ ok: false, code: 'control.conflict', problem: 'it was answered', hint: '' }, 409);
    await cancel('ask', 'a_2');
    expect(actOn('a_2')).toEqual({ state: 'refused', why: 'it was answered' });
  });

  it('that was answered meanwhile is not called cancelled', async () => {
    answers['ask.cancel'] = () => json({ state: 'answered' });
    await cancel('ask', 'a_3');
    expect(actOn('a_3')).toEqual({ state: 'refused', why: 'it is answered' });
  });
});

describe('kept rows', () => {
  it('move freely while nobody is there, and stand still under the focus', () => {
    const kept = new Kept<{ id: string }>();
    const list = document.createElement('ul');
    const button = list.appendChild(document.createElement('button'));
    document.body.append(list);
    kept.around(list);
    const shown = (): string[] => kept.rows.map(({ row, isGone }) => (isGone ? `-${row.id}` : row.id));

    kept.update([{ id: 'a' }, { id: 'b' }]);
    kept.update([{ id: 'b' }, { id: 'a' }]);
    expect(shown()).toEqual(['b', 'a']);

    button.focus();
    kept.update([{ id: 'new' }, { id: 'a' }]);
    flushSync();
    expect(shown()).toEqual(['-b', 'a']);
    expect(kept.fresh).toBe(1);

    button.blur();
    kept.update([{ id: 'new' }, { id: 'a' }]);
    expect(shown()).toEqual(['new', 'a']);
    expect(kept.fresh).toBe(0);
    list.remove();
  });
});
