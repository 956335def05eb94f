/**
 * Resumable uploads (tus 1.0). The file stays here until the server has confirmed the job; after a lost connection, or
 * a reload and the same file again, an upload goes on where it was.
 */
import { base, request, ServerError } from "./http.js";

const VERSION = { "Tus-Resumable": "1.0.0" };
const PART_BYTES = 4 << 20;
const AT_ONCE = 3;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const REMEMBERED = "voxray-upload:";

/** One file on its way. States: `waiting`, `sending`, `retrying`, `paused`, `done`, `failed`. */
export class Upload {
  state = "waiting";
  sent = 0;
  /** Bytes a second, of late. */
  speed = 0;
  /** @type {any} */
  error = null;
  /** The id of the job, at the end. */
  job = "";
  #stopping = new AbortController();

  /** @param {File} file @param {Record<string, string>} options fields of a job */
  constructor(file, options) {
    this.file = file;
    this.options = options;
    this.name = file.webkitRelativePath || file.name;
    this.onChange = () => {};
  }

  get size() {
    return this.file.size;
  }

  get #key() {
    return `${REMEMBERED}${this.name}:${this.size}:${this.file.lastModified}:${JSON.stringify(this.options)}`;
  }

  /** Until it is done, was paused, or cannot be done. Never throws. */
  async run() {
    this.#stopping = new AbortController();
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(LONGEST_WAIT_MS, wait * 2)) {
      try {
        this.#become("sending");
        const before = this.sent;
        await this.#send();
        if (this.sent > before) wait = FIRST_WAIT_MS;
        return this.#become("done");
      } catch (error) {
        if (this.#stopping.signal.aborted) return this.#become("paused");
        if (!passes(error)) return this.#become("failed", error);
        this.#become("retrying", error);
        await this.#pause(error.retryAfterS * 1000 || wait);
        if (this.#stopping.signal.aborted) return this.#become("paused");
      }
    }
  }

  pause() {
    this.#stopping.abort();
  }

  /** Gives it up, at the server as well. */
  async cancel() {
    this.pause();
    const url = localStorage.getItem(this.#key);
    localStorage.removeItem(this.#key);
    if (url && this.state !== "done") await request(url, { method: "DELETE", headers: VERSION }).catch(() => {});
  }

  async #send() {
    const url = (await this.#known()) ?? (await this.#create());
    while (!this.job) {
      const began = performance.now();
      const part = this.file.slice(this.sent, this.sent + PART_BYTES);
      const headers = { ...VERSION, "Upload-Offset": String(this.sent), "Content-Type": "application/offset+octet-stream" };
      const answer = await request(url, { method: "PATCH", body: part, headers, signal: this.#stopping.signal });
      this.speed = (part.size / (performance.now() - began)) * 1000;
      this.#at(answer);
    }
    localStorage.removeItem(this.#key);
  }

  /** The address of an upload of this file that is not done; null if there is none. */
  async #known() {
    const url = localStorage.getItem(this.#key);
    if (!url) return null;
    try {
      this.#at(await request(url, { headers: VERSION, signal: this.#stopping.signal }));
      return url;
    } catch (error) {
      if (error.status !== 404) throw error;
      localStorage.removeItem(this.#key);
      this.sent = 0;
      return null;
    }
  }

  async #create() {
    const said = { filename: this.name, ...this.options };
    const metadata = Object.entries(said).map(([name, value]) => `${name} ${base64(value)}`);
    const headers = { ...VERSION, "Upload-Length": String(this.size), "Upload-Metadata": metadata.join(",") };
    const answer = await request("v1/uploads", { method: "POST", headers, signal: this.#stopping.signal });
    const url = new URL(`v1/uploads/${answer.headers.get("Location").split("/").pop()}`, base()).href;
    localStorage.setItem(this.#key, url);
    return url;
  }

  #at(answer) {
    this.sent = Number(answer.headers.get("Upload-Offset"));
    this.job = answer.headers.get("X-Voxray-Job") ?? "";
    this.onChange();
  }

  #become(state, error = null) {
    this.state = state;
    this.error = error;
    this.onChange();
  }

  async #pause(ms) {
    const { signal } = this.#stopping;
    await new Promise((done) => {
      setTimeout(done, ms);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}

/** Whether the same request may succeed later. @param {any} error */
function passes(error) {
  return error instanceof ServerError && (!error.status || error.status >= 500 || [408, 409, 429].includes(error.status));
}

/** @param {string} text */
const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

/** Sends files, few at a time, in their order. */
export class UploadQueue {
  /** @type {Upload[]} */
  uploads = [];

  /** @param {() => void} onChange @param {(job: string) => void} onDone */
  constructor(onChange, onDone) {
    this.onChange = onChange;
    this.onDone = onDone;
  }

  get active() {
    return this.uploads.some((it) => ["waiting", "sending", "retrying"].includes(it.state));
  }

  /** @param {File[]} files @param {Record<string, string>} options */
  add(files, options) {
    for (const file of files) {
      const upload = new Upload(file, options);
      upload.onChange = this.onChange;
      this.uploads.push(upload);
    }
    this.#next();
  }

  /** @param {Upload} upload */
  resume(upload) {
    upload.state = "waiting";
    this.#next();
  }

  /** @param {Upload} upload */
  async cancel(upload) {
    this.uploads = this.uploads.filter((it) => it !== upload);
    await upload.cancel();
    this.onChange();
    this.#next();
  }

  #next() {
    const running = this.uploads.filter((it) => ["sending", "retrying"].includes(it.state)).length;
    const waiting = this.uploads.filter((it) => it.state === "waiting");
    for (const upload of waiting.slice(0, Math.max(0, AT_ONCE - running))) this.#run(upload);
    this.onChange();
  }

  async #run(upload) {
    await upload.run();
    if (upload.state === "done") {
      this.uploads = this.uploads.filter((it) => it !== upload);
      this.onDone(upload.job);
    }
    this.#next();
  }
}
