// @vitest-environment node
/** tokens.css, against the figures of the design: each pair, on the worst ground where it may stand. */
import { readFileSync } from 'node:fs';

import { describe, expect, it } from 'vitest';

const css = readFileSync(new URL('./tokens.css', import.meta.url), 'utf8');

function tokens(theme: 0 | 1): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, name, light, dark] of css.matchAll(/--([\w-]+):\s*light-dark\((#\w{6}), (#\w{6})\)/g)) {
    if (name && light && dark && !found.has(name)) found.set(name, theme === 0 ? light : dark);
  }
  return found;
}

function luminance(hex: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5]
    .map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [hi = 0, lo = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (hi + 0.05) / (lo + 0.05);
}

/** What is drawn, on what, and the least contrast in light and in dark. */
const PAIRS: [string, string, number, number][] = [
  ['ink', 'surface', 16.1, 14.3],
  ['ink', 'tint', 13.4, 11.8],
  ['ink-2', 'surface', 7.6, 8.3],
  ['ink-2', 'tint', 6.4, 6.9],
  ['ink-3', 'surface', 5.6, 5.6],
  ['ink-3', 'tint', 4.7, 4.6],
  ['on-ink', 'ink', 16.1, 14.3],
  ['honey-ink', 'surface', 6.7, 9.9],
  ['honey-ink', 'tint', 5.6, 8.2],
  ['honey-ink', 'honey-wash', 4.5, 4.5],
  ['on-fill', 'honey-fill', 8.0, 8.1],
  ['madder-ink', 'surface', 7.5, 7.1],
  ['madder-ink', 'tint', 6.3, 5.9],
  ['madder-ink', 'madder-wash', 4.5, 4.5],
  ['edge', 'surface', 3.7, 3.8],
  ['edge', 'tint', 3.0, 3.2],
  ['honey', 'surface', 3.7, 8.1],
  ['honey', 'tint', 3.0, 6.7],
  ['madder', 'surface', 6.4, 5.2],
  ['madder', 'tint', 5.3, 4.3],
];

describe.each([
  ['light', 0],
  ['dark', 1],
] as const)('contrast in %s', (_, theme) => {
  const of = tokens(theme);

  it.each(PAIRS)('%s on %s', (front, back, light, dark) => {
    const least = theme === 0 ? light : dark;
    const figure = contrast(of.get(front) ?? '', of.get(back) ?? '');
    // The figures of the design are rounded to one place, 3.6498 to 3.7 too.
    expect(figure).toBeGreaterThan(least - 0.06);
  });
});
