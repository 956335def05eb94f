/** The socket of a conversation: OpenAI Realtime at `v1/realtime`. The only file that opens it. */
import { base, request, ServerError } from "../server/http.js";
import { secret } from "../server/identity.js";

const PATH = "v1/realtime";

/** Why a conversation ended by itself; other codes have a reason of their own. */
export const CLOSED = { 1000: "idle", 1001: "longest", 1008: "refused", 1011: "engine_lost", 1012: "server_restarting", 1013: "full" };

export class Realtime {
  /** @param {(event: any) => void} onEvent @param {(error: any) => void} onClosed unless `close` was called */
  constructor(onEvent, onClosed) {
    this.onEvent = onEvent;
    this.onClosed = onClosed;
    this.opened = false;
    /** @type {WebSocket | null} */
    this.socket = null;
  }

  /** @param {boolean} needsKey Throws a ServerError. */
  async open(needsKey) {
    const key = needsKey ? [`openai-insecure-api-key.${await secret("realtime")}`] : [];
    const url = new URL(PATH, base());
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url, ["realtime", ...key]);
    this.socket.onmessage = ({ data }) => this.onEvent(JSON.parse(data));
    await new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onclose = () => reject(new ServerError("unreachable", "The server does not take the conversation."));
    }).catch(async (error) => {
      throw await reason(error);
    });
    this.opened = true;
    this.socket.onclose = (event) => this.#closed(event);
  }

  async #closed({ code }) {
    this.opened = false;
    this.onClosed(await reason(new ServerError(CLOSED[code] ?? "lost", "")));
  }

  /** @param {any} event */
  send(event) {
    if (this.opened) this.socket.send(JSON.stringify(event));
  }

  close() {
    this.opened = false;
    if (this.socket) this.socket.onclose = null;
    this.socket?.close();
  }
}

/** What the server says of a new conversation now, if it refuses one; else what is known. */
async function reason(known) {
  try {
    await request(PATH);
  } catch (error) {
    if (error.code !== "upgrade_required") return error;
  }
  return known;
}
