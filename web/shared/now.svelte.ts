/** The one timer of a page: 1 Hz, running only while something on the page counts. */
import { createSubscriber } from 'svelte/reactivity';

let at = Date.now();
const subscribe = createSubscriber((update) => {
  at = Date.now();
  const timer = setInterval(() => {
    at = Date.now();
    update();
  }, 1000);
  return () => clearInterval(timer);
});

/** Return the time in ms; what reads it is drawn again each second. */
export function now(): number {
  subscribe();
  return Math.max(at, Date.now());
}
