/** Speaks a text while it arrives, and says how long the first sound took. */
import { Player } from "../audio/player.js";
import { Element, html, nothing } from "../element.js";
import { spoken } from "../server/speech.js";
import { voices as strings } from "../strings.js";

class SpeakButton extends Element {
  static properties = { label: {}, wanted: {}, state: { state: true }, firstMs: { state: true }, error: { state: true } };

  constructor() {
    super();
    this.label = "";
    /** @type {() => any} fields of POST /v1/audio/speech */
    this.wanted = () => ({});
    this.state = "";
    /** @type {number | null} */
    this.firstMs = null;
    this.error = null;
    this.stopping = new AbortController();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.stop();
  }

  render() {
    const busy = this.state !== "";
    return html`
      <button class="primary" @click=${busy ? this.stop : this.speak}>${busy ? strings.stop : this.label}</button>
      <span class="soft" role="status">${this.state === "waiting" ? strings.waiting : nothing} ${this.firstMs === null ? nothing : strings.first(this.firstMs)}</span>
      ${this.error ? html`<error-notice .error=${this.error}></error-notice>` : nothing}
    `;
  }

  async speak() {
    this.stop();
    this.stopping = new AbortController();
    const { signal } = this.stopping;
    const context = new AudioContext(); // in the click
    signal.addEventListener("abort", () => context.close(), { once: true });
    Object.assign(this, { state: "waiting", firstMs: null, error: null });
    try {
      await this.play(context, signal);
    } catch (error) {
      if (!signal.aborted) this.error = error;
    } finally {
      if (!signal.aborted) this.stop();
    }
  }

  async play(context, signal) {
    const player = new Player(context);
    const began = performance.now();
    await Promise.all([player.ready, context.resume()]);
    for await (const samples of spoken(this.wanted(), signal)) {
      this.firstMs ??= performance.now() - began;
      this.state = "speaking";
      player.add(samples);
    }
    await new Promise((done) => {
      if (!player.playing) done(undefined);
      player.onChange = () => player.playing || done(undefined);
      signal.addEventListener("abort", done, { once: true });
    });
    if (!signal.aborted) this.dispatchEvent(new CustomEvent("spoken"));
  }

  stop() {
    this.stopping.abort();
    this.state = "";
  }
}

customElements.define("speak-button", SpeakButton);
