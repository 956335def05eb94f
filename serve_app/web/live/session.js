/** One live session: audio from its source to the server, and what the server says. */
import { Capture, CaptureError, microphone, tabAudio } from "../audio/capture.js";
import { Tape } from "../audio/wav.js";
import { base, request, ServerError, SIGNED_OUT } from "../server/http.js";
import { secret } from "../server/identity.js";
import { LiveTranscription } from "../voxray.js";
import { Captions } from "./captions.js";
import { Lag } from "./lag.js";

const RATE = 16_000;
const PATH = "v1/transcribe/stream";

/**
 * States: `opening` the source, `connecting`, `live`, `reconnecting`, `ending`, `over`.
 *
 * @typedef {{source: "microphone" | "tab" | "file", deviceId?: string, file?: Blob, language?: string, hotwords?: string[]}} Wanted
 */
export class Session {
  state = "opening";
  captions = new Captions();
  tape = new Tape(RATE);
  level = 0;
  /** Of the newest words, in ms. @type {number | null} */
  lagMs = null;
  /** How much the server leaves out under load; 0 is nothing. */
  quality = 0;
  /** @type {any} */
  error = null;
  /** Waiting for the server, in ms. */
  awayMs = 0;
  #lag = new Lag(RATE);
  #over = false;
  #wasLive = false;

  /** @param {Wanted} wanted @param {boolean} needsKey @param {() => void} onChange */
  constructor(wanted, needsKey, onChange) {
    this.wanted = wanted;
    this.needsKey = needsKey;
    this.onChange = onChange;
    // In the click: browsers start audio only there.
    this.capture = new Capture({ rate: RATE, onAudio: (samples, level) => this.#heard(samples, level), onEnd: () => this.stop() });
  }

  /** Until the source and the server stand. Never throws: `error` says what went wrong. */
  async start() {
    try {
      const stream = await this.#stream();
      if (this.#over) return stopped(stream);
      this.#become("connecting");
      this.#connect();
      await (stream ? this.capture.fromStream(stream) : this.capture.fromFile(this.wanted.file));
    } catch (error) {
      await this.#fail(error);
    }
  }

  async #stream() {
    const { source, deviceId } = this.wanted;
    if (source === "microphone") return microphone(deviceId, false);
    return source === "tab" ? tabAudio() : null;
  }

  #connect() {
    const { language, hotwords } = this.wanted;
    const options = { sample_rate: RATE, ...(language ? { language } : {}), ...(hotwords?.length ? { hotwords } : {}) };
    const key = this.needsKey ? () => secret("transcription") : "";
    this.live = new LiveTranscription(base().href, options, (event) => this.#said(event), key);
    this.live.done.then(
      () => this.#end(),
      (error) => this.#fail(error),
    );
  }

  #heard(samples, level) {
    this.level = level;
    this.tape.add(samples);
    this.#lag.heard(samples.length, performance.now());
    this.live?.send(samples).catch(() => {}); // `done` says why
    this.onChange();
  }

  #said(event) {
    if (event.type === "session" || event.type === "resumed") this.#joined();
    if (event.type === "reconnecting") this.#away();
    if (event.type === "resumed") this.awayMs = event.away_ms;
    if (event.type === "quality") this.quality = event.level;
    if (event.type === "partial" || event.type === "final") this.#words(event);
    if (event.type === "error") this.error = new ServerError(event.code, event.message);
    this.onChange();
  }

  #joined() {
    this.#wasLive = true;
    this.#become(this.#over ? "ending" : "live");
  }

  /** Asks why: a script never learns from a handshake what it was refused with. */
  async #away() {
    this.#become(this.#wasLive ? "reconnecting" : "connecting");
    try {
      await request(PATH);
    } catch (error) {
      const isFinal = [401, 403].includes(error.status) || (!this.#wasLive && error.code !== "upgrade_required" && error.status);
      if (!isFinal || this.state === "over") return;
      await this.#fail(error);
    }
  }

  #words(event) {
    this.captions.take(event);
    this.lagMs = this.#lag.of(event.audio_ms, performance.now()) ?? this.lagMs;
  }

  /** No more audio; the last words still come. */
  async stop() {
    if (this.#over) return;
    this.#over = true;
    if (!this.live) return this.#end();
    this.#become("ending");
    await this.capture.end();
    this.live.finish();
  }

  /** At once, as when the page leaves. */
  leave() {
    this.#over = true;
    this.live?.close();
    this.capture.end();
    this.#become("over");
  }

  async #fail(error) {
    this.error =
      error instanceof CaptureError || error instanceof ServerError ? error : new ServerError(error.code ?? "error", error.message);
    if (this.error.code === "invalid_api_key") dispatchEvent(new Event(SIGNED_OUT));
    await this.#end();
  }

  async #end() {
    this.#over = true;
    this.level = 0;
    this.live?.close();
    await this.capture.end();
    this.#become("over");
  }

  #become(state) {
    this.state = state;
    this.onChange();
  }
}

function stopped(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
