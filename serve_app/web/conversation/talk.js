/** One spoken conversation: a microphone and a loudspeaker on one clock, and the server between them. */
import { Capture, CaptureError, microphone } from "../audio/capture.js";
import { Player } from "../audio/player.js";
import { Tape } from "../audio/wav.js";
import { Realtime } from "./realtime.js";
import { Turns } from "./turns.js";

const RATE = 24_000;
/** The reply to be stopped had been made in full, or was not begun: what was asked for holds. */
const ALREADY_OVER = "response_cancel_not_active";

/**
 * States: `opening`, `listening`, `hearing` the person, `thinking`, `speaking`, `over`.
 *
 * @typedef {{instructions: string, voice: string, speed: number, tools: any[], pushToTalk: boolean, deviceId: string}} Wanted
 */
export class Talk {
  state = "opening";
  turns = new Turns();
  /** @type {any} */
  error = null;
  level = 0;
  muted = false;
  held = false;
  tape = new Tape(RATE, 2);
  /** When the last interruption was asked for and when it was silent, in ms; for who measures it. */
  silenced = { asked: 0, at: 0 };
  /** The newest response, and whether more of it may come. */
  #response = { id: "", going: false };
  /** The item that is played. */
  #reply = "";
  /** Responses whose late sound is not played. */
  #dropped = new Set();
  #heard = [];

  /** @param {Wanted} wanted @param {boolean} needsKey @param {() => void} onChange @param {Talk | null} [earlier] goes on here */
  constructor(wanted, needsKey, onChange, earlier = null) {
    if (earlier) {
      this.turns = earlier.turns.ended();
      this.tape = earlier.tape;
    }
    this.wanted = wanted;
    this.needsKey = needsKey;
    this.onChange = onChange;
    this.context = new AudioContext(); // in the click, before the microphone is asked for
    this.player = this.context.audioWorklet
      ? new Player(this.context, { rate: RATE, onChange: () => this.#played(), onTape: (it) => this.#heard.push(it) })
      : null;
    this.realtime = new Realtime(
      (event) => this.#said(event),
      (error) => this.#fail(error),
    );
  }

  /** Until both stand. Never throws: `error` says what went wrong. */
  async start() {
    try {
      const stream = await microphone(this.wanted.deviceId);
      this.capture = new Capture({
        rate: RATE,
        context: this.context,
        onAudio: (samples, level) => this.#captured(samples, level),
        onEnd: () => this.#fail(new CaptureError("absent")),
      });
      await Promise.all([this.player.ready, this.context.resume(), this.realtime.open(this.needsKey)]);
      this.realtime.send({ type: "session.update", session: session(this.wanted) });
      await this.capture.fromStream(stream);
      this.#become("listening");
    } catch (error) {
      this.#fail(error);
    }
  }

  #captured(samples, level) {
    this.level = this.muted ? 0 : level;
    this.#record(samples);
    if (!this.wanted.pushToTalk || this.held) this.realtime.send({ type: "input_audio_buffer.append", audio: encoded(samples) });
    this.onChange();
  }

  /** Both voices side by side: the person left, the server right. */
  #record(samples) {
    const heard = this.#heard.shift();
    const both = new Int16Array(samples.length * 2);
    for (let i = 0; i < samples.length; i++) {
      both[2 * i] = samples[i];
      both[2 * i + 1] = heard?.[i] ?? 0;
    }
    this.tape.add(both);
  }

  #said(event) {
    const now = performance.now();
    this.turns.take(event, now);
    if (event.type === "input_audio_buffer.speech_started") this.#interrupt("hearing");
    if (event.type === "input_audio_buffer.speech_stopped" || event.type === "response.created") this.#become("thinking");
    if (event.type === "response.created") this.#response = { id: event.response.id, going: true };
    if (event.type === "response.output_audio.delta" && !this.#dropped.has(event.response_id)) this.#play(event);
    if (event.type === "conversation.item.retrieved") this.#told(event.item);
    if (event.type === "response.done") this.#ended(event.response);
    if (event.type === "error" && event.error.code !== ALREADY_OVER) this.error = event.error;
    this.onChange();
  }

  #play({ item_id, delta }) {
    this.#reply = item_id;
    this.player.add(decoded(delta), item_id);
    this.#become("speaking");
  }

  /** A reply is over when it has been played; one without sound at once. */
  #ended({ id, status }) {
    if (id === this.#response.id) this.#response.going = false;
    if (status === "failed") this.error = new CaptureError("reply_failed");
    if (!this.player.playing && this.state !== "hearing") this.#become("listening");
  }

  #played() {
    if (this.state === "speaking" && !this.player.playing) this.#become("listening");
  }

  /** Silence at once; then the server learns how much of the reply was heard. */
  async #interrupt(next) {
    const item = this.#reply;
    const { id, going } = this.#response;
    this.#become(next);
    if (going) this.#dropped.add(id);
    this.#reply = "";
    if (!item || !(going || this.player.playing)) return;
    this.silenced.asked = performance.now();
    await this.player.flush();
    this.silenced.at = performance.now();
    const audio_end_ms = Math.floor(this.player.playedMs(item));
    this.realtime.send({ type: "conversation.item.truncate", item_id: item, content_index: 0, audio_end_ms });
    this.realtime.send({ type: "conversation.item.retrieve", item_id: item });
  }

  /** What the server counts as heard. */
  #told(item) {
    const part = item.content?.[0];
    if (item.role === "assistant" && part) this.turns.interrupted(item.id, part.transcript ?? part.text ?? "");
  }

  // What the person does.

  /** Silence is sent while it is muted, so that a turn ends. @param {boolean} muted */
  mute(muted) {
    this.muted = muted;
    this.capture?.mute(muted);
    this.onChange();
  }

  /** @param {boolean} held push-to-talk */
  hold(held) {
    if (held === this.held || this.state === "opening" || this.state === "over") return;
    this.held = held;
    if (held) {
      this.stopReply();
      this.realtime.send({ type: "input_audio_buffer.clear" });
      this.#become("hearing");
    } else {
      this.turns.stages.push({ ended: performance.now() });
      this.realtime.send({ type: "input_audio_buffer.commit" });
      this.realtime.send({ type: "response.create" });
      this.#become("thinking");
    }
  }

  /** @param {string} text */
  say(text) {
    this.stopReply();
    this.turns.stages.push({ ended: performance.now(), words: performance.now() });
    const content = [{ type: "input_text", text }];
    this.realtime.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.realtime.send({ type: "response.create" });
    this.#become("thinking");
  }

  stopReply() {
    if (this.player.playing || this.state === "thinking") this.realtime.send({ type: "response.cancel" });
    this.#interrupt("listening");
  }

  /** @param {any} item with a call of a tool @param {string} output */
  answer(item, output) {
    item.call.output = output;
    this.realtime.send({ type: "conversation.item.create", item: { type: "function_call_output", call_id: item.call.id, output } });
    this.realtime.send({ type: "response.create" });
    this.#become("thinking");
  }

  async end() {
    if (this.state === "over") return;
    this.#become("over");
    this.level = 0;
    this.realtime.close();
    await this.capture?.end();
    this.player?.close();
    await this.context.close();
  }

  async #fail(error) {
    if (this.state === "over") return;
    this.error = error;
    await this.end();
    this.onChange();
  }

  #become(state) {
    if (this.state !== "over") this.state = state;
    this.onChange();
  }
}

/** @param {Wanted} wanted */
function session({ instructions, voice, speed, tools, pushToTalk }) {
  const format = { type: "audio/pcm", rate: RATE };
  const input = { format, transcription: {}, ...(pushToTalk ? { turn_detection: null } : { turn_detection: { type: "server_vad" } }) };
  const output = { format, ...(voice ? { voice } : {}), ...(speed === 1 ? {} : { speed }) };
  return { type: "realtime", ...(instructions ? { instructions } : {}), ...(tools.length ? { tools } : {}), audio: { input, output } };
}

/** @param {Int16Array} samples */
function encoded(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  return btoa(String.fromCharCode(...bytes));
}

/** @param {string} text base64 */
function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (it) => it.charCodeAt(0));
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}
