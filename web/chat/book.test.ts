import { describe, expect, it } from 'vitest';

import { Book } from './book.svelte';
import type { Message } from './protocol';

let clock = 1000;
const message = (id: string, more: Partial<Message> = {}): Message => ({
  id,
  from: { kind: 'agent', name: 'concierge' },
  text: `text of ${id}`,
  reply_to: null,
  answers: [],
  at: (clock += 1),
  ...more,
});
const own = (id: string, more: Partial<Message> = {}): Message =>
  message(id, { from: { kind: 'person', name: 'Ada' }, state: 'stored', ...more });
const ids = (book: Book): string[] => book.of('c').messages.map(({ id }) => id);

describe('ticks', () => {
  it('tell the state that was heard, and never go back', () => {
    const book = new Book();
    book.hear({ t: 'message', n: 1, conversation: 'c', message: own('m') });
    const tick = (): string => book.of('c').tick(book.of('c').messages[0] as Message);
    expect(tick()).toBe('ready');
    book.hear({ t: 'state', message: 'm', state: 'seen', n: 3 });
    expect(tick()).toBe('shown');
    book.hear({ t: 'state', message: 'm', state: 'delivered', n: 2 });
    expect(tick()).toBe('shown');
    book.hear({ t: 'message', n: 4, conversation: 'c', message: message('a', { answers: ['m'] }) });
    expect(tick()).toBe('done');
  });

  it('say when nothing was delivered', () => {
    const book = new Book();
    book.hear({ t: 'message', n: 1, conversation: 'c', message: own('m') });
    book.hear({ t: 'state', message: 'm', state: 'failed', n: 2 });
    expect(book.of('c').tick(book.of('c').messages[0] as Message)).toBe('dead');
  });
});

describe('events and pages', () => {
  it('hold each message once, whatever order they come in', () => {
    const book = new Book();
    const [a, b, c] = [message('a'), message('b'), message('c')];
    book.hear({ t: 'message', n: 3, conversation: 'c', message: c });
    book.of('c').putPage([a, b], { isNewest: true, limit: 50 });
    expect(ids(book)).toEqual(['a', 'b', 'c']);
    expect(book.hear({ t: 'message', n: 3, conversation: 'c', message: c })).toBeUndefined();
    expect(ids(book)).toEqual(['a', 'b', 'c']);
    expect(book.of('c').hasOlder).toBe(false);
  });

  it('keep what came while the page was asked for, and no gap', () => {
    const book = new Book();
    const old = message('old');
    book.of('c').put(old);
    const page = [message('x'), message('y')];
    const late = message('late');
    book.of('c').put(late);
    book.of('c').putPage(page, { isNewest: true, limit: 2 });
    expect(ids(book)).toEqual(['x', 'y', 'late']);
    book.of('c').putPage([old], { isNewest: false, limit: 2 });
    expect(ids(book)).toEqual(['old', 'x', 'y', 'late']);
  });

  it('take an edit in its place', () => {
    const book = new Book();
    book.hear({ t: 'message', n: 1, conversation: 'c', message: message('a') });
    book.hear({ t: 'message', n: 2, conversation: 'c', message: message('b') });
    book.hear({ t: 'message', n: 3, conversation: 'c', message: message('a', { text: 'changed' }) });
    expect(book.of('c').messages.map(({ text }) => text)).toEqual(['changed', 'text of b']);
  });

  it('resume after the last event', () => {
    const book = new Book();
    book.hear({ t: 'message', n: 5, conversation: 'c', message: message('a') });
    book.hear({ t: 'state', message: 'a', state: 'seen', n: 4 });
    expect(book.n).toBe(5);
    book.hear({ t: 'ready', n: 9 });
    expect(book.n).toBe(9);
  });

  it('forget all but the end', () => {
    const book = new Book();
    for (let i = 0; i < 120; i += 1) book.of('c').put(message(`m${i}`));
    book.of('c').hasOlder = false;
    book.of('c').trim(100);
    expect(book.of('c').messages).toHaveLength(100);
    expect(book.of('c').messages[0]?.id).toBe('m20');
    expect(book.of('c').hasOlder).toBe(true);
  });
});

describe('threads', () => {
  const reply = (id: string, more: Partial<Message> = {}): Message => own(id, { thread: 'first', ...more });

  it('have what is said in them, and nothing else has it', () => {
    const book = new Book();
    book.of('c').putPage([own('first'), reply('r1'), message('next')], { isNewest: true, limit: 50 });
    book.hear({ t: 'message', n: 1, conversation: 'c', message: reply('r2') });
    expect(
      book
        .of('c')
        .in()
        .map(({ id }) => id),
    ).toEqual(['first', 'next']);
    expect(
      book
        .of('c')
        .in('first')
        .map(({ id }) => id),
    ).toEqual(['r1', 'r2']);
    expect(book.of('c').in('next')).toEqual([]);
    expect(book.of('c').last?.id).toBe('r2');
  });

  it('have ticks and states of their own', () => {
    const book = new Book();
    book.of('c').put(own('first'));
    book.of('c').put(reply('r1'));
    book.hear({ t: 'state', message: 'r1', state: 'seen', n: 1 });
    const answer = message('a', { thread: 'first', answers: ['r1'] });
    book.hear({ t: 'message', n: 2, conversation: 'c', message: answer });
    expect(
      [...book.of('c').in(), ...book.of('c').in('first').slice(0, 1)].map((m) => book.of('c').tick(m)),
    ).toEqual(['ready', 'done']);
  });

  it('have their own who works and what is being written', () => {
    const book = new Book();
    const conversation = book.of('c');
    book.hear({ t: 'typing', conversation: 'c', agent: 'scribe', on: true });
    book.hear({ t: 'typing', conversation: 'c', agent: 'scribe', on: true, thread: 'first' });
    book.hear({
      t: 'draft',
      conversation: 'c',
      message: 'a',
      agent: 'scribe',
      at: 0,
      add: 'Hel',
      thread: 'first',
    });
    expect(conversation.draftsIn()).toEqual([]);
    expect(conversation.draftsIn('first').map(({ text }) => text)).toEqual(['Hel']);
    book.hear({ t: 'typing', conversation: 'c', agent: 'scribe', on: false });
    expect(conversation.worksIn()).toEqual([]);
    expect(conversation.worksIn('first').map(({ agent }) => agent)).toEqual(['scribe']);
    expect(conversation.busy).toBe('scribe');
  });

  it('do not say who answers outside of them', () => {
    const book = new Book();
    const conversation = book.of('c');
    conversation.put(message('first', { from: { kind: 'agent', name: 'scout' } }));
    conversation.put(message('a', { thread: 'first' }));
    expect([conversation.agent, conversation.agentIn('first')]).toEqual(['scout', 'concierge']);
    expect(conversation.agents).toEqual(['concierge', 'scout']);
    book.hear({ t: 'typing', conversation: 'c', agent: 'ledger', on: true, thread: 'first' });
    expect([conversation.agent, conversation.agentIn('first')]).toEqual(['scout', 'ledger']);
    expect(conversation.agentIn('another')).toBeUndefined();
  });
});

describe('the list', () => {
  it('names what the server names, newest first', () => {
    const book = new Book();
    book.hear({ t: 'message', n: 1, conversation: 'early', message: message('a') });
    expect(book.list).toEqual([]);
    book.putRows([
      { id: 'old', title: 'Old', last_at: 1, unread: 0 },
      { id: 'new', title: null, last_at: 5, unread: 2 },
      { id: 'gone', title: 'Gone', last_at: 9, unread: 0, archived: true },
    ]);
    expect(book.list.map(({ id, unread }) => [id, unread])).toEqual([
      ['new', 2],
      ['old', 0],
    ]);
  });

  it('has a conversation back when the person writes in it', () => {
    const book = new Book();
    book.putRows([{ id: 'c', title: 'C', last_at: 2000, unread: 0, archived: true }]);
    book.hear({ t: 'message', n: 1, conversation: 'c', message: own('before', { at: 1999 }) });
    expect(book.list).toEqual([]);
    book.hear({ t: 'message', n: 2, conversation: 'c', message: own('after', { at: 2001 }) });
    expect(book.list.map(({ id }) => id)).toEqual(['c']);
  });
});

describe('drafts', () => {
  it('are replaced by the message of their id', () => {
    const book = new Book();
    book.hear({ t: 'typing', conversation: 'c', agent: 'scribe', on: true });
    book.hear({ t: 'draft', conversation: 'c', message: 'a', at: 0, add: 'Hel' });
    expect([...book.of('c').drafts.values()].map(({ agent, text }) => [agent, text])).toEqual([
      ['scribe', 'Hel'],
    ]);
    book.hear({ t: 'message', n: 1, conversation: 'c', message: message('a', { text: 'Hello' }) });
    expect(book.of('c').drafts.size).toBe(0);
    book.hear({ t: 'draft', conversation: 'c', message: 'a', at: 3, add: 'lo' });
    expect(book.of('c').drafts.size).toBe(0);
  });

  it('are gone after a cut, unless they are named again', () => {
    const book = new Book();
    book.hear({ t: 'draft', conversation: 'c', message: 'a', at: 0, add: 'one' });
    book.hear({ t: 'draft', conversation: 'c', message: 'b', at: 0, add: 'two' });
    book.doubt();
    book.hear({ t: 'draft', conversation: 'c', message: 'b', at: 0, add: 'two more' });
    book.settle();
    expect([...book.of('c').drafts.keys()]).toEqual(['b']);
    expect(book.of('c').drafts.get('b')?.text).toBe('two more');
  });

  it('work as long as it is told', () => {
    let now = 0;
    const book = new Book(() => now);
    book.hear({ t: 'typing', conversation: 'c', agent: 'scribe', on: true });
    now = 5000;
    book.hear({ t: 'typing', conversation: 'c', agent: 'scribe', on: true });
    expect(book.of('c').worksIn()).toMatchObject([{ agent: 'scribe', since: 0 }]);
    book.hear({ t: 'typing', conversation: 'c', agent: 'scribe', on: false });
    expect(book.of('c').working.size).toBe(0);
  });
});

describe('the agents', () => {
  it('are all that the server told last, and when the line is away nobody knows what they do', () => {
    const book = new Book();
    expect(book.agents).toEqual([]);
    const concierge = { name: 'concierge', role: 'manager', state: 'idle', waiting: 0 };
    const scribe = { name: 'scribe', role: 'agent', state: 'busy', waiting: 2 };
    book.hear({ t: 'agents', agents: [concierge] });
    book.hear({ t: 'agents', agents: [concierge, scribe] });
    expect(book.agents).toEqual([concierge, scribe]);
    expect(book.n).toBe(0);
    book.rest();
    expect(book.agents).toEqual([
      { name: 'concierge', role: 'manager' },
      { name: 'scribe', role: 'agent' },
    ]);
  });
});
