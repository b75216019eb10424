/** The chat's own server over HTTP. Every failure is an `ApiError` with the server's code, or `away`. */
import type { ConversationRow, Me, Message, Problem } from './protocol';

export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string;

  constructor(status: number, { code, problem, hint }: Problem) {
    super(problem);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

const AWAY: Problem = { code: 'web.away', problem: 'the server does not answer', hint: 'run `skep status`' };
const TIMEOUT_MS = 15_000;

async function call(method: string, path: string, body?: object): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      credentials: 'same-origin',
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(body ? { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) } : {}),
    });
  } catch {
    throw new ApiError(0, AWAY);
  }
  if (answer.ok) return answer;
  let problem: Problem = {
    code: `http.${answer.status}`,
    problem: `the server said ${answer.status}`,
    hint: '',
  };
  try {
    problem = { ...problem, ...((await answer.json()) as Partial<Problem>) };
  } catch {
    // Not one of our errors: the status is all there is.
  }
  throw new ApiError(answer.status, problem);
}

const read = async <T>(path: string): Promise<T> => (await (await call('GET', path)).json()) as T;
const id = encodeURIComponent;

export const api = {
  /** Turn a one-time code into a session. */
  signIn: async (once: string): Promise<void> => void (await call('POST', 'api/session', { once })),
  signOut: async (): Promise<void> => void (await call('DELETE', 'api/session', {})),
  me: (): Promise<Me> => read('api/me'),
  conversations: (before?: string): Promise<ConversationRow[]> =>
    read(`api/conversations${before ? `?before=${id(before)}` : ''}`),
  create: async (title?: string): Promise<string> => {
    const answer = await call('POST', 'api/conversations', title ? { title } : {});
    return ((await answer.json()) as { id: string }).id;
  },
  change: async (conversation: string, change: { title?: string; archived?: boolean }): Promise<void> =>
    void (await call('PATCH', `api/conversations/${id(conversation)}`, change)),
  messages: (
    conversation: string,
    { before, limit }: { before?: string; limit: number },
  ): Promise<Message[]> =>
    read(
      `api/conversations/${id(conversation)}/messages?limit=${limit}${before ? `&before=${id(before)}` : ''}`,
    ),
} as const;
