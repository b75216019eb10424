import { describe, expect, it } from 'vitest';

import {
  clock,
  count,
  dayOf,
  daysAgo,
  initials,
  oneLine,
  plain,
  short,
  shortName,
  span,
  unmarked,
  when,
  whole,
} from './words';

const zone = 'Europe/Berlin';
const at = (iso: string): number => Date.parse(iso);
const NOW = at('2026-11-20T14:31:07Z'); // a Friday, 15:31 in Berlin

describe('times', () => {
  it.each([
    ['today is a clock', '2026-11-20T13:05:00Z', '14:05'],
    ['the day begins at midnight of the zone', '2026-11-19T23:30:00Z', '00:30'],
    ['this week is a day', '2026-11-19T20:00:00Z', 'Thu'],
    ['six days ago is a day', '2026-11-14T12:00:00Z', 'Sat'],
    ['a week ago is a date', '2026-11-13T12:00:00Z', '13 Nov'],
    ['another year says so', '2025-11-16T12:00:00Z', '16 Nov 2025'],
    ['a clock that runs ahead is a date', '2026-11-22T12:00:00Z', '22 Nov'],
  ])('%s', (_, then, said) => {
    expect(when(at(then), NOW, { zone })).toBe(said);
  });

  it('names days between messages', () => {
    expect(dayOf(NOW, NOW, { zone })).toBe('Today');
    expect(dayOf(at('2026-11-18T23:30:00Z'), NOW, { zone })).toBe('Yesterday');
    expect(dayOf(at('2026-11-18T12:00:00Z'), NOW, { zone })).toBe('Wed 18 Nov');
    expect(dayOf(at('2025-01-02T12:00:00Z'), NOW, { zone })).toBe('2 Jan 2025');
    expect(daysAgo(at('2026-11-18T23:30:00Z'), NOW, { zone })).toBe(1);
  });

  it('shows seconds where the order matters', () => {
    expect(clock(NOW, { zone })).toBe('15:31');
    expect(clock(NOW, { zone, seconds: true })).toBe('15:31:07');
  });

  it.each([
    [0, '0:00'],
    [48_000, '0:48'],
    [102_000, '1:42'],
    [3_599_999, '59:59'],
    [9_600_000, '2 h 40'],
    [532_800_000, '6 d 4 h'],
    [-5, '0:00'],
  ])('a span of %d ms is %s', (ms, said) => {
    expect(span(ms)).toBe(said);
  });
});

describe('numbers', () => {
  it.each([
    [0, '0'],
    [999, '999'],
    [12_345, '12\u2009345'],
    [1_234_567, '1\u2009234\u2009567'],
  ])('%d is %s', (n, said) => {
    expect(whole(n)).toBe(said);
  });

  it.each([
    [undefined, '–'],
    [0, '0'],
    [1500, '1.5\u2009k'],
    [214_300, '214\u2009k'],
    [3_100_000, '3.1\u2009M'],
    [999_600, '1.0\u2009M'],
  ])('%s is short', (n, said) => {
    expect(short(n)).toBe(said);
  });

  it('counts one and many', () => {
    expect(count(1, 'reply', 'replies')).toBe('1 reply');
    expect(count(3, 'reply', 'replies')).toBe('3 replies');
  });
});

describe('words of others', () => {
  it.each([
    ['concierge', 'agent', 'Co'],
    ['build-bot', 'agent', 'Bu'],
    ['Ada Lindqvist', 'person', 'AL'],
    ['owner', 'person', 'OW'],
    ['😀x', 'agent', '😀x'],
    ['', 'agent', ''],
  ] as const)('the face of %s (%s) is %s', (name, kind, letters) => {
    expect(initials(name, kind)).toBe(letters);
  });

  it('shows control characters instead of obeying them', () => {
    expect(plain('\u001b[31mred\u0007\u007f')).toBe('␛[31mred␇␡');
    expect(plain('a\r\nb\rc\td')).toBe('a\nb\nc\td');
  });

  it('makes one line, cut at its end', () => {
    expect(oneLine('  two\n\nlines  ')).toBe('two lines');
    expect(oneLine('x'.repeat(500), 10)).toBe(`${'x'.repeat(9)}…`);
    expect([...oneLine('😀'.repeat(50), 10)]).toHaveLength(10);
    expect([...shortName('n'.repeat(200))]).toHaveLength(32);
  });

  it('leaves the signs of Markdown out of a line', () => {
    expect(unmarked('## **Five** shops: `6902` is [here](https://example.org/), > so')).toBe(
      ' Five shops: 6902 is here,  so',
    );
  });
});
