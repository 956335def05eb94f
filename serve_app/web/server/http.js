/** The only file that fetches. Paths are relative to the page: it may stand below a prefix. */

/** What the server refuses, or that it does not answer (`unreachable`). */
export class ServerError extends Error {
  /**
   * @param {string} code stable, see docs/protocol.md
   * @param {string} message for the person
   * @param {number} status of HTTP; 0: no answer
   * @param {number} retryAfterS when to try again; 0: not said
   * @param {Headers} headers of the answer
   */
  constructor(code, message, status = 0, retryAfterS = 0, headers = new Headers()) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfterS = retryAfterS;
    this.headers = headers;
  }
}

/** Tells the page that the person has to sign in. */
export const SIGNED_OUT = "voxray-signed-out";

const UNREACHABLE = "The server does not answer. Is it running, and is this device online?";

/** Where the server is: the page's own address without its file and fragment. */
export const base = () => new URL(".", location.href);

/**
 * @typedef {{method?: string, json?: any, body?: BodyInit, headers?: Record<string, string>, signal?: AbortSignal}} Ask
 * @param {string} path without a leading slash, as `v1/jobs`
 * @param {Ask} [ask]
 * @returns {Promise<Response>} of a success; others throw a ServerError
 */
export async function request(path, { json, headers = {}, ...ask } = {}) {
  const typed = json === undefined ? headers : { "Content-Type": "application/json", ...headers };
  const body = json === undefined ? ask.body : JSON.stringify(json);
  let answer;
  try {
    answer = await fetch(new URL(path, base()), { ...ask, headers: typed, body });
  } catch (error) {
    if (ask.signal?.aborted) throw error;
    throw new ServerError("unreachable", UNREACHABLE);
  }
  if (answer.ok) return answer;
  throw await refused(answer);
}

/** @param {Response} answer */
async function refused(answer) {
  const { error = {} } = await answer.json().catch(() => ({}));
  const retryAfterS = Number(answer.headers.get("Retry-After")) || 0;
  if (answer.status === 401) dispatchEvent(new Event(SIGNED_OUT));
  const message = error.message ?? `The server answered ${answer.status}.`;
  return new ServerError(error.code ?? "error", message, answer.status, retryAfterS, answer.headers);
}

/** @param {string} path @param {Ask} [ask] */
export const asked = async (path, ask) => (await request(path, ask)).json();

/**
 * The messages of a stream of server-sent events, as JSON.
 * @param {string} path @param {AbortSignal} signal ends it
 */
export async function* events(path, signal) {
  const answer = await request(path, { signal, headers: { Accept: "text/event-stream" } });
  let rest = "";
  for await (const text of textOf(answer.body)) {
    const blocks = (rest + text).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const said = message(block);
      if (said) yield said;
    }
  }
}

/** @param {ReadableStream<Uint8Array>} body */
async function* textOf(body) {
  const decoder = /** @type {any} */ (new TextDecoderStream());
  const reader = body.pipeThrough(decoder).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {string} block of lines */
function message(block) {
  const fields = { event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(event|data): ?(.*)$/.exec(line) ?? [];
    if (name === "event") fields.event = value;
    if (name === "data") fields.data += value;
  }
  return fields.data && fields.data !== "[DONE]" ? { event: fields.event, data: JSON.parse(fields.data) } : null;
}
