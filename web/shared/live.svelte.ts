/** One polite live region per page, at most one message in 5 s: the newest waits, older ones that wait are dropped. */

const GAP_MS = 5000;

let said = $state('');
let lastAt = -GAP_MS;
let waiting: ReturnType<typeof setTimeout> | undefined;

/** Have a screen reader say `sentence` when it has time. */
export function speak(sentence: string): void {
  clearTimeout(waiting);
  const wait = Math.max(0, lastAt + GAP_MS - performance.now());
  waiting = setTimeout(() => {
    lastAt = performance.now();
    // The same sentence twice is said twice only if the text changes.
    said = said === sentence ? `${sentence}\u00a0` : sentence;
  }, wait);
}

/** Return what is being said now. */
export const spoken = (): string => said;
