/** The list of recordings: uploads, progress, search; and one recording by its id. */
import { Element, html, nothing, repeat } from "../element.js";
import { toast } from "../parts/notice.js";
import { feed, list, remove, retry } from "../server/jobs.js";
import { recordings as strings } from "../strings.js";
import "../parts/upload_area.js";

const UNDO_MS = 6_000;
const SEARCH_AFTER_MS = 250;

class RecordingsView extends Element {
  static properties = { who: {}, path: {}, older: { state: true }, more: { state: true }, found: { state: true }, error: { state: true } };

  constructor() {
    super();
    this.who = null;
    /** @type {string[]} */
    this.path = [];
    /** @type {any[]} that the stream does not have */
    this.older = [];
    this.more = true;
    /** @type {any} the answer of a search */
    this.found = null;
    this.error = null;
    /** @type {Map<string, () => void>} what deletes those that can still be undone */
    this.deleting = new Map();
    this.onHide = () => this.deleteNow();
  }

  connectedCallback() {
    super.connectedCallback();
    this.unfollow = feed.follow(() => this.requestUpdate());
    addEventListener("pagehide", this.onHide);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.unfollow();
    removeEventListener("pagehide", this.onHide);
    this.deleteNow();
  }

  willUpdate() {
    if (this.path[0]) import("../parts/recording.js");
  }

  render() {
    if (this.path[0]) return html`<one-recording .id=${this.path[0]} .seconds=${Number(this.path[1] ?? 0)}></one-recording>`;
    return html`
      <h1>${strings.title}</h1>
      <upload-area @uploaded=${() => toast(strings.uploaded)}></upload-area>
      <label class="field">
        <span class="sr">${strings.search}</span>
        <input id="search" type="search" placeholder=${strings.search} maxlength="200" @input=${this.typed} />
      </label>
      ${feed.error || this.error ? html`<error-notice .error=${this.error ?? feed.error}></error-notice>` : nothing}
      ${this.found ? this.results() : this.all()}
    `;
  }

  get jobs() {
    const newest = [...feed.jobs.values()];
    const older = this.older.filter((it) => !feed.jobs.has(it.id));
    return [...newest, ...older].filter((it) => !this.deleting.has(it.id));
  }

  all() {
    const { jobs } = this;
    if (!jobs.length) return html`<p class="soft empty">${strings.empty}</p>`;
    return html`${this.rows(jobs)} ${this.more && jobs.length >= 100 ? html`<button id="more" @click=${this.loadOlder}>${strings.more}</button>` : nothing}`;
  }

  results() {
    const jobs = this.found.data.filter((it) => !this.deleting.has(it.id));
    return html`
      <p role="status">${strings.hits(jobs.length, this.found.has_more)} ${this.found.searched === "names" ? strings.namesOnly : nothing}</p>
      ${this.rows(jobs)}
    `;
  }

  rows(jobs) {
    return html`
      <ul class="plain recordings">
        ${repeat(
          jobs,
          (it) => it.id,
          (it) => this.row(it),
        )}
      </ul>
    `;
  }

  row(job) {
    const open = ["queued", "running", "cancelling"].includes(job.state);
    return html`
      <li class="card recording" data-id=${job.id} data-state=${job.state}>
        <div class="row spread">
          <a class="name" href="#/recordings/${job.id}" dir="auto">${job.file.name || strings.unnamed}</a>
          <span class="badge ${{ completed: "good", failed: "bad" }[job.state] ?? ""}">${strings.states[job.state]}</span>
        </div>
        <div class="row spread">
          <span class="soft">${strings.details(job)}</span>
          <span class="row">
            ${job.state === "failed" ? html`<button @click=${() => this.again(job)}>${strings.retry}</button>` : nothing}
            ${
              open
                ? html`<button @click=${() => this.cancel(job)} ?disabled=${job.state === "cancelling"}>${strings.cancel}</button>`
                : html`<button class="delete" @click=${() => this.delete(job)} aria-label=${strings.deleteNamed(job.file.name)}>${strings.delete}</button>`
            }
          </span>
        </div>
        ${open ? this.progress(job) : nothing} ${job.error ? html`<p class="problem">${strings.problem(job.error)}</p>` : nothing}
        ${job.found?.map((it) => this.passage(job, it)) ?? nothing}
      </li>
    `;
  }

  progress(job) {
    const label = job.state === "queued" ? strings.position(job.queue_position) : strings.step(job.step, job.progress, job.estimate_s);
    return html`<progress max="100" .value=${job.progress} aria-label=${job.file.name}></progress><span class="soft number">${label}</span>`;
  }

  /** Words are marked by their places: what was said is never markup. */
  passage(job, { start_ms, text, marks }) {
    const letters = [...text];
    const piece = (from, to) => letters.slice(from, to).join("");
    let at = 0;
    const parts = marks.map(([from, to]) => {
      const part = html`${piece(at, from)}<mark>${piece(from, to)}</mark>`;
      at = to;
      return part;
    });
    return html`<p class="passage" dir="auto"><a href="#/recordings/${job.id}/${start_ms / 1000}">${strings.clock(start_ms)}</a> ${parts}${piece(at, undefined)}</p>`;
  }

  typed(event) {
    clearTimeout(this.searching);
    const q = event.target.value.trim();
    this.searching = setTimeout(() => this.search(q), SEARCH_AFTER_MS);
  }

  async search(q) {
    this.asked = q;
    try {
      const found = q ? await list({ q }) : null;
      if (this.asked === q) this.found = found;
      this.error = null;
    } catch (error) {
      this.error = error;
    }
  }

  loadOlder() {
    return this.attempt(async () => {
      const page = await list({ after: this.jobs.at(-1).id });
      this.older = [...this.older, ...page.data];
      this.more = page.has_more;
    });
  }

  cancel({ id }) {
    return this.attempt(() => remove(id));
  }

  again(job) {
    return this.attempt(async () => {
      feed.put(await retry(job));
      await remove(job.id);
      this.requestUpdate();
    });
  }

  /** It is gone from the list at once, and from the server when it cannot be undone any more. */
  delete({ id, file }) {
    const timer = setTimeout(() => this.deleteOne(id), UNDO_MS);
    const stop = () => clearTimeout(timer);
    this.deleting.set(id, stop);
    toast(strings.deleted(file.name), { label: strings.undo, act: () => this.undelete(id), lasts: UNDO_MS });
    this.requestUpdate();
  }

  undelete(id) {
    this.deleting.get(id)?.();
    this.deleting.delete(id);
    this.requestUpdate();
  }

  async deleteOne(id) {
    await this.attempt(() => remove(id));
    feed.jobs.delete(id);
    this.deleting.delete(id);
    this.requestUpdate();
  }

  deleteNow() {
    for (const [id, stop] of this.deleting) {
      stop();
      this.deleteOne(id);
    }
  }
}

customElements.define("recordings-view", RecordingsView);
