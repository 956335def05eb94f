/** Plays speech while it arrives, and can be silenced at once. */

const MODULE = new URL("./playback_worklet.js", import.meta.url);

export class Player {
  playing = false;
  #played = new Map();
  #flushed = [];

  /**
   * @param {AudioContext} context made, or resumed, in a click
   * @param {{rate?: number, onChange?: () => void, onTape?: (samples: Int16Array) => void}} [options] `onTape` gets all
   *   that was heard, in blocks of 100 ms
   */
  constructor(context, { rate = 24_000, onChange = () => {}, onTape = () => {} } = {}) {
    this.context = context;
    this.rate = rate;
    this.onChange = onChange;
    this.onTape = onTape;
    this.ready = this.#open();
    this.ready.catch(() => {}); // closed before it was loaded
  }

  async #open() {
    await this.context.audioWorklet.addModule(MODULE);
    const processorOptions = { rate: this.rate, block: this.rate / 10 };
    this.node = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1], processorOptions });
    this.node.port.onmessage = ({ data }) => this.#told(data);
    this.node.connect(this.context.destination);
  }

  #told({ tape, played, playing, flushed }) {
    if (tape) return this.onTape(tape);
    this.#played = new Map(played);
    this.playing = playing;
    if (flushed) for (const done of this.#flushed.splice(0)) done();
    this.onChange();
    return undefined;
  }

  /** @param {Int16Array} samples @param {string} [tag] whose they are */
  add(samples, tag = "") {
    this.playing = true;
    this.node?.port.postMessage({ samples, tag });
  }

  /** How much of a tag has been played, in ms. */
  playedMs(tag = "") {
    return ((this.#played.get(tag) ?? 0) * 1000) / this.rate;
  }

  /** Silence, at once; then `playedMs` is what was really played. */
  async flush() {
    if (!this.node) return;
    this.node.port.postMessage({ flush: true });
    await new Promise((done) => this.#flushed.push(done));
  }

  close() {
    this.node?.disconnect();
  }
}
