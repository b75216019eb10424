import { describe, expect, it } from 'vitest';

import { DraftText } from './draft';

describe('an answer that is being written', () => {
  it('grows by what is added', () => {
    const draft = new DraftText();
    expect(draft.apply(0, 'Hel')).toBe(true);
    expect(draft.apply(3, 'lo')).toBe(true);
    expect(draft.text).toBe('Hello');
  });

  it('counts code points, not halves of them', () => {
    const draft = new DraftText();
    draft.apply(0, 'a😀b');
    draft.apply(3, 'c');
    expect(draft.text).toBe('a😀bc');
    draft.apply(2, 'd');
    expect(draft.text).toBe('a😀d');
  });

  it('is cut back when another try writes it again', () => {
    const draft = new DraftText();
    draft.apply(0, 'first try');
    draft.apply(0, 'second');
    expect(draft.text).toBe('second');
    draft.apply(0, '');
    expect(draft.text).toBe('');
  });

  it('stays as it is when a step is missing', () => {
    const draft = new DraftText();
    draft.apply(0, 'abc');
    expect(draft.apply(5, 'x')).toBe(false);
    expect(draft.text).toBe('abc');
  });
});
