import { describe, expect, it } from 'vitest';

import type { AgentRow, Delivery, Finding } from './types';
import {
  byNeed,
  causes,
  markOf,
  nowOf,
  remindersByHour,
  sentenceOf,
  spanOf,
  sumOf,
  ticksOf,
  together,
  whoOf,
} from './words';

const agent = (name: string, more: Partial<AgentRow> = {}): AgentRow => ({
  name,
  role: 'agent',
  runtime: 'rehearsal',
  state: 'up',
  ...more,
});
const delivery = (id: number, state: Delivery['state']): Delivery => ({
  delivery_id: id,
  to: `agent:a${id}`,
  state,
  lane: id,
});
const finding = (id: string, severity: Finding['severity'], ...depends_on: string[]): Finding => ({
  id,
  severity,
  problem: id,
  depends_on,
});

describe('the sentence of the page', () => {
  it('counts in words and says the states that there are', () => {
    const ten = Array.from({ length: 10 }, (_, i) => agent(`a${i}`));
    expect(sentenceOf([...ten, agent('b', { state: 'failed' }), agent('c', { state: 'stopped' })])).toBe(
      'Ten agents are up, one is down, one is stopped.',
    );
  });
  it('is right for one, for none up, and for no agent', () => {
    expect(sentenceOf([agent('a')])).toBe('One agent is up.');
    expect(sentenceOf([agent('a', { state: 'failed' })])).toBe('No agents are up, one is down.');
    expect(sentenceOf([])).toBe('There is no agent yet.');
  });
});

describe('an agent', () => {
  it('is in a turn only while a turn runs', () => {
    expect(markOf(agent('a'))).toBe('idle');
    expect(markOf(agent('a', { busy: 1 }))).toBe('in_turn');
    expect(markOf(agent('a', { state: 'failed', busy: 1 }))).toBe('failed');
    expect(markOf(agent('a', { state: 'defined' }))).toBe('starting');
  });
  it('says what it does, with the time that runs', () => {
    expect(nowOf(agent('a', { busy: 1, turn_started_at: 1000 }), 103_000)).toEqual({
      word: 'In a turn',
      sub: 'turn 1:42',
    });
    expect(nowOf(agent('a', { open_asks: 1 }), 0)).toEqual({
      word: 'Waits for an answer',
      sub: '1 ask open',
    });
    expect(nowOf(agent('a', { state: 'failed', note: 'exit 3' }), 0)).toEqual({
      word: 'Down',
      sub: 'exit 3',
    });
  });
  it('stands by need: down, suspect or dead letters, held, live, busiest, stopped', () => {
    const rows = [
      agent('stopped', { state: 'stopped' }),
      agent('quiet', { turns_today: 1 }),
      agent('busy', { turns_today: 9 }),
      agent('live', { busy: 1 }),
      agent('held', { state: 'held' }),
      agent('dead', { dead: 1 }),
      agent('down', { state: 'failed' }),
    ];
    expect(rows.sort(byNeed).map(({ name }) => name)).toEqual([
      'down',
      'dead',
      'held',
      'live',
      'busy',
      'quiet',
      'stopped',
    ]);
  });
});

describe('findings', () => {
  it('are causes only, worst first, each with what it explains', () => {
    const found = [
      finding('look', 'look'),
      finding('queue', 'soon', 'agent'),
      finding('agent', 'broken'),
      finding('gone', 'soon', 'not there'),
    ];
    expect(
      causes(found).map(({ finding: { id }, explains }) => [id, explains.map((each) => each.id)]),
    ).toEqual([
      ['agent', ['queue']],
      ['gone', []],
      ['look', []],
    ]);
  });
  it('that name themselves as their cause are not lost', () => {
    expect(causes([finding('a', 'look', 'a')])).toHaveLength(1);
  });
});

describe('principals', () => {
  it('are told by name and shape', () => {
    const names = new Map([['person:7', 'Ada']]);
    expect(whoOf('agent:scribe', names)).toEqual({ name: 'scribe', kind: 'agent' });
    expect(whoOf('person:7', names)).toEqual({ name: 'Ada', kind: 'person' });
    expect(whoOf('person:8', names)).toEqual({ name: 'person 8', kind: 'person' });
    expect(whoOf('operator:local')).toEqual({ name: 'operator', kind: 'person' });
    expect(whoOf('*')).toEqual({ name: 'everyone', kind: 'agent' });
  });
  it('cannot name themselves as an agent', () => {
    expect(whoOf('agent:scribe', new Map([['agent:scribe', 'manager']])).name).toBe('scribe');
  });
  it('stand together', () => {
    expect(together([])).toBe('');
    expect(together(['a'])).toBe('a');
    expect(together(['a', 'b', 'c'])).toBe('a, b and c');
    expect(together(['a', 'b', 'c', 'd', 'e'])).toBe('a, b, c and 2 more');
  });
});

describe('ticks', () => {
  it('show each of a few, and of many those that are not done', () => {
    const few = [delivery(1, 'done'), delivery(2, 'ready')];
    expect(ticksOf(few)).toEqual({ shown: few, moreDone: 0 });
    const many = [...Array(5).keys()].map((i) => delivery(i, 'done'));
    expect(ticksOf([...many, delivery(9, 'leased')])).toEqual({
      shown: [delivery(9, 'leased')],
      moreDone: 5,
    });
  });
});

describe('hours', () => {
  it('are aligned at the one that runs', () => {
    expect(
      sumOf([
        [[1, 0]],
        [
          [2, 1],
          [3, 1],
        ],
      ]),
    ).toEqual([
      [2, 1],
      [4, 1],
    ]);
    expect(sumOf([])).toEqual([]);
  });
  it('of reminders are tried and failed', () => {
    expect(
      remindersByHour(
        agent('a', {
          reminder_hours: [
            [3, 1],
            [2, 2],
          ],
        }),
      ),
    ).toEqual([
      [3, 2],
      [2, 0],
    ]);
  });
  it('spans are short and have a unit', () => {
    expect([240, 5200, 31_000, 130_000].map(spanOf)).toEqual([
      '240\u2009ms',
      '5.2\u2009s',
      '31\u2009s',
      '2:10',
    ]);
  });
});
