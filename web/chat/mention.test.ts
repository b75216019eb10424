import { describe, expect, it } from 'vitest';

import { doing, mentioned, taken } from './mention';

const AGENTS = ['concierge', 'scribe', 'scout', 'house-scribe', 'sc'].map((name) => ({
  name,
  role: 'agent',
}));
const ALL = ['concierge', 'scribe', 'scout', 'house-scribe', 'sc'];

/** `|` is the caret. */
const at = (marked: string): [string, number] => [marked.replace('|', ''), marked.indexOf('|')];
const names = (marked: string): string[] => mentioned(AGENTS, ...at(marked)).map(({ name }) => name);

describe('a name that is being written', () => {
  it.each([
    ['nothing of it yet: all, in their order', '@|', ALL],
    [
      'the name itself, then its beginnings, then a later part',
      '@sc|',
      ['sc', 'scribe', 'scout', 'house-scribe'],
    ],
    ['only what fits', '@scr|', ['scribe', 'house-scribe']],
    ['in capitals, as a phone writes it', '@Con|', ['concierge']],
    ['a hyphen', '@house-|', ['house-scribe']],
    ['not the middle of a part', '@cribe|', []],
    ['nobody', '@x|', []],
    ['what is before the caret counts', '@sco|ribe', ['scout']],
    ['before words that were there', '@|what is that', ALL],
    ['a beginning, with words after it', '@scri| what is that', ['scribe', 'house-scribe']],
    ['a whole one, with words after it', '@scribe| what is that', []],
    ['a whole one, with nothing after it', '@scribe|', ['scribe', 'house-scribe']],
    ['the caret before it', '|@scribe', []],
    ['the caret behind it', '@scri |', []],
    ['not at the beginning', 'ask @scri|', []],
    ['not after a space', ' @scri|', []],
    ['an address of mail', '@scribe.net|', []],
    ['no text', '|', []],
  ])('%s', (_, text, found) => {
    expect(names(text)).toEqual(found);
  });

  it('is of nobody when nobody is known', () => {
    expect(mentioned([], '@', 1)).toEqual([]);
  });
});

describe('a name that is taken', () => {
  it.each([
    ['alone', '@sc|', '@scribe |'],
    ['of which nothing was written', '@|', '@scribe |'],
    ['with the caret inside it', '@sc|ri', '@scribe |'],
    ['in capitals', '@SCR|', '@scribe |'],
    ['before words', '@sc| what is that', '@scribe |what is that'],
    ['put before words', '@|what is that', '@scribe |what is that'],
    ['on a line of its own', '@sc|\nwhat is that', '@scribe |\nwhat is that'],
  ])('%s', (_, before, after) => {
    const [text, caret] = at(after);
    expect(taken(...at(before), 'scribe')).toEqual({ text, caret });
  });
});

it.each([
  ['idle', 0, 'idle'],
  ['busy', 0, 'busy'],
  ['busy', undefined, 'busy'],
  ['busy', 2, 'busy, 2 waiting'],
  ['away', 2, 'away'],
  ['resting', 0, 'resting'],
  [undefined, undefined, ''],
])('%s with %s waiting reads %s', (state, waiting, words) => {
  const more = { ...(state !== undefined && { state }), ...(waiting !== undefined && { waiting }) };
  expect(doing({ name: 'scribe', role: 'agent', ...more })).toBe(words);
});
