import { describe, expect, it } from 'vitest';

import { pressChoice } from './choose';

function rows(...picks: boolean[]): { readonly node: HTMLElement; readonly pressed: string[] } {
  const node = document.createElement('div');
  const pressed: string[] = [];
  picks.forEach((isOpen, i) => {
    const pick = document.createElement('div');
    pick.className = 'pick';
    if (isOpen) pick.dataset['open'] = 'yes';
    for (const key of ['1', '2']) {
      const button = document.createElement('button');
      button.dataset['key'] = key;
      button.addEventListener('click', () => pressed.push(`${i}.${key}`));
      pick.append(button);
    }
    node.append(pick);
  });
  return { node, pressed };
}

describe('a choice by key', () => {
  it('is of the newest question that is open', () => {
    const { node, pressed } = rows(true, true, false);
    expect(pressChoice(node, '2')).toBe(true);
    expect(pressed).toEqual(['1.2']);
  });

  it.each(['3', '0', 'x', 'End'])('%s is none', (key) => {
    const { node, pressed } = rows(true);
    expect(pressChoice(node, key)).toBe(false);
    expect(pressed).toEqual([]);
  });

  it('is none where nothing is open', () => {
    expect(pressChoice(rows(false).node, '1')).toBe(false);
    expect(pressChoice(undefined, '1')).toBe(false);
  });
});
