/** One recording: heard, read, corrected, exported. */
import { Element, html, nothing } from "../element.js";
import { Editing } from "../recording/editing.js";
import { speakersOf } from "../recording/timeline.js";
import { audioOf, exportOf, feed, job, originalOf, peaks } from "../server/jobs.js";
import { clock, recordings, recording as strings } from "../strings.js";
import { toast } from "./notice.js";
import "./transcript.js";
import "./waveform.js";

const FORMS = ["txt", "srt", "vtt", "json", "tsv", "docx"];
const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 2];
const STEP_S = 5;
const TYPING = "input:not([type=range]), textarea, select";

class OneRecording extends Element {
  static properties = {
    id: {},
    seconds: { type: Number },
    job: { state: true },
    peaks: { state: true },
    result: { state: true },
    error: { state: true },
    conflict: { state: true },
    editing: { state: true },
    typed: { state: true },
    busy: { state: true },
    unsure: { state: true },
    now: { state: true },
    playing: { state: true },
    speed: { state: true },
  };

  constructor() {
    super();
    this.id = "";
    this.seconds = 0;
    /** @type {any} */
    this.job = null;
    /** @type {any} */
    this.peaks = null;
    /** @type {any} */
    this.result = null;
    /** @type {any} */
    this.error = null;
    this.conflict = false;
    this.editing = -1;
    this.typed = "";
    this.busy = false;
    this.unsure = false;
    this.now = 0;
    this.playing = false;
    this.speed = 1;
    this.player = new Audio();
    this.player.preload = "metadata";
    this.onKey = (event) => this.key(event);
    for (const name of ["play", "pause", "ended"]) this.player.addEventListener(name, () => this.played());
    this.player.addEventListener("seeked", () => this.tick());
  }

  connectedCallback() {
    super.connectedCallback();
    addEventListener("keydown", this.onKey);
    this.unfollow = feed.follow(() => this.told());
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    removeEventListener("keydown", this.onKey);
    this.unfollow();
    cancelAnimationFrame(this.frame);
    this.player.pause();
    this.player.removeAttribute("src");
  }

  willUpdate(changed) {
    if (changed.has("id")) this.load();
    else if (changed.has("seconds") && this.result) this.seek(this.seconds);
  }

  /** The stream says how far it is; when it is ready it is loaded. */
  told() {
    const newest = feed.jobs.get(this.id);
    if (!newest || !this.job) return;
    const became = newest.state !== this.job.state;
    const corrected = newest.revision > (this.result?.revision ?? newest.revision);
    this.job = newest;
    if (became && newest.state === "completed") this.load();
    else if (corrected && !this.busy) this.changedElsewhere();
  }

  async load() {
    try {
      this.job = await job(this.id);
      this.edits = new Editing(this.id);
      if (this.job.state !== "completed") return;
      const [found] = await Promise.all([peaks(this.id).catch(() => null), this.edits.load()]);
      this.peaks = found;
      this.result = this.edits.result;
      this.player.src = found ? audioOf(this.id) : originalOf(this.id);
      if (this.seconds) this.seek(this.seconds);
      this.restoreDraft();
      this.error = null;
    } catch (error) {
      this.error = error;
    }
  }

  restoreDraft() {
    const { draft } = this.edits;
    if (!draft || !this.result.aligned_segments.some((it) => it.id === draft.segment)) return;
    this.editing = draft.segment;
    this.typed = draft.text;
  }

  render() {
    if (this.error && !this.job) return html`<h1>${strings.title}</h1><error-notice .error=${this.error}></error-notice>${this.listLink()}`;
    if (!this.job) return html`<h1>${strings.title}</h1>`;
    return html`
      ${this.listLink()}
      <h1 dir="auto">${this.job.file.name || recordings.unnamed}</h1>
      ${this.error ? html`<error-notice .error=${this.error}></error-notice>` : nothing} ${this.conflict ? this.conflictNotice() : nothing}
      ${this.result ? this.content() : this.waiting()}
    `;
  }

  listLink() {
    return html`<p><a href="#/recordings">${strings.all}</a></p>`;
  }

  waiting() {
    const { state, step, progress, estimate_s, error } = this.job;
    if (error) return html`<p class="problem">${recordings.problem(error)}</p>`;
    if (state === "completed") return nothing;
    return html`<section class="card"><p role="status">${recordings.step(step, progress, estimate_s)}</p><progress max="100" .value=${progress} aria-label=${strings.progress}></progress></section>`;
  }

  conflictNotice() {
    return html`<div class="notice calm" id="conflict" role="alert"><p>${this.editing >= 0 ? strings.conflictKept : strings.conflict}</p><button @click=${() => (this.conflict = false)}>${strings.understood}</button></div>`;
  }

  content() {
    const segments = this.result.aligned_segments;
    return html`
      <section class="card player" aria-label=${strings.player}>
        ${this.peaks ? html`<wave-form .player=${this.player} .peaks=${this.peaks} .segments=${segments} .speakers=${speakersOf(segments)} .now=${this.now} @seek=${(event) => this.seek(event.detail)}></wave-form>` : html`<p class="soft">${strings.noWave}</p>`}
        <div class="row">
          <button class="primary" id="play" @click=${this.toggle}>${this.playing ? strings.pause : strings.play}</button>
          <span class="number">${strings.of(clock(this.now * 1000), clock(this.result.duration_ms))}</span>
          <label class="row">${strings.speed}
            <select @change=${(event) => this.setSpeed(Number(event.target.value))}>${SPEEDS.map((it) => html`<option value=${it} ?selected=${it === this.speed}>${it}×</option>`)}</select>
          </label>
          <button id="undo" ?disabled=${!this.edits.canUndo || this.busy} @click=${() => this.correcting(() => this.edits.undo())}>${strings.undo}</button>
          <button id="redo" ?disabled=${!this.edits.canRedo || this.busy} @click=${() => this.correcting(() => this.edits.redo())}>${strings.redo}</button>
          <label class="check"><input type="checkbox" .checked=${this.unsure} @change=${() => (this.unsure = !this.unsure)} />${strings.unsure}</label>
        </div>
        <p class="hint">${strings.keys}</p>
      </section>
      <div class="columns">
        <section class="card" aria-label=${strings.transcript}>
          ${segments.length ? nothing : html`<p class="soft">${strings.noWords}</p>`}
          <transcript-text
            .segments=${segments}
            .unsure=${this.unsure}
            .editing=${this.editing}
            .typed=${this.typed}
            .busy=${this.busy}
            @seek=${(event) => this.seek(event.detail)}
            @begin=${(event) => this.begin(event.detail)}
            @typed=${(event) => this.type(event.detail)}
            @leave=${this.leave}
            @edit=${(event) => this.save([event.detail])}
            @edits=${(event) => this.save(event.detail)}
          ></transcript-text>
        </section>
        <aside>${this.speakers(segments)} ${this.exports()} ${this.quality()}</aside>
      </div>
    `;
  }

  speakers(segments) {
    const names = speakersOf(segments);
    if (!names.length) return nothing;
    return html`
      <section class="card" aria-labelledby="speakers-title">
        <h2 id="speakers-title">${strings.speakers}</h2>
        ${names.map(
          (name) => html`<form class="row" data-speaker=${name} @submit=${(event) => this.rename(event, name)}>
            <input name="name" .value=${name} maxlength="80" required dir="auto" aria-label=${strings.nameOf(name)} autocomplete="off" />
            <button>${strings.rename}</button>
          </form>`,
        )}
      </section>
    `;
  }

  exports() {
    return html`
      <section class="card" aria-labelledby="exports-title">
        <h2 id="exports-title">${strings.exports}</h2>
        <div class="row">
          ${FORMS.map((form) => html`<a class="button" href=${exportOf(this.id, form)} download>${form}</a>`)}
          <a class="button" href=${originalOf(this.id)} download>${strings.original}</a>
        </div>
      </section>
    `;
  }

  quality() {
    const { quality, warnings, engines, language } = this.result;
    return html`
      <section class="card" aria-labelledby="quality-title">
        <h2 id="quality-title">${strings.quality}</h2>
        ${warnings.length ? html`<ul>${warnings.map((it) => html`<li>${strings.warnings[it] ?? it}</li>`)}</ul>` : nothing}
        <dl class="pairs">
          ${Object.entries(strings.measures).map(([name, [label, shown]]) => (quality[name] === undefined ? nothing : html`<dt>${label}</dt><dd class="number">${shown(quality[name])}</dd>`))}
          <dt>${strings.engine}</dt><dd>${[engines.transcriber, engines.diarizer].filter(Boolean).join(", ")}</dd>
          <dt>${strings.language}</dt><dd>${language ?? strings.unknown}</dd>
        </dl>
      </section>
    `;
  }

  // Playing.

  toggle() {
    if (this.player.paused) this.player.play().catch((error) => toast(error.message));
    else this.player.pause();
  }

  played() {
    this.playing = !this.player.paused;
    cancelAnimationFrame(this.frame);
    if (this.playing) this.frame = requestAnimationFrame(() => this.follow());
    else this.tick();
  }

  follow() {
    this.tick();
    if (this.playing) this.frame = requestAnimationFrame(() => this.follow());
  }

  /** What is heard now is marked each frame; the rest of the page follows ten times a second. */
  tick() {
    const seconds = this.player.currentTime;
    /** @type {any} */ (this.querySelector("transcript-text"))?.show(seconds * 1000);
    if (Math.abs(seconds - this.now) >= 0.1) this.now = seconds;
  }

  seek(seconds) {
    this.player.currentTime = Math.max(0, seconds);
    this.now = this.player.currentTime;
    if (this.player.readyState < 1)
      this.player.addEventListener("loadedmetadata", () => (this.player.currentTime = seconds), { once: true });
  }

  setSpeed(speed) {
    this.speed = speed;
    this.player.playbackRate = speed;
  }

  key(event) {
    if (!this.result || event.target.closest?.(TYPING) || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = this.keyed(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  keyed({ key, shiftKey, target }) {
    const { currentTime } = this.player;
    const sign = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (key === " " && target.localName !== "button" && target.localName !== "a") return () => this.toggle();
    if (sign && target.type !== "range") return shiftKey ? () => this.jump(sign) : () => this.seek(currentTime + sign * STEP_S);
    if (key === "<" || key === ">") return () => this.faster(key === ">" ? 1 : -1);
    return null;
  }

  jump(by) {
    const segments = this.result.aligned_segments;
    const now = this.player.currentTime * 1000;
    const next = by > 0 ? segments.find((it) => it.start_ms > now + 1) : segments.findLast((it) => it.start_ms < now - 1000);
    if (next) this.seek(next.start_ms / 1000);
  }

  faster(by) {
    const at = SPEEDS.indexOf(this.speed) + by;
    if (SPEEDS[at]) this.setSpeed(SPEEDS[at]);
  }

  // Correcting.

  begin(id) {
    this.editing = id;
    this.typed = this.result.aligned_segments.find((it) => it.id === id).text;
  }

  type(text) {
    this.typed = text;
    this.edits.draft = { segment: this.editing, text };
  }

  leave() {
    this.editing = -1;
    this.edits.draft = null;
  }

  rename(event, speaker) {
    event.preventDefault();
    const name = String(new FormData(event.target).get("name")).trim();
    if (name && name !== speaker) this.save([{ op: "rename_speaker", speaker, name }], false);
  }

  save(edits, ends = true) {
    return this.correcting(async () => {
      await this.edits.edit(edits);
      if (ends) this.leave();
    });
  }

  async correcting(act) {
    this.busy = true;
    try {
      await act();
      this.result = this.edits.result;
      this.error = null;
    } catch (error) {
      if (error.code === "revision_conflict") await this.changedElsewhere();
      else this.error = error;
    } finally {
      this.busy = false;
    }
  }

  /** Somebody else has corrected it: theirs is shown, and what is typed here stays. */
  async changedElsewhere() {
    await this.edits.load();
    this.result = this.edits.result;
    this.conflict = true;
    if (!this.result.aligned_segments.some((it) => it.id === this.editing)) this.editing = -1;
  }
}

customElements.define("one-recording", OneRecording);
