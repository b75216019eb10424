/** The marks of an agent's state: shape first, then word, then colour. */
import type { IconName } from './icons';

export type AgentState =
  'in_turn' | 'idle' | 'starting' | 'draining' | 'waiting' | 'held' | 'suspect' | 'failed' | 'stopped';

interface MarkOf {
  readonly icon: IconName;
  readonly word: string;
  readonly tone: '' | 'glow' | 'bad';
}

export const MARKS: Readonly<Record<AgentState, MarkOf>> = {
  in_turn: { icon: 'live', word: 'in a turn', tone: 'glow' },
  idle: { icon: 'ring', word: 'idle', tone: '' },
  starting: { icon: 'dash-ring', word: 'starting', tone: '' },
  draining: { icon: 'half', word: 'draining', tone: '' },
  waiting: { icon: 'pause', word: 'waiting for you', tone: '' },
  held: { icon: 'pause', word: 'held', tone: '' },
  suspect: { icon: 'tri', word: 'suspect', tone: '' },
  failed: { icon: 'sq', word: 'failed', tone: 'bad' },
  stopped: { icon: 'dash', word: 'stopped', tone: '' },
};
