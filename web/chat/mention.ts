/** `@name` at the beginning of a message: which agents it may become, and what it reads when one is taken. */
import { whole } from '../shared/words';
import type { AgentRow } from './protocol';

const WORD = /^@[a-z0-9-]*/i;

/**
 * Return the agents that may be meant by what is typed before `caret`, the best first, each group in the order of
 * `agents`. None when no name is being written there, or when a whole one is, with words after it.
 */
export function mentioned(agents: readonly AgentRow[], text: string, caret: number): readonly AgentRow[] {
  const [word = ''] = WORD.exec(text) ?? [];
  if (caret < 1 || caret > word.length) return [];
  const whole = word.slice(1).toLowerCase();
  if (text.length > word.length && agents.some(({ name }) => name.toLowerCase() === whole)) return [];
  const typed = word.slice(1, caret).toLowerCase();
  const groups: AgentRow[][] = [[], [], []];
  for (const agent of agents) groups[fit(agent.name.toLowerCase(), typed)]?.push(agent);
  return groups.flat();
}

/** How well `typed` fits: 0 it is the name, 1 the name begins so, 2 a later part of it does, 3 not at all. */
function fit(name: string, typed: string): number {
  if (name === typed) return 0;
  if (name.startsWith(typed)) return 1;
  return name.includes(`-${typed}`) ? 2 : 3;
}

/** Return what `text` reads, and where its caret is, when `name` is taken for what is typed before `caret`. */
export function taken(text: string, caret: number, name: string): { text: string; caret: number } {
  const [word = ''] = WORD.exec(text) ?? [];
  // The rest of the word is of the name, or it is the first of the words that the `@` was put before.
  const end = `@${name}`.toLowerCase().startsWith(word.toLowerCase()) ? word.length : caret;
  return { text: `@${name} ${text.slice(end).replace(/^ /, '')}`, caret: name.length + 2 };
}

/** Return what an agent does now, in words; nothing when that is not known. */
export function doing({ state, waiting = 0 }: AgentRow): string {
  return state === 'busy' && waiting > 0 ? `busy, ${whole(waiting)} waiting` : (state ?? '');
}
