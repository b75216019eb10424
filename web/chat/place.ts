/** Where words are said, written as in the page's address: a conversation `c_1`, a thread of it `c_1/m_2`. Pure. */

export interface Place {
  readonly conversation: string;
  /** The id of the thread's first message; nothing outside of threads. */
  readonly thread: string | undefined;
}

/** Return the name of a place: what is typed there is kept under it, and its address is made of it. */
export const placeOf = (conversation: string, thread?: string): string =>
  thread === undefined ? conversation : `${conversation}/${thread}`;

/** Return the place that is called `name`. */
export function readPlace(name: string): Place {
  const at = name.indexOf('/');
  if (at < 0) return { conversation: name, thread: undefined };
  return { conversation: name.slice(0, at), thread: name.slice(at + 1) || undefined };
}
