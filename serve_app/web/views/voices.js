/** Text to speech: hear it, compare two voices without knowing which is which, download it, take it into a program. */
import { copy, download } from "../download.js";
import { Element, html, nothing } from "../element.js";
import { toast } from "../parts/notice.js";
import { base } from "../server/http.js";
import { speech, voices } from "../server/speech.js";
import { app, voices as strings } from "../strings.js";
import { curl, javascript, python } from "../voices/snippets.js";
import { vote, votes } from "../voices/votes.js";
import "../parts/speak_button.js";

const SNIPPETS = { curl, Python: python, JavaScript: javascript };

class VoicesView extends Element {
  static properties = {
    who: {},
    path: {},
    known: { state: true },
    error: { state: true },
    wanted: { state: true },
    pair: { state: true },
    heard: { state: true },
    busy: { state: true },
  };

  constructor() {
    super();
    this.who = null;
    this.path = [];
    /** @type {any} what GET v1/audio/voices says */
    this.known = null;
    this.error = null;
    /** What failed, once more. */
    this.again = () => this.load();
    this.wanted = { text: strings.sample, voice: "", second: "", share: 50, speed: 1, language: "", style: "", format: "mp3" };
    /** @type {string[] | null} two voices in an order that only chance knows */
    this.pair = null;
    /** @type {Set<number>} which of the two have been heard */
    this.heard = new Set();
    this.busy = "";
  }

  connectedCallback() {
    super.connectedCallback();
    this.load();
  }

  load() {
    return this.attempt(async () => {
      this.known = await voices();
      this.set({ voice: this.known.default ?? this.known.voices[0]?.id ?? "", format: this.known.formats[0] });
    });
  }

  set(changes) {
    this.wanted = { ...this.wanted, ...changes };
  }

  can(option) {
    return this.known.options.includes(option);
  }

  get shownVoices() {
    const { language } = this.wanted;
    return this.known.voices.filter((it) => !language || it.language === language);
  }

  /** One voice, or two by their shares. */
  get voice() {
    const { voice, second, share } = this.wanted;
    if (!second || !this.can("blend") || share >= 100) return voice;
    return share <= 0 ? second : `${voice}(${share})+${second}(${100 - share})`;
  }

  asked(voice = this.voice) {
    const { text, speed, style, format } = this.wanted;
    const options = { ...(speed === 1 ? {} : { speed }), ...(style ? { style } : {}) };
    return { input: text, ...(voice ? { voice } : {}), ...options, response_format: format };
  }

  render() {
    return html`
      <h1>${strings.title}</h1>
      ${this.error ? html`<error-notice .error=${this.error} .retry=${this.again}></error-notice>` : nothing}
      ${this.known ? html`<div class="columns"><div>${this.text()} ${this.compare()}</div><div>${this.options()} ${this.code()}</div></div>` : nothing}
    `;
  }

  text() {
    const { text } = this.wanted;
    return html`
      <section class="card">
        <label class="field">${strings.text}<textarea id="text" dir="auto" maxlength="4096" .value=${text} @input=${(event) => this.set({ text: event.target.value })}></textarea></label>
        <div class="row">
          <speak-button id="speak" .label=${strings.speak} .wanted=${() => this.asked()}></speak-button>
          <label class="row">${strings.format}
            <select id="format" @change=${(event) => this.set({ format: event.target.value })}>${this.known.formats.map((it) => html`<option ?selected=${it === this.wanted.format}>${it}</option>`)}</select>
          </label>
          <button id="download" ?disabled=${this.busy || !text.trim()} @click=${this.save}>${this.busy ? strings.making : strings.download}</button>
        </div>
      </section>
    `;
  }

  options() {
    const languages = [...new Set(this.known.voices.map((it) => it.language))].sort();
    const styles = Object.keys(this.known.styles ?? {});
    const { language, speed, style } = this.wanted;
    return html`
      <section class="card" aria-labelledby="voice-title">
        <h2 id="voice-title">${strings.voice}</h2>
        <label class="field">${strings.language}
          <select @change=${(event) => this.set({ language: event.target.value })}><option value="">${strings.all}</option>${languages.map((it) => html`<option ?selected=${it === language}>${it}</option>`)}</select>
        </label>
        ${this.picker("voice", strings.voice, "")} ${this.can("blend") ? this.blend() : nothing}
        ${this.can("speed") ? html`<label class="field">${strings.speed(speed)}<input type="range" min="0.5" max="2" step="0.05" .value=${String(speed)} @input=${(event) => this.set({ speed: Number(event.target.value) })} /></label>` : nothing}
        ${styles.length ? html`<label class="field">${strings.style}<select @change=${(event) => this.set({ style: event.target.value })}><option value="">${strings.none}</option>${styles.map((it) => html`<option ?selected=${it === style}>${it}</option>`)}</select></label>` : nothing}
      </section>
    `;
  }

  picker(name, label, none) {
    const options = this.shownVoices.map(
      (it) => html`<option value=${it.id} ?selected=${it.id === this.wanted[name]}>${strings.named(it)}</option>`,
    );
    return html`<label class="field">${label}<select id=${name} @change=${(event) => this.set({ [name]: event.target.value })}>${none ? html`<option value="">${none}</option>` : nothing}${options}</select></label>`;
  }

  blend() {
    const { second, share } = this.wanted;
    return html`
      ${this.picker("second", strings.blend, strings.none)}
      ${second ? html`<label class="field">${strings.share(share)}<input type="range" min="0" max="100" step="5" .value=${String(share)} @input=${(event) => this.set({ share: Number(event.target.value) })} /></label>` : nothing}
    `;
  }

  compare() {
    if (this.known.voices.length < 2) return nothing;
    return html`
      <section class="card" aria-labelledby="compare-title">
        <h2 id="compare-title">${strings.compare}</h2>
        <p class="soft">${strings.compareWhy}</p>
        ${this.pair ? this.blind() : this.choice()} ${this.counted()}
      </section>
    `;
  }

  choice() {
    const [one, other] = this.shownVoices.length > 1 ? this.shownVoices : this.known.voices;
    const pick = (id, chosen) =>
      html`<select id=${id} aria-label=${strings.voice}>${this.known.voices.map((it) => html`<option value=${it.id} ?selected=${it.id === chosen}>${strings.named(it)}</option>`)}</select>`;
    return html`<div class="row">${pick("one", one.id)} ${pick("other", other.id)} <button id="compare" @click=${this.shuffle}>${strings.shuffle}</button></div>`;
  }

  shuffle() {
    const [one, other] = ["#one", "#other"].map((it) => /** @type {HTMLSelectElement} */ (this.querySelector(it)).value);
    if (one === other) return;
    this.heard = new Set();
    this.pair = Math.random() < 0.5 ? [one, other] : [other, one];
  }

  blind() {
    const both = this.heard.size === 2;
    const [a, b] = this.pair;
    return html`
      <div class="grid">
        ${this.pair.map((voice, i) => html`<div class="row"><speak-button id="play-${i}" .label=${strings.play(i)} .wanted=${() => this.asked(voice)} @spoken=${() => (this.heard = new Set(this.heard).add(i))}></speak-button></div>`)}
      </div>
      <div class="row">
        <button id="vote-0" ?disabled=${!both} @click=${() => this.vote(a, b)}>${strings.better(0)}</button>
        <button id="vote-1" ?disabled=${!both} @click=${() => this.vote(b, a)}>${strings.better(1)}</button>
        <button class="quiet" @click=${() => (this.pair = null)}>${strings.giveUp}</button>
      </div>
    `;
  }

  vote(winner, loser) {
    vote(winner, loser);
    toast(strings.voted(winner));
    this.pair = null;
  }

  counted() {
    const all = Object.entries(votes());
    if (!all.length) return nothing;
    return html`
      <table id="votes">
        <thead><tr>${strings.columns.map((it) => html`<th scope="col">${it}</th>`)}</tr></thead>
        <tbody>${all.sort(([, a], [, b]) => b.won - a.won).map(([name, { heard, won }]) => html`<tr><th scope="row">${name}</th><td class="number">${won}</td><td class="number">${heard}</td></tr>`)}</tbody>
      </table>
    `;
  }

  code() {
    return html`
      <section class="card" aria-labelledby="code-title">
        <h2 id="code-title">${strings.code}</h2>
        ${Object.entries(SNIPPETS).map(([name, make]) => this.snippet(name, make(base().href, this.asked(), this.who.needs_key)))}
      </section>
    `;
  }

  snippet(name, text) {
    return html`<details><summary>${name}</summary><pre tabindex="0"><code data-code=${name}>${text}</code></pre><button @click=${() => this.copied(text)}>${strings.copy}</button></details>`;
  }

  async copied(text) {
    await copy(text);
    toast(app.copied);
  }

  async save() {
    this.busy = "making";
    try {
      download(await speech(this.asked()), `speech.${this.wanted.format}`);
      this.error = null;
    } catch (error) {
      this.again = () => this.save();
      this.error = error;
    } finally {
      this.busy = "";
    }
  }
}

customElements.define("voices-view", VoicesView);
