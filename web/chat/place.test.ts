import { describe, expect, it } from 'vitest';

import { placeOf, readPlace } from './place';

describe('a place', () => {
  it.each([
    ['c_1', { conversation: 'c_1', thread: undefined }],
    ['c_1/m_2', { conversation: 'c_1', thread: 'm_2' }],
  ])('%s is read as it is written', (name, place) => {
    expect(readPlace(name)).toEqual(place);
    expect(placeOf(place.conversation, place.thread)).toBe(name);
  });

  it('without a name after the line is the conversation', () => {
    expect(readPlace('c_1/')).toEqual({ conversation: 'c_1', thread: undefined });
  });
});
