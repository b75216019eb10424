/** What was asked of the hive: drawn at once as asked, true when the hive says so, back with a reason when refused. */
import { SvelteMap } from 'svelte/reactivity';

import { speak } from '../shared/live.svelte';
import { call, CallError } from './api';
import { hive, type Part } from './hive.svelte';

export type Act =
  | { readonly state: 'asked' }
  | { readonly state: 'done' }
  | { readonly state: 'refused'; readonly why: string };

const acts = new SvelteMap<string, Act>();

/** Return what was asked for the thing of `id`, if anything. */
export const actOn = (id: string): Act | undefined => acts.get(id);

/** Cancel an ask or a reminder. */
export async function cancel(what: 'ask' | 'reminder', id: string): Promise<void> {
  if (acts.get(id)?.state === 'asked') return;
  acts.set(id, { state: 'asked' });
  const parts: Part[] = what === 'ask' ? ['asks', 'thread', 'threads', 'agents'] : ['reminders', 'agents'];
  try {
    const { state } = await call<{ state: string }>(`${what}.cancel`, { id });
    acts.set(id, state === 'cancelled' ? { state: 'done' } : { state: 'refused', why: `it is ${state}` });
    speak(state === 'cancelled' ? `The ${what} is cancelled` : `The ${what} is ${state}`);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    // Also when the session has rested too long to act: it may still look.
    const why = error.isAway ? 'the daemon does not answer' : error.problem;
    acts.set(id, { state: 'refused', why });
    speak(`Not cancelled: ${why}`);
  }
  hive.mark(...parts);
}
