import { describe, expect, it } from 'vitest';

import { MAX_TEXT_BYTES, overBy, readEvent } from './protocol';

describe('the limit of a text', () => {
  it.each([
    ['nothing', '', 0],
    ['the most', 'x'.repeat(MAX_TEXT_BYTES), 0],
    ['212 above', 'x'.repeat(MAX_TEXT_BYTES + 212), 212],
    ['wide characters count by their bytes', '😀'.repeat(MAX_TEXT_BYTES / 4 + 3), 3],
    ['one byte above costs a whole character', `${'x'.repeat(MAX_TEXT_BYTES - 3)}😀`, 1],
  ])('%s', (_, text, over) => {
    expect(overBy(text)).toBe(over);
  });
});

describe('events', () => {
  it('are read as the protocol says', () => {
    const event = {
      t: 'message',
      n: 819,
      conversation: 'c_1',
      message: {
        id: 'm_91',
        from: { kind: 'agent', name: 'concierge' },
        text: 'Hello …',
        reply_to: 'm_90',
        answers: ['m_90'],
        at: 1767225600000,
      },
    };
    expect(readEvent(JSON.stringify(event))).toEqual(event);
  });

  it.each([
    ['busy', '{"name":"scribe","role":"agent","state":"busy","waiting":2}'],
    ['of nothing but a name', '{"name":"scribe","role":"agent"}'],
    ['in words of a later server', '{"name":"scribe","role":"drone","state":"resting","since":3}'],
  ])('tell of an agent, %s', (_, agent) => {
    const data = `{"t":"agents","agents":[${agent}]}`;
    expect(readEvent(data)).toEqual(JSON.parse(data));
  });

  it.each([
    '{"t":"ready"}',
    '{"t":"message","n":1,"conversation":"c","message":{}}',
    '{"t":"agents"}',
    '{"t":"agents","agents":{"scribe":"agent"}}',
    '{"t":"agents","agents":["scribe"]}',
    '{"t":"agents","agents":[{"name":"scribe"}]}',
    '{"t":"agents","agents":[{"name":"scribe","role":"agent","state":1}]}',
    '{"t":"agents","agents":[{"name":"scribe","role":"agent","waiting":"2"}]}',
    '{"t":"__proto__"}',
    '{"t":"toString"}',
    '',
  ])('%s is none', (data) => {
    expect(readEvent(data)).toBeUndefined();
  });
});
