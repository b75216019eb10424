/** One-time sign-in: the code is in the address's fragment, which reaches no server, log or referrer. */

/** Why the page is closed. `none`: opened without a link and without a session. */
export type Refusal = 'none' | 'wrong' | 'used' | 'expired' | 'away';

export type SignIn =
  { readonly ok: true } | { readonly ok: false; readonly why: Refusal; readonly code?: string };

/** Take the code out of the address, so that it stays in no history and no bookmark. */
export function takeCode(): string | undefined {
  const found = /^#once=(.+)$/.exec(location.hash);
  if (!found?.[1]) return undefined;
  history.replaceState(null, '', location.pathname + location.search);
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return found[1];
  }
}

/** Say which refusal an error code means. */
export function refusalOf(code: string): Refusal {
  if (/used/.test(code)) return 'used';
  if (/expired/.test(code)) return 'expired';
  return 'wrong';
}

/** What a page says when the sign-in did not work, and the way on. */
export const REFUSALS: Readonly<Record<Refusal, { readonly title: string; readonly text: string }>> = {
  none: {
    title: 'Not signed in',
    text: 'This page opens with a one-time link. Get one where Skep runs:',
  },
  wrong: {
    title: 'This link is not right',
    text: 'Its code is not one that was given out here: it may have been cut when it was copied. Get a new link where Skep runs:',
  },
  used: {
    title: 'This link was used before',
    text: 'Each link signs in once, and this one has. Get a new one where Skep runs:',
  },
  expired: {
    title: 'This link is too old',
    text: 'A link is good for 15 minutes. Get a new one where Skep runs:',
  },
  away: {
    title: 'Skep does not answer',
    text: 'The page is here, but the server behind it is not. It is asked again every few seconds. Look how it is:',
  },
};
