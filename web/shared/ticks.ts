/** The ticks of a delivery. Each is drawn at the state that is on a disk, never ahead of it. */
import type { IconName } from './icons';

export type TickState =
  'kept' | 'scheduled' | 'ready' | 'leased' | 'shown' | 'done' | 'expired' | 'cancelled' | 'dead';

interface TickOf {
  readonly icon: IconName;
  /** The word among agents, where the mechanism may be named. */
  readonly inThreads: string;
  /** The word to a person in the chat. */
  readonly inChat: string;
}

export const TICKS: Readonly<Record<TickState, TickOf>> = {
  kept: { icon: 'dash-ring', inThreads: '–', inChat: 'waits for the line' },
  scheduled: { icon: 'clock', inThreads: 'scheduled', inChat: 'scheduled' },
  ready: { icon: 'ring', inThreads: 'stored', inChat: 'sent' },
  leased: { icon: 'half', inThreads: 'taken, not yet seen', inChat: 'sent' },
  shown: { icon: 'check', inThreads: 'seen', inChat: 'seen' },
  done: { icon: 'dcheck', inThreads: 'done', inChat: 'answered' },
  expired: { icon: 'dash', inThreads: 'expired', inChat: 'not delivered' },
  cancelled: { icon: 'dash', inThreads: 'cancelled', inChat: 'not delivered' },
  dead: { icon: 'cross', inThreads: 'dead', inChat: 'not delivered' },
};
