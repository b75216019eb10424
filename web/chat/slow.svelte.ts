/** No word about waiting for what comes at once. */

const QUIET_MS = 300;

/** Tell whether `isWaiting` has been so long enough to say so. Called while a component is set up. */
export function slow(isWaiting: () => boolean): { readonly is: boolean } {
  let is = $state(false);
  $effect(() => {
    is = false;
    if (!isWaiting()) return;
    const timer = setTimeout(() => (is = true), QUIET_MS);
    return () => clearTimeout(timer);
  });
  return {
    get is() {
      return is;
    },
  };
}
