/** Calls to the dashboard's own server. The session is in a cookie that no script can read. */

/** A refusal, in the one shape that every error has. */
export class CallError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly problem: string,
    readonly hint: string,
  ) {
    super(problem);
  }

  /** The session has ended or never was. */
  get isSignedOut(): boolean {
    return this.status === 401;
  }

  /** Nobody must act: the daemon or its web process is away, and comes back. */
  get isAway(): boolean {
    return this.status === 0 || this.status >= 502;
  }
}

const AWAY = 'no answer from the dashboard';

async function send(method: string, path: string, body?: unknown): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      credentials: 'same-origin',
      cache: 'no-store',
      signal: AbortSignal.timeout(15_000),
      ...(body === undefined
        ? {}
        : { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }),
    });
  } catch {
    throw new CallError(0, 'dashboard.away', AWAY, 'skep status');
  }
  if (response.status === 204) return undefined;
  let answer: unknown;
  try {
    answer = await response.json();
  } catch {
    throw new CallError(response.status, 'dashboard.away', AWAY, 'skep status');
  }
  if (response.ok) return answer;
  const said = typeof answer === 'object' && answer !== null ? (answer as Record<string, unknown>) : {};
  const text = (name: string): string => (typeof said[name] === 'string' ? said[name] : '');
  throw new CallError(response.status, text('code'), text('problem'), text('hint'));
}

/** Call one of the closed list of methods. */
export async function call<T>(method: string, args: object = {}): Promise<T> {
  return (await send('POST', `api/call/${method}`, args)) as T;
}

/** Sign in with a one-time code; the answer sets the cookie. */
export async function signIn(once: string): Promise<string> {
  const answer = (await send('POST', 'api/session', { once })) as { operator: string };
  return answer.operator;
}

/** End the session everywhere it is open. */
export const signOut = (): Promise<unknown> => send('DELETE', 'api/session');
