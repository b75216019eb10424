/** Single keys of this page. They work only where nobody types, and can be switched off. */
import { hive } from './hive.svelte';

const OFF_KEY = 'skep.keys';
const SECOND_KEY_MS = 1500;

export interface Key {
  readonly keys: readonly string[];
  readonly does: string;
}

export const PLACES = [
  { key: 'h', id: 'main', name: 'Home' },
  { key: 'a', id: 'agents', name: 'Agents' },
  { key: 'i', id: 'open', name: 'Asks' },
  { key: 'r', id: 'reminders', name: 'Reminders' },
  { key: 't', id: 'threads', name: 'Threads' },
  { key: 'd', id: 'health', name: 'Health' },
] as const;

export const KEYS: readonly Key[] = [
  ...PLACES.map(({ key, name }) => ({ keys: ['G', key.toUpperCase()], does: `go to ${name.toLowerCase()}` })),
  { keys: ['J'], does: 'next row' },
  { keys: ['K'], does: 'row before' },
  { keys: ['Enter'], does: 'open the row' },
  { keys: ['Esc'], does: 'close what is open' },
  { keys: ['?'], does: 'show these keys' },
];

function storedOff(): boolean {
  try {
    return localStorage.getItem(OFF_KEY) === 'off';
  } catch {
    return false;
  }
}

let isOff = $state(storedOff());

/** Return whether single keys are switched off. */
export const keysAreOff = (): boolean => isOff;

/** Switch single keys on or off. */
export function switchKeys(): void {
  isOff = !isOff;
  try {
    if (isOff) localStorage.setItem(OFF_KEY, 'off');
    else localStorage.removeItem(OFF_KEY);
  } catch {
    // Storage is switched off: it lasts as long as the page.
  }
}

/** Go to a part of the page, with the focus. */
export function goTo(id: string): void {
  const place = document.getElementById(id);
  if (!place) return;
  if (id === 'main') scrollTo({ top: 0 });
  else place.scrollIntoView({ block: 'start' });
  const target = place.querySelector<HTMLElement>('h1, h2') ?? place;
  target.tabIndex = -1;
  target.focus({ preventScroll: true });
}

function step(by: 1 | -1): void {
  const rows = [...document.querySelectorAll<HTMLElement>('[data-row]')].map(
    (row) => (row.matches('button') ? row : row.querySelector<HTMLElement>('button')) ?? row,
  );
  const visible = rows.filter((row) => row.offsetParent !== null);
  const at = visible.findIndex(
    (row) => row === document.activeElement || row.contains(document.activeElement),
  );
  const next = visible[at < 0 ? (by > 0 ? 0 : visible.length - 1) : at + by];
  next?.focus();
  next?.scrollIntoView({ block: 'nearest' });
}

/** Listen to the keys of this page until the returned function is called. */
export function listenToKeys({ help }: { help: () => void }): () => void {
  let goAt = -Infinity;
  const onKey = (event: KeyboardEvent): void => {
    if (isOff || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const target = event.target as Element | null;
    if (target?.closest('input, textarea, select, [contenteditable], dialog')) return;
    const key = event.key.toLowerCase();
    const isSecond = event.timeStamp - goAt < SECOND_KEY_MS;
    goAt = -Infinity;
    if (isSecond) {
      const place = PLACES.find((each) => each.key === key);
      if (place) {
        event.preventDefault();
        goTo(place.id);
      }
      return;
    }
    switch (event.key) {
      case 'g':
        goAt = event.timeStamp;
        break;
      case 'j':
        step(1);
        break;
      case 'k':
        step(-1);
        break;
      case '?':
        help();
        break;
      case 'Escape':
        if (hive.openThread !== undefined && !document.querySelector(':popover-open')) {
          const id = hive.openThread;
          hive.show(undefined);
          queueMicrotask(() => document.querySelector<HTMLElement>(`[data-thread="${id}"]`)?.focus());
        }
        break;
    }
  };
  addEventListener('keydown', onKey);
  return () => removeEventListener('keydown', onKey);
}
