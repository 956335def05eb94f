/**
 * Live transcription for browsers and Node: audio in, events out, over as many connections as it takes. It keeps the
 * audio that is not final; when a connection is lost, it continues the session on another one and sends that audio
 * again. docs/clients.md describes the rules it follows.
 *
 *     const live = new LiveTranscription(location.origin, { language: "en" }, (event) => …);
 *     await live.send(samples); // about 100 ms at a time
 *     live.finish();
 *     await live.done;
 *
 * Events are the server's messages (docs/protocol.md): `session`, `speech_started`, `speech_ended`, `partial`,
 * `final`, `error`, `quality`, `closed`. Two more come from this client:
 *
 * @typedef {{type: "reconnecting", reason: string, wait_ms: number}} Reconnecting
 * @typedef {{type: "resumed", from_ms: number, away_ms: number}} Resumed
 * @typedef {{type: string, [field: string]: any} | Reconnecting | Resumed} LiveEvent
 *
 * @typedef {{sample_rate?: number, encoding?: "pcm_s16le" | "pcm_f32le" | "mulaw" | "alaw", channels?: number,
 *   language?: string, interim_results?: boolean, session_id?: string, hotwords?: string[], grammar?: string}}
 *   LiveOptions the fields of `start`
 */

const SAMPLE_BYTES = { pcm_s16le: 2, pcm_f32le: 4, mulaw: 1, alaw: 1 };
/** The most audio that is kept; more where the server's longest utterance needs it. */
const BUFFER_MS = 30_000;
const SPARE_MS = 15_000;
/** How long to wait for a server, and for how long a connection must last to end an outage. */
const PATIENCE_MS = 60_000;
const STEADY_MS = 10_000;
const BACKOFF_MS = 500;
const LONGEST_BACKOFF_MS = 5_000;
/** How often the server is asked how far it is, and after what silence it is lost. */
const KEEPALIVE_MS = 5_000;
const MUTE_MS = 15_000;
const ASK_AGAIN_MS = 50;
const PIECE_MS = 500;
/** Of the server's limit on buffered audio; at this share the client waits for progress. */
const AHEAD_SHARE = 0.5;
const MOVE_WITHIN_MS = 5_000;
const MOVE_AFTER_FINAL_MS = 300;
const TRANSIENT = ["server_restarting", "too_many_sessions", "overloaded", "unreachable"];
/** Browsers cannot send a key in a header; as a subprotocol they can. */
const KEY_SUBPROTOCOL = "openai-insecure-api-key.";
const FATAL_CLOSURES = [1002, 1003, 1007, 1008, 1009];

export class TranscriptionError extends Error {
  /** @param {string} code stable, see docs/protocol.md @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The audio that is not final, and up to where this connection has got it. Positions are in frames. */
class RetainedAudio {
  mostMs = BUFFER_MS;
  start = 0;
  next = 0;
  end = 0;
  finished = false;
  #pieces = [];
  #marks = []; // where the user asked to finalize
  #stopSent = false;
  rate = 0;
  frameBytes = 0;

  constructor(rate, frameBytes) {
    Object.assign(this, { rate, frameBytes });
  }
  at = (ms) => Math.floor((ms * this.rate) / 1000);
  get sentMs() {
    return (this.next * 1000) / this.rate;
  }
  get full() {
    return this.end - this.start >= this.at(this.mostMs);
  }
  push(bytes) {
    const most = this.at(PIECE_MS) * this.frameBytes;
    for (let from = 0; from < bytes.length; from += most) {
      const piece = bytes.slice(from, from + most); // a copy: the caller may reuse its buffer
      this.#pieces.push({ at: this.end, until: this.end + piece.length / this.frameBytes, bytes: piece });
      this.end = this.#pieces.at(-1).until;
    }
  }
  finalize() {
    this.#marks.push({ at: this.end, sent: false });
  }
  confirm(untilMs) {
    this.start = Math.max(this.start, Math.min(this.at(untilMs), this.next));
    while (this.#pieces[0]?.until <= this.start) this.#pieces.shift();
    this.#marks = this.#marks.filter((mark) => !mark.sent || mark.at > this.start);
  }
  holds(fromMs) {
    return this.start <= this.at(fromMs) && this.at(fromMs) <= this.end;
  }
  rewind(toMs) {
    this.next = this.at(toMs);
    for (const mark of this.#marks) mark.sent = mark.at <= this.next;
    this.#stopSent = false;
    this.confirm(toMs);
  }
  /** What is to be sent next: audio, a command, or null. */
  take() {
    const mark = this.#marks.find((it) => !it.sent);
    if (mark?.at === this.next) return (mark.sent = true), "finalize";
    const piece = this.#pieces.find((it) => it.until > this.next);
    if (piece) {
      const [from, until] = [this.next, Math.min(piece.until, mark?.at ?? piece.until)];
      this.next = until;
      return piece.bytes.subarray((from - piece.at) * this.frameBytes, (until - piece.at) * this.frameBytes);
    }
    return this.finished && !this.#stopSent ? ((this.#stopSent = true), "stop") : null;
  }
}

/** One session over several connections: what is new to the user, by its place in the audio and its number. */
class Continuity {
  token = null;
  progressMs = 0;
  draining = this.contested = this.speaking = this.awaitsFinal = this.shownSpeaking = false;
  fatal = this.closed = null;
  boundaryMs = -1;
  level = 0;
  final = { utterance: -1, end_ms: -1 };
  partial = { utterance: -1, audio_ms: -1 };

  /** A connection stands; the level of quality that it ends. */
  joined(session) {
    const { level } = this;
    this.level = 0;
    this.token = session.resume ?? null;
    this.progressMs = session.resumed_from_ms ?? 0;
    this.draining = this.contested = this.speaking = this.awaitsFinal = false;
    this.fatal = this.closed = null;
    return level;
  }
  /** Whether the user gets to see it. */
  isNew(frame) {
    this.token = frame.resume ?? this.token;
    this.progressMs = Math.max(this.progressMs, frame.audio_ms ?? 0);
    const { type } = frame;
    if (type === "draining") this.draining = true;
    if (type === "quality") this.level = frame.level;
    if (type === "closed") this.closed = frame;
    if (type === "error" && frame.fatal) this.fatal = new TranscriptionError(frame.code, frame.message);
    if (type === "speech_started" || type === "speech_ended") this.speaking = type === "speech_started";
    if (type === "speech_started" || type === "partial") this.awaitsFinal = true;
    if (type === "final" || type === "error") this.awaitsFinal = false;
    if (type === "final" || type === "partial") return this.#isNewText(frame);
    if (type === "speech_started" || type === "speech_ended") return this.#isNewBoundary(frame);
    return type === "quality" || (type === "error" && !frame.fatal);
  }
  #isNewBoundary({ audio_ms }) {
    if (this.shownSpeaking === this.speaking || audio_ms <= this.boundaryMs) return false;
    this.boundaryMs = audio_ms;
    this.shownSpeaking = this.speaking;
    return true;
  }
  #isNewText(frame) {
    const { final, partial } = this;
    if (frame.utterance <= final.utterance || frame.end_ms <= final.end_ms) return false;
    const isBehind = frame.utterance === partial.utterance ? frame.audio_ms < partial.audio_ms : frame.utterance < partial.utterance;
    if (frame.type === "partial" && isBehind) return false;
    this[frame.type] = frame;
    return true;
  }
  /** What the end of a connection means: an error, the last event, or null if the session goes on. */
  ended(code) {
    if (TRANSIENT.includes(this.fatal?.code)) return null;
    if (this.contested && this.fatal?.code === "session_resumed") return null; // by this client
    if (this.fatal) return this.fatal;
    if (FATAL_CLOSURES.includes(code)) return new TranscriptionError("closed", `closed with ${code}`);
    return code === 1000 ? this.closed : null;
  }
}

export class LiveTranscription {
  #settle;
  /** Settles at the end: with the event `closed`, or null after `close()`; or fails with a TranscriptionError. */
  done = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
  #seen = new Continuity();
  #socket = null;
  #outage = { began: Date.now(), attempts: 0 };
  #room = [];
  #held = null;
  #stayUntil = 0;
  #over = false;
  #started = false;
  #clock = setInterval(() => this.#tick(), 1_000);
  #url;
  #key;
  #start;
  #onEvent;
  #audio;
  #aheadMs;
  #joined;
  #heard;
  #asked;
  #moveTimer;
  #sendTimer;

  /**
   * @param {string} server its http(s) or ws(s) URL
   * @param {LiveOptions} options
   * @param {(event: LiveEvent) => void} onEvent
   * @param {string | (() => string | Promise<string>)} [key] a client secret, or what gets a new one for each connection
   */
  constructor(server, options, onEvent, key = "") {
    this.#key = key;
    this.#url = server.replace(/^http/, "ws").replace(/\/+$/, "") + "/v1/transcribe/stream";
    this.#start = { type: "start", ...options };
    this.#onEvent = onEvent;
    const frameBytes = SAMPLE_BYTES[options.encoding ?? "pcm_s16le"] * (options.channels ?? 1);
    this.#audio = new RetainedAudio(options.sample_rate ?? 16_000, frameBytes);
    this.#connect();
  }

  /** Whole samples of every channel. Await it: while the buffer is full, it waits.
   * @param {ArrayBuffer | ArrayBufferView} audio */
  async send(audio) {
    const view = ArrayBuffer.isView(audio) ? audio : new Uint8Array(audio);
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    if (bytes.length % this.#audio.frameBytes) throw new RangeError("these are not whole samples of every channel");
    while (this.#audio.full && !this.#over) await new Promise((resolve) => this.#room.push(resolve));
    if (this.#over) throw new TranscriptionError("over", "the session has ended");
    this.#audio.push(bytes);
    this.#pump();
  }

  /** End the current utterance here; its final comes now, not after a silence. */
  finalize() {
    this.#audio.finalize();
    this.#pump();
  }

  /** No more audio: `done` settles after all finals. */
  finish() {
    this.#audio.finished = true;
    this.#pump();
  }

  /** Leave at once, without the words that are not final. */
  close() {
    this.#end(null);
  }

  async #connect(waitMs = 0) {
    await new Promise((done) => setTimeout(done, waitMs));
    if (this.#over) return;
    try {
      this.#join(await this.#opened());
    } catch (error) {
      return TRANSIENT.includes(error.code) ? this.#retry(error.message) : this.#end(error);
    }
  }

  #retry(reason) {
    const { began, attempts } = this.#outage; // full jitter: many clients lose a server at the same moment
    const waitMs = Math.round(Math.random() * Math.min(LONGEST_BACKOFF_MS, BACKOFF_MS * 2 ** attempts));
    if (Date.now() + waitMs - began > PATIENCE_MS) return this.#end(new TranscriptionError("unreachable", reason));
    this.#outage.attempts += 1;
    this.#onEvent({ type: "reconnecting", reason, wait_ms: waitMs });
    this.#connect(waitMs);
  }

  /** A connection that continues the session, or begins it while nothing is final. */
  async #opened() {
    const { token, final } = this.#seen;
    const canBegin = !this.#audio.start && final.utterance < 0;
    const refused = (message) => new TranscriptionError("resume_refused", message);
    if (!token && !canBegin) throw refused("the server cannot continue this session");
    try {
      const opened = await this.#dial(token ? { type: "start", resume: token } : this.#start);
      if (this.#audio.holds(opened.session.resumed_from_ms ?? 0)) return opened;
      opened.socket.close();
      throw refused("the server asks for audio that is gone");
    } catch (error) {
      if (error.code !== "resume_refused" || !token || !canBegin) throw error;
      this.#seen.token = null;
      return this.#opened();
    }
  }

  /** One `session` comes at once, another one answers `start`. */
  async #dial(start) {
    const key = await this.#shownKey();
    const socket = new WebSocket(this.#url, key ? ["voxray", KEY_SUBPROTOCOL + key] : []);
    let sessions = 0;
    let timer;
    const opened = new Promise((resolve, reject) => {
      const fail = (code, message) => reject(new TranscriptionError(code, message));
      timer = setTimeout(fail, MUTE_MS, "unreachable", "no answer");
      socket.onopen = () => socket.send(JSON.stringify(start));
      socket.onclose = ({ code }) => fail("unreachable", `closed with ${code}`);
      socket.onerror = () => fail("unreachable", "no connection");
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.type === "error") fail(frame.code, frame.message);
        if (frame.type === "session" && ++sessions === 2) resolve({ socket, session: frame });
      };
    });
    opened.catch(() => socket.close()).finally(() => clearTimeout(timer));
    return opened;
  }

  async #shownKey() {
    if (typeof this.#key !== "function") return this.#key;
    try {
      return await this.#key();
    } catch (error) {
      throw new TranscriptionError("unreachable", `no key: ${error.message}`);
    }
  }

  #join({ socket, session }) {
    this.#drop();
    if (this.#over) return socket.close();
    this.#socket = socket;
    const level = this.#seen.joined(session);
    this.#audio.rewind(this.#seen.progressMs);
    this.#audio.mostMs = Math.max(BUFFER_MS, session.limits.max_utterance_ms + SPARE_MS);
    this.#aheadMs = session.limits.max_buffered_audio_ms * AHEAD_SHARE;
    this.#joined = this.#heard = this.#asked = Date.now();
    socket.onmessage = ({ data }) => this.#inOrder(() => this.#onFrame(JSON.parse(data)));
    socket.onclose = ({ code }) => this.#inOrder(() => this.#onClose(code));
    const away = this.#outage && { away_ms: Date.now() - this.#outage.began };
    if (!this.#started) this.#onEvent(session);
    else if (away) this.#onEvent({ type: "resumed", from_ms: this.#seen.progressMs, ...away });
    this.#started = true;
    if (level) this.#onEvent({ type: "quality", level: 0, reason: "another connection" });
    this.#pump();
  }

  #onFrame(frame) {
    this.#heard = Date.now();
    const isNew = this.#seen.isNew(frame);
    if (frame.resume || this.#heard - this.#joined > STEADY_MS) this.#outage = null;
    if (!this.#seen.token) this.#audio.confirm(this.#seen.progressMs);
    else if (frame.resume) this.#audio.confirm(frame.resume_from_ms);
    if (!this.#audio.full) this.#room.splice(0).forEach((resolve) => resolve());
    if (isNew) this.#onEvent(frame);
    this.#planMove(frame.type === "final" ? MOVE_AFTER_FINAL_MS : MOVE_WITHIN_MS);
    this.#pump();
  }

  #onClose(code) {
    const last = this.#seen.ended(code);
    if (last) this.#end(last);
    else this.#lose(`closed with ${code}`);
  }

  /** During a move, what the old connection says waits: it is void if the move succeeds. */
  #inOrder(act) {
    if (this.#held) this.#held.push(act);
    else act();
  }

  #lose(reason) {
    this.#outage ??= { began: Date.now(), attempts: 0 };
    this.#drop();
    this.#retry(reason);
  }

  #drop() {
    clearTimeout(this.#moveTimer);
    clearTimeout(this.#sendTimer);
    this.#moveTimer = this.#sendTimer = this.#held = null;
    if (this.#socket) this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket?.close();
    this.#socket = null;
  }

  #end(last) {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#clock);
    this.#drop();
    this.#room.splice(0).forEach((resolve) => resolve());
    if (last && this.#seen.closed) this.#onEvent(this.#seen.closed);
    if (last instanceof Error) this.#settle.reject(last);
    else this.#settle.resolve(last);
  }

  /** Send what there is, as far ahead of the server as it permits. */
  #pump() {
    while (this.#socket && !this.#sendTimer) {
      if (this.#audio.sentMs - this.#seen.progressMs > this.#aheadMs) {
        this.#ask();
        this.#sendTimer = setTimeout(() => ((this.#sendTimer = null), this.#pump()), ASK_AGAIN_MS);
        return;
      }
      const next = this.#audio.take();
      if (next === null) return;
      this.#socket.send(typeof next === "string" ? JSON.stringify({ type: next }) : next);
    }
  }

  #ask() {
    this.#asked = Date.now();
    this.#socket.send('{"type":"keepalive"}');
  }

  #tick() {
    if (!this.#socket) return;
    if (Date.now() - this.#heard > MUTE_MS) this.#lose("no answer");
    else if (Date.now() - this.#asked >= KEEPALIVE_MS) this.#ask();
  }

  /** A server that stops is left at a pause, if another one takes the session. */
  #planMove(withinMs) {
    if (!this.#seen.draining || this.#seen.speaking || this.#seen.awaitsFinal) {
      clearTimeout(this.#moveTimer);
      this.#moveTimer = null;
    } else {
      const waitMs = Math.max(Math.random() * withinMs, this.#stayUntil - Date.now());
      this.#moveTimer ??= setTimeout(() => this.#move(this.#socket), waitMs);
    }
  }

  async #move(left) {
    this.#held = [];
    this.#seen.contested = true;
    try {
      const opened = await this.#opened();
      if (this.#socket === left) this.#join(opened);
      else opened.socket.close();
    } catch {
      const held = this.#held ?? [];
      this.#held = this.#moveTimer = null;
      this.#stayUntil = Date.now() + MOVE_WITHIN_MS;
      for (const act of held) act();
    }
  }
}
