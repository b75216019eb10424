/** The sentences of the dashboard. Pure: takes rows, gives words. */
import type { AgentState as MarkState } from '../shared/marks';
import { count, shortName, span } from '../shared/words';
import type { AgentRow, Delivery, Finding } from './types';

const NUMBERS = [
  'no',
  'one',
  'two',
  'three',
  'four',
  'five',
  'six',
  'seven',
  'eight',
  'nine',
  'ten',
  'eleven',
  'twelve',
] as const;

const inWords = (n: number): string => NUMBERS[n] ?? String(n);
const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** Return which mark an agent has. */
export function markOf(agent: AgentRow): MarkState {
  switch (agent.state) {
    case 'defined':
    case 'starting':
      return 'starting';
    case 'up':
      return (agent.busy ?? 0) > 0 ? 'in_turn' : 'idle';
    default:
      return agent.state;
  }
}

/** Return "Two agents are up, one is down." */
export function sentenceOf(agents: readonly AgentRow[]): string {
  if (agents.length === 0) return 'There is no agent yet.';
  const groups: [string, number][] = [
    ['up', agents.filter(({ state }) => state === 'up' || state === 'draining').length],
    ['starting', agents.filter(({ state }) => state === 'starting' || state === 'defined').length],
    ['suspect', agents.filter(({ state }) => state === 'suspect').length],
    ['down', agents.filter(({ state }) => state === 'failed').length],
    ['held', agents.filter(({ state }) => state === 'held').length],
    ['stopped', agents.filter(({ state }) => state === 'stopped').length],
  ];
  const parts = groups
    .filter(([word, n]) => n > 0 || word === 'up')
    .map(([word, n], i) => {
      const verb = n === 1 ? 'is' : 'are';
      return i === 0
        ? `${capital(inWords(n))} ${n === 1 ? 'agent' : 'agents'} ${verb} ${word}`
        : `${inWords(n)} ${verb} ${word}`;
    });
  return `${parts.join(', ')}.`;
}

/** Return what an agent does now, and the second line under it. */
export function nowOf(agent: AgentRow, now: number): { word: string; sub: string } {
  const turns = agent.busy ?? 0;
  const note = agent.note ?? '';
  const up = agent.up_since === undefined ? '' : `up ${span(now - agent.up_since)}`;
  switch (agent.state) {
    case 'defined':
    case 'starting':
      return { word: 'Starting', sub: note };
    case 'up': {
      const asks = agent.open_asks ?? 0;
      if (turns > 0) {
        const since = agent.turn_started_at === undefined ? '' : span(now - agent.turn_started_at);
        return {
          word: turns === 1 ? 'In a turn' : `In ${inWords(turns)} turns`,
          sub: turns === 1 ? `turn ${since}` : `oldest ${since}`,
        };
      }
      if (asks > 0) return { word: 'Waits for an answer', sub: `${count(asks, 'ask')} open` };
      return { word: 'Idle', sub: note || up };
    }
    case 'draining':
      return { word: 'Draining', sub: note || (turns > 0 ? `${count(turns, 'turn')} to end` : '') };
    case 'held':
      return { word: 'Held', sub: note };
    case 'suspect':
      return { word: 'Suspect', sub: note };
    case 'failed':
      return { word: 'Down', sub: note };
    case 'stopped':
      return { word: 'Stopped', sub: note };
  }
}

/** Return the order of the table: trouble, live, then by turns. */
export function byNeed(a: AgentRow, b: AgentRow): number {
  const rank = (agent: AgentRow): number => {
    if (agent.state === 'failed') return 0;
    if (agent.state === 'suspect' || (agent.dead ?? 0) > 0) return 1;
    if (agent.state === 'held') return 2;
    if ((agent.busy ?? 0) > 0) return 3;
    return agent.state === 'stopped' ? 5 : 4;
  };
  return rank(a) - rank(b) || (b.turns_today ?? 0) - (a.turns_today ?? 0) || (a.name < b.name ? -1 : 1);
}

const WORST: Readonly<Record<Finding['severity'], number>> = { broken: 0, soon: 1, look: 2 };

/** Return the findings that no other one explains, worst first, each with those it explains. */
export function causes(findings: readonly Finding[]): { finding: Finding; explains: Finding[] }[] {
  const present = new Set(findings.map(({ id }) => id));
  const reasons = (finding: Finding): string[] =>
    (finding.depends_on ?? []).filter((id) => present.has(id) && id !== finding.id);
  return findings
    .filter((finding) => reasons(finding).length === 0)
    .map((finding) => ({
      finding,
      explains: findings.filter((other) => reasons(other).includes(finding.id)),
    }))
    .sort(
      (a, b) =>
        WORST[a.finding.severity] - WORST[b.finding.severity] || (a.finding.id < b.finding.id ? -1 : 1),
    );
}

/** A principal, as a name and a shape. */
export interface Who {
  readonly name: string;
  readonly kind: 'agent' | 'person';
}

/** Return who a principal is: `agent:scribe`, `person:7`, `chat:3`, `operator:local`, `reminder`, `system`. */
export function whoOf(principal: string, names: ReadonlyMap<string, string> = new Map()): Who {
  const [kind = '', rest = ''] = principal.split(/:(.*)/s);
  const known = names.get(principal);
  if (known !== undefined && kind !== 'agent') return { name: shortName(known), kind: 'person' };
  switch (kind) {
    case 'agent':
      return { name: rest, kind: 'agent' };
    case '*':
      return { name: 'everyone', kind: 'agent' };
    case 'person':
    case 'chat':
      return { name: `${kind} ${rest}`, kind: 'person' };
    case 'operator':
      return { name: rest === 'local' || rest === '' ? 'operator' : `operator ${rest}`, kind: 'person' };
    default:
      return { name: rest || kind, kind: 'person' };
  }
}

/** Return "a, b and c". */
export function together(names: readonly string[], most = 4): string {
  const told = names.length > most ? [...names.slice(0, most - 1), `${names.length - most + 1} more`] : names;
  return told.length < 2 ? (told[0] ?? '') : `${told.slice(0, -1).join(', ')} and ${told.at(-1) ?? ''}`;
}

/** Return the ticks that are shown: each recipient of a few, else those that are not done and how many are. */
export function ticksOf(deliveries: readonly Delivery[]): { shown: Delivery[]; moreDone: number } {
  if (deliveries.length <= 4) return { shown: [...deliveries], moreDone: 0 };
  const open = deliveries.filter(({ state }) => state !== 'done');
  return { shown: open, moreDone: deliveries.length - open.length };
}

export const HOURS = 24;

/** Return [tried, failed] for each of the last 24 hours. */
export function remindersByHour(agent: AgentRow): [number, number][] {
  return (agent.reminder_hours ?? []).map(([tried, sent]) => [tried, Math.max(0, tried - sent)]);
}

/** Return the sum of rows of hours, aligned at their last one: the hour that runs. */
export function sumOf(rows: readonly (readonly (readonly [number, number])[])[]): [number, number][] {
  const length = Math.max(0, ...rows.map((row) => row.length));
  const sum = Array.from({ length }, (): [number, number] => [0, 0]);
  for (const row of rows) {
    row.forEach(([count, failed], i) => {
      const into = sum[length - row.length + i];
      if (into) {
        into[0] += count;
        into[1] += failed;
      }
    });
  }
  return sum;
}

/** Return a short span with its unit: "240 ms", "5.2 s", "31 s", "2:10". */
export function spanOf(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}\u2009ms`;
  if (ms < 9950) return `${(ms / 1000).toFixed(1)}\u2009s`;
  return ms < 60_000 ? `${Math.round(ms / 1000)}\u2009s` : span(ms);
}
