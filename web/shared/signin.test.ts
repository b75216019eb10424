import { beforeEach, describe, expect, it } from 'vitest';

import { refusalOf, REFUSALS, takeCode } from './signin';

describe('the one-time code', () => {
  beforeEach(() => history.replaceState(null, '', '/'));

  it('leaves the address when it is taken', () => {
    location.hash = '#once=abc-123_x';
    expect(takeCode()).toBe('abc-123_x');
    expect(location.href).not.toContain('once');
    expect(takeCode()).toBeUndefined();
  });

  it('is not looked for in a query string', () => {
    history.replaceState(null, '', '/?once=abc');
    expect(takeCode()).toBeUndefined();
  });

  it('may be cut or damaged without harm', () => {
    location.hash = '#once=%E0%A4%A';
    expect(takeCode()).toBe('%E0%A4%A');
  });
});

it.each([
  ['web.code_wrong', 'wrong'],
  ['web.code_used', 'used'],
  ['web.code_expired', 'expired'],
  ['web.anything', 'wrong'],
] as const)('%s is a link that is %s', (code, why) => {
  expect(refusalOf(code)).toBe(why);
  expect(REFUSALS[why].title).not.toBe('');
});
