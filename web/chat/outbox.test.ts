import { beforeEach, describe, expect, it } from 'vitest';

import { Outbox, type Kept } from './outbox';

const REFUSAL = { code: 'web.too_large', problem: 'too long', hint: 'send it in parts' };
const kept = (id: string, at: number, more: Partial<Kept> = {}): Kept => ({
  id,
  at,
  conversation: 'c_1',
  text: `words of ${id}`,
  ...more,
});

describe('the outbox', () => {
  let box: Outbox;
  beforeEach(() => {
    localStorage.clear();
    box = new Outbox('ada', localStorage);
  });

  it('sends one at a time, in the order of writing', () => {
    box.add(kept('b', 2));
    box.add(kept('a', 1));
    box.add(kept('c', 3));
    expect(box.take()?.id).toBe('a');
    expect(box.take()).toBeUndefined();
    box.drop('a');
    expect(box.take()?.id).toBe('b');
  });

  it('sends again, under the same id, what was in flight when the line broke', () => {
    box.add(kept('a', 1));
    box.add(kept('b', 2));
    expect(box.take()?.id).toBe('a');
    box.cut();
    expect(box.take()?.id).toBe('a');
  });

  it('survives a reload', () => {
    box.add(kept('a', 1));
    box.add(kept('b', 2, { thread: 'm_1' }));
    box.take();
    const after = new Outbox('ada', localStorage);
    expect(after.all).toEqual([kept('a', 1), kept('b', 2, { thread: 'm_1' })]);
    expect(after.take()?.id).toBe('a');
  });

  it('is of one account', () => {
    box.add(kept('a', 1));
    expect(new Outbox('ben', localStorage).all).toEqual([]);
  });

  it('sees what another tab keeps and sends', () => {
    const other = new Outbox('ada', localStorage);
    other.add(kept('a', 1));
    expect(box.all).toEqual([]);
    box.reload();
    expect(box.all).toEqual([kept('a', 1)]);
    other.drop('a');
    box.reload();
    expect(box.all).toEqual([]);
  });

  it('holds what it sent until it is answered, also when another tab hears of it first', () => {
    box.add(kept('a', 1));
    box.take();
    new Outbox('ada', localStorage).drop('a');
    box.reload();
    expect(box.all).toEqual([kept('a', 1)]);
    expect(box.drop('a')).toEqual(kept('a', 1));
    expect(box.all).toEqual([]);
  });

  it('lets the next go when one is refused, and keeps that one for the person', () => {
    box.add(kept('a', 1));
    box.add(kept('b', 2));
    box.take();
    box.refuse('a', REFUSAL);
    expect(box.take()?.id).toBe('b');
    expect(box.all[0]?.refused).toEqual(REFUSAL);
    box.drop('b');
    box.retry('a');
    expect(box.take()).toEqual(kept('a', 1));
  });

  it('follows a conversation that gets its id', () => {
    box.add(kept('a', 1, { conversation: 'new:1' }));
    box.add(kept('b', 2, { conversation: 'new:2' }));
    box.moved('new:1', 'c_9');
    expect(box.all.map(({ conversation }) => conversation)).toEqual(['c_9', 'new:2']);
    expect(new Outbox('ada', localStorage).all[0]?.conversation).toBe('c_9');
  });

  it('keeps in memory what storage refuses, and says so', () => {
    const full = {
      ...{ length: 0, key: () => null, getItem: () => null, removeItem: () => undefined },
      setItem: () => {
        throw new DOMException('full', 'QuotaExceededError');
      },
    };
    const small = new Outbox('ada', full);
    expect(small.add(kept('a', 1))).toBe(false);
    small.reload();
    expect(small.take()?.id).toBe('a');
    expect(new Outbox('ada', undefined).add(kept('a', 1))).toBe(false);
  });

  it('is not harmed by what it does not understand', () => {
    localStorage.setItem('skep.out.ada.x', '{');
    localStorage.setItem('skep.out.ada.y', '{"id":"y"}');
    localStorage.setItem('skep.out.ada.z', 'null');
    expect(new Outbox('ada', localStorage).all).toEqual([]);
  });
});
