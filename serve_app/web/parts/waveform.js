/** The recording as a picture to seek in, with a lane for each speaker, and a slider for the keyboard. */
import { createRef, Element, html, ref } from "../element.js";
import { clock, recording as strings } from "../strings.js";
import WaveSurfer from "../vendor/wavesurfer.js";
import { colour } from "./colour.js";

/** The page's policy has the hash of the style that wavesurfer.js makes for this height (serve_app/api/web.py). */
const HEIGHT_PX = 96;
const LANE_PX = 10;
const LONGEST_LANES = 8;
const COLOURS = ["--accent", "--warn", "--good", "--bad", "--soft"];

class WaveForm extends Element {
  static properties = { player: {}, peaks: {}, segments: {}, speakers: {}, now: { type: Number } };

  constructor() {
    super();
    /** @type {HTMLAudioElement | null} */
    this.player = null;
    /** @type {any} */
    this.peaks = null;
    /** @type {any[]} */
    this.segments = [];
    /** @type {string[]} */
    this.speakers = [];
    this.now = 0;
    this.place = /** @type {any} */ (createRef());
    this.lanes = /** @type {any} */ (createRef());
    /** @type {WaveSurfer | null} */
    this.wave = null;
    this.observer = new ResizeObserver(() => this.drawLanes());
  }

  connectedCallback() {
    super.connectedCallback();
    this.observer.observe(this);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.observer.disconnect();
    this.wave?.destroy();
    this.wave = null;
  }

  get seconds() {
    return (this.peaks?.duration_ms ?? 0) / 1000;
  }

  render() {
    return html`
      <div class="wave" aria-hidden="true" ${ref(this.place)}></div>
      <canvas class="lanes" role="img" aria-label=${strings.lanes(this.speakers)} @click=${this.seekInLanes} ${ref(this.lanes)}></canvas>
      <input
        class="seek"
        type="range"
        min="0"
        max=${this.seconds}
        step="0.1"
        .value=${String(this.now)}
        aria-label=${strings.position}
        aria-valuetext=${strings.of(clock(this.now * 1000), clock(this.seconds * 1000))}
        @input=${(event) => this.seek(Number(event.target.value))}
      />
    `;
  }

  updated(changed) {
    if (this.peaks && this.player && !this.wave) this.draw();
    if (changed.has("segments") || changed.has("peaks")) this.drawLanes();
  }

  draw() {
    const options = {
      height: HEIGHT_PX,
      waveColor: colour(this, "--soft"),
      progressColor: colour(this, "--accent"),
      cursorColor: colour(this, "--ink"),
    };
    const peaks = [this.peaks.peaks.map((it) => it / 127)];
    this.wave = WaveSurfer.create({
      container: this.place.value,
      media: this.player,
      peaks,
      duration: this.seconds,
      dragToSeek: true,
      ...options,
    });
  }

  drawLanes() {
    const canvas = this.lanes.value;
    if (!canvas || !this.seconds) return;
    const lanes = this.speakers.slice(0, LONGEST_LANES);
    canvas.width = Math.max(1, canvas.clientWidth * devicePixelRatio);
    canvas.height = Math.max(1, lanes.length * LANE_PX * devicePixelRatio);
    canvas.style.setProperty("height", `${lanes.length * LANE_PX}px`);
    const pen = canvas.getContext("2d");
    const scale = canvas.width / (this.seconds * 1000);
    for (const [lane, speaker] of lanes.entries()) {
      pen.fillStyle = colour(this, COLOURS[lane % COLOURS.length]);
      for (const it of this.segments) {
        if (it.speaker !== speaker) continue;
        pen.fillRect(
          it.start_ms * scale,
          lane * LANE_PX * devicePixelRatio,
          Math.max(1, (it.end_ms - it.start_ms) * scale),
          (LANE_PX - 2) * devicePixelRatio,
        );
      }
    }
  }

  seekInLanes(event) {
    this.seek((event.offsetX / event.target.clientWidth) * this.seconds);
  }

  seek(seconds) {
    this.dispatchEvent(new CustomEvent("seek", { detail: seconds }));
  }
}

customElements.define("wave-form", WaveForm);
