/** Live captions of a microphone, a browser tab or a file. */
import { microphones } from "../audio/capture.js";
import { copy, download, stamp } from "../download.js";
import { Element, html, nothing } from "../element.js";
import { Session } from "../live/session.js";
import { explained, toast } from "../parts/notice.js";
import { app, live as strings } from "../strings.js";
import "../parts/caption_list.js";
import "../parts/keep_tape.js";
import "../parts/level_meter.js";
import "../parts/live_options.js";

const TYPES = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };
const ACTIVE = ["opening", "connecting", "live", "reconnecting", "ending"];

class LiveView extends Element {
  static properties = {
    who: {},
    path: {},
    devices: { state: true },
    shaded: { state: true },
    large: { state: true },
  };

  constructor() {
    super();
    this.who = null;
    this.path = [];
    this.devices = [];
    this.shaded = false;
    this.large = false;
    this.isKept = false;
    /** @type {Session | null} */
    this.session = null;
    this.onDevices = () => this.list();
    this.onHidden = () => this.keepAwake();
  }

  connectedCallback() {
    super.connectedCallback();
    navigator.mediaDevices?.addEventListener("devicechange", this.onDevices);
    document.addEventListener("visibilitychange", this.onHidden);
    this.list();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    navigator.mediaDevices?.removeEventListener("devicechange", this.onDevices);
    document.removeEventListener("visibilitychange", this.onHidden);
    this.session?.leave();
    this.lock?.release();
  }

  async list() {
    this.devices = await microphones();
  }

  get active() {
    return ACTIVE.includes(this.session?.state);
  }

  /** @param {import("../live/session.js").Wanted} wanted */
  async begin(wanted) {
    if (this.session?.captions.finals.length && !this.isKept && !confirm(strings.discard)) return;
    this.isKept = false;
    this.wanted = wanted;
    this.session = new Session(wanted, this.who.needs_key, () => this.changed());
    this.requestUpdate();
    await this.session.start();
    this.list(); // microphones have names now
    this.keepAwake();
  }

  changed() {
    const { awayMs } = this.session;
    if (awayMs) toast(strings.resumed((awayMs / 1000).toFixed(1)));
    this.session.awayMs = 0;
    this.requestUpdate();
  }

  /** A lock of the screen is lost while the page is hidden. */
  async keepAwake() {
    if (document.hidden || !this.active || !("wakeLock" in navigator)) return;
    this.lock = await navigator.wakeLock.request("screen").catch(() => null);
  }

  render() {
    return html`
      <h1>${strings.title}</h1>
      <div class="columns">
        <section class="card" aria-label=${strings.captions}>${this.status()} ${this.problem()} ${this.words()} ${this.actions()}</section>
        <live-options .devices=${this.devices} .disabled=${this.active} @begin=${(event) => this.begin(event.detail)}></live-options>
      </div>
    `;
  }

  status() {
    const { state, level, lagMs, tape, quality } = this.session ?? { state: "", level: 0, lagMs: null, tape: null, quality: 0 };
    return html`
      <div class="row spread">
        <p class="state" role="status" data-state=${state}>${strings.states[state] ?? nothing}</p>
        ${this.active ? this.stopButton(state) : html`<button class="primary" id="begin" form="live-options">${strings.begin}</button>`}
      </div>
      <div class="row figures" ?hidden=${!this.session}>
        <level-meter .level=${level} .label=${strings.level}></level-meter>
        <span>${strings.time} <b class="number">${Math.round(tape?.seconds ?? 0)} s</b></span>
        <span>${strings.lag} <b class="number" id="lag">${strings.ms(lagMs)}</b></span>
      </div>
      ${quality ? html`<p class="notice calm">${strings.quality}</p>` : nothing}
    `;
  }

  stopButton(state) {
    return html`<button class="danger" id="stop" ?disabled=${state === "ending"} @click=${() => this.session.stop()}>${strings.stop}</button>`;
  }

  problem() {
    const error = this.session?.error;
    if (!error) return nothing;
    const again = this.isEmpty && error.retryAfterS ? () => this.begin(this.wanted) : null;
    return html`<error-notice .error=${explained(error, strings.problems)} .retry=${again}></error-notice>`;
  }

  /** Nothing was said: starting again loses nothing. */
  get isEmpty() {
    return !this.active && !this.session.captions.finals.length;
  }

  words() {
    const { finals, partial } = this.session?.captions ?? { finals: [], partial: null };
    return html`
      <div class=${this.large ? "large" : ""}>
        ${this.large ? html`<button class="leave" @click=${() => this.enlarge(false)}>${strings.leaveLarge}</button>` : nothing}
        <caption-list .finals=${finals} .partial=${partial} .shaded=${this.shaded}></caption-list>
      </div>
    `;
  }

  actions() {
    const has = Boolean(this.session?.captions.finals.length);
    return html`
      <div class="row">
        <label class="check"><input type="checkbox" id="shade" .checked=${this.shaded} @change=${() => (this.shaded = !this.shaded)} />${strings.shade}</label>
        <button id="large" @click=${() => this.enlarge(true)}>${strings.large}</button>
        <button id="copy" ?disabled=${!has} @click=${this.copied}>${strings.copy}</button>
        ${Object.keys(TYPES).map((form) => html`<button data-form=${form} ?disabled=${!has} @click=${() => this.save(form)}>${form}</button>`)}
        ${this.keep()}
      </div>
      <p class="hint" ?hidden=${!this.shaded}>${strings.legend}</p>
    `;
  }

  keep() {
    if (!this.who?.scopes.includes("jobs") || this.active || !this.session?.tape.bytes) return nothing;
    const { language } = this.wanted;
    const options = language ? { language } : {};
    return html`<keep-tape .tape=${this.session.tape} .label=${strings.keep} .name=${strings.keepName} .options=${options} @kept=${() => (this.isKept = true)}></keep-tape>`;
  }

  async copied() {
    await copy(this.session.captions.text);
    toast(app.copied);
  }

  save(form) {
    const blob = new Blob([this.session.captions.as(form)], { type: TYPES[form] });
    download(blob, `live ${stamp()}.${form}`);
  }

  async enlarge(large) {
    this.large = large;
    await this.updateComplete;
    /** @type {HTMLElement} */ (this.querySelector(large ? ".leave" : "#large")).focus();
  }
}

customElements.define("live-view", LiveView);
