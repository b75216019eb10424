// A server of aimock's: models that behave in chosen ways, and answers given word by word.
// node aimock.mjs PACKAGE KEY ANSWERS.json: prints its address. `/raw/ID/v1/…` answers as ANSWERS says.

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [packageFolder, key, answersFile] = process.argv.slice(2);
const { LLMock } = await import(pathToFileURL(`${packageFolder}/dist/index.js`).href);
const answers = JSON.parse(readFileSync(answersFile, 'utf8'));
const mock = new LLMock({ port: 0, logLevel: 'silent', strict: true, auth: { apiKeys: [key] } });

const asked = (request) => request.messages.map((message) => message.content ?? '').join('\n');
const demanded = (request) => request.response_format?.json_schema?.schema.properties.word.enum[0];
const told = (request) => /"word", which is "(\w+)"/.exec(asked(request))?.[1];
const object = (word) => JSON.stringify({ ok: true, word });
const refused = (what) => ({
  error: { message: `response_format type '${what}' is not supported`, type: 'invalid_request_error' },
  status: 400,
});

const models = {
  // Holds the model to the schema, whatever is asked.
  enforcing: (request) => ({ content: demanded(request) ? object(demanded(request)) : 'Hello there.' }),
  // Takes the format and does nothing with it; the model does as it is told.
  willing: (request) => ({ content: told(request) ? object(told(request)) : 'Hello there.' }),
  // Knows only that JSON is wanted.
  'json-object': (request) =>
    request.response_format?.type === 'json_schema'
      ? refused('json_schema')
      : { content: told(request) ? object(told(request)) : 'Hello there.' },
  // Knows no format at all, and writes a fence.
  'prompt-only': (request) =>
    request.response_format
      ? refused(request.response_format.type)
      : { content: told(request) ? '```json\n' + object(told(request)) + '\n```' : 'Hello there.' },
  prose: () => ({ content: 'I would rather write prose.' }),
  // Answers the second rung with a fault: it must be seen.
  'breaks-below': (request) =>
    request.response_format?.type === 'json_schema'
      ? refused('json_schema')
      : request.response_format
        ? { error: { message: 'slow down', type: 'rate_limit_error' }, status: 429 }
        : { content: 'Hello there.' },
  'echoes-key': () => ({
    error: { message: `Incorrect API key provided: ${key}`, type: 'auth', code: 'invalid_api_key' },
    status: 401,
  }),
  missing: () => ({
    error: { message: 'The model `missing` does not exist.', type: 'NotFoundError', code: 'model_not_found' },
    status: 404,
  }),
  overloaded: () => ({ error: { message: 'overloaded', type: 'server_error' }, status: 503 }),
  limited: () => ({ error: { message: 'You exceeded your current quota', type: 'insufficient_quota' }, status: 429 }),
  'gateway-timeout': () => ({ error: { message: 'upstream timed out', type: 'timeout' }, status: 504 }),
  disguised: () => ({ content: 'Hello there.', model: 'another-model-7b' }),
  'new-names': (request) =>
    request.max_tokens
      ? {
          error: {
            message: "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            type: 'invalid_request_error',
            param: 'max_tokens',
            code: 'unsupported_parameter',
          },
          status: 400,
        }
      : models.enforcing(request),
};

mock.on({ endpoint: 'embedding' }, { embedding: [0.25, -0.5, 0.75, 1] });
mock.on({ toolCallId: 'call_skep' }, { content: 'It is a home for bees.' });
for (const [model, answer] of Object.entries(models)) {
  const faulty = ['echoes-key', 'missing', 'overloaded', 'limited', 'gateway-timeout'].includes(model);
  if (!faulty && model !== 'prose') {
    mock.on(
      { model, toolName: 'skep_lookup' },
      { toolCalls: [{ id: 'call_skep', name: 'skep_lookup', arguments: { word: 'skep' } }] },
    );
  }
  mock.on({ model }, answer);
}

mock.mount('/raw', {
  async handleRequest(request, response, path) {
    const [id] = path.split('/').filter(Boolean);
    const answer = answers[id];
    if (!answer) return false;
    response.writeHead(answer.status, { 'content-type': answer.content_type });
    response.end(answer.body);
    return true;
  },
});

console.log(await mock.start());
