/**
 * A transcript that follows the playback. All its text is in the page, a block for each segment, so that find-in-page
 * reaches its end; the word that is spoken is marked without changing the page (CSS Custom Highlight).
 */
import { Element, guard, html, nothing, repeat } from "../element.js";
import { indexAt, places, speakersOf, wordAt } from "../recording/timeline.js";
import { clock, recording as strings } from "../strings.js";

const UNSURE = 0.5;
const has = () => "highlights" in CSS;
const SCROLLING = ["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"];

class TranscriptText extends Element {
  static properties = {
    segments: {},
    unsure: { type: Boolean },
    editing: { type: Number },
    typed: {},
    busy: { type: Boolean },
    following: { state: true },
  };

  constructor() {
    super();
    /** @type {any[]} */
    this.segments = [];
    this.unsure = false;
    /** The id of the segment that is edited; -1: none. */
    this.editing = -1;
    this.typed = "";
    this.busy = false;
    this.following = true;
    this.active = -1;
    this.onWheel = () => this.leave();
    this.onKey = (event) => SCROLLING.includes(event.key) && this.leave();
  }

  connectedCallback() {
    super.connectedCallback();
    for (const name of ["wheel", "touchmove"]) addEventListener(name, this.onWheel, { passive: true });
    addEventListener("keydown", this.onKey);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    for (const name of ["wheel", "touchmove"]) removeEventListener(name, this.onWheel);
    removeEventListener("keydown", this.onKey);
    if (has()) CSS.highlights.clear();
  }

  render() {
    return html`
      <ol class="plain transcript" @click=${this.clicked} @dblclick=${this.doubleClicked}>
        ${repeat(
          this.segments,
          (it) => it.id,
          (it) =>
            guard([it, this.editing === it.id, this.editing === it.id && this.typed, this.busy && this.editing === it.id], () =>
              this.segment(it),
            ),
        )}
      </ol>
      ${this.following ? nothing : html`<button class="back" @click=${this.back}>${strings.back}</button>`}
    `;
  }

  segment(it) {
    const time = clock(it.start_ms);
    return html`
      <li data-segment=${it.id}>
        <a class="time number" href="#" data-seek=${it.start_ms} aria-label=${strings.playFrom(time)}>${time}</a>
        <b class="speaker" dir="auto">${it.speaker ?? nothing}</b>
        ${this.editing === it.id ? this.editor(it) : html`<p class="text" dir="auto">${it.text}</p><button class="quiet edit" data-edit=${it.id} aria-label=${strings.editAt(time)}>${strings.edit}</button>`}
      </li>
    `;
  }

  editor(it) {
    const fire = (op, more = {}) => this.fire("edit", { op, segment: it.id, ...more });
    return html`
      <form class="editor" @submit=${(event) => this.save(event, it)} @keydown=${this.editorKey}>
        <label class="field">${strings.text}<textarea name="text" dir="auto" .value=${this.typed} @input=${(event) => this.fire("typed", event.target.value)}></textarea></label>
        <div class="row">
          <label class="field">${strings.speaker}<input name="speaker" list="speakers" .value=${it.speaker ?? ""} maxlength="80" autocomplete="off" /></label>
          <button class="primary" ?disabled=${this.busy}>${strings.save}</button>
          <button type="button" @click=${() => this.fire("leave")}>${strings.cancel}</button>
          <button type="button" class="split" ?disabled=${this.busy} @click=${() => this.split(it, fire)}>${strings.split}</button>
          <button type="button" class="merge" ?disabled=${this.busy} @click=${() => fire("merge")}>${strings.merge}</button>
        </div>
        <datalist id="speakers">${speakersOf(this.segments).map((name) => html`<option value=${name}></option>`)}</datalist>
      </form>
    `;
  }

  /** Before the word where the caret stands. */
  split(it, fire) {
    const area = this.querySelector("textarea");
    const word = area.value.slice(0, area.selectionStart).split(/\s+/).filter(Boolean).length;
    if (word > 0 && word < it.text.split(" ").length) fire("split", { word });
  }

  save(event, it) {
    event.preventDefault();
    const form = new FormData(event.target);
    const [text, speaker] = ["text", "speaker"].map((name) => String(form.get(name)).replaceAll(/\s+/g, " ").trim());
    const edits = [];
    if (text !== it.text) edits.push({ op: "set_text", segment: it.id, text });
    if (speaker && speaker !== it.speaker) edits.push({ op: "set_speaker", segment: it.id, speaker });
    this.fire(edits.length ? "edits" : "leave", edits);
  }

  editorKey(event) {
    event.stopPropagation(); // the player's keys are letters here
    if (event.key === "Escape") this.fire("leave");
    if (event.key === "Enter" && event.target.name === "text") {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  }

  fire(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  clicked(event) {
    const { seek, edit } = event.target.dataset;
    if (edit) return this.fire("begin", Number(edit));
    if (seek !== undefined) event.preventDefault();
    if (seek !== undefined) return this.fire("seek", Number(seek) / 1000);
    const row = event.target.closest(".text")?.closest("[data-segment]");
    if (row && getSelection().isCollapsed) this.seekTo(row, event);
    return undefined;
  }

  doubleClicked(event) {
    const row = event.target.closest(".text")?.closest("[data-segment]");
    if (row) this.fire("begin", Number(row.dataset.segment));
  }

  /** To the word under the pointer. */
  seekTo(row, event) {
    const segment = this.segments.find((it) => it.id === Number(row.dataset.segment));
    const offset = caretAt(event.clientX, event.clientY);
    const word = offset === null || !segment.words.length ? segment : segment.words[wordAt(segment, offset)];
    this.fire("seek", word.start_ms / 1000);
  }

  updated(changed) {
    if (changed.has("segments") || changed.has("unsure")) this.markUnsure();
    if (changed.has("editing") && this.editing >= 0) this.querySelector("textarea")?.focus();
  }

  textOf(id) {
    return this.querySelector(`[data-segment="${id}"] .text`);
  }

  /** The ranges of words of a segment in the page. */
  rangesOf(segment, wanted) {
    const node = textNode(this.textOf(segment.id));
    if (!node) return [];
    const at = places(segment);
    return wanted.filter((i) => at[i][1] <= node.length).map((i) => rangeOf(node, at[i]));
  }

  markUnsure() {
    if (!has()) return;
    const ranges = this.unsure ? this.segments.flatMap((it) => this.rangesOf(it, unsureIn(it))) : [];
    CSS.highlights.set("unsure", new Highlight(...ranges));
  }

  /** Marks what is spoken now. @param {number} ms */
  show(ms) {
    const at = indexAt(this.segments, ms);
    if (at !== this.active) this.activate(at);
    const segment = this.segments[at];
    if (!segment || !has()) return;
    const word = indexAt(segment.words, ms);
    if (segment === this.shown && word === this.word) return;
    this.shown = segment;
    this.word = word;
    CSS.highlights.set("spoken", new Highlight(...(word < 0 ? [] : this.rangesOf(segment, [word]))));
  }

  activate(at) {
    this.querySelector("li.active")?.classList.remove("active");
    this.active = at;
    const row = this.rowOf(at);
    row?.classList.add("active");
    if (this.following && row && !isSeen(row)) row.scrollIntoView({ block: "center" });
  }

  rowOf(at) {
    return this.segments[at] ? this.querySelector(`[data-segment="${this.segments[at].id}"]`) : null;
  }

  leave() {
    if (this.active >= 0) this.following = false;
  }

  back() {
    this.following = true;
    this.rowOf(this.active)?.scrollIntoView({ block: "center" });
  }
}

function isSeen(row) {
  const { top, bottom } = row.getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
}

const unsureIn = ({ words }) => words.map((_, i) => i).filter((i) => words[i].confidence < UNSURE);

/** The text of an element, beside the marks that the renderer leaves. */
const textNode = (element) => [...(element?.childNodes ?? [])].find((it) => it.nodeType === Node.TEXT_NODE && it.length);

function rangeOf(node, [start, end]) {
  const range = new Range();
  range.setStart(node, start);
  range.setEnd(node, end);
  return range;
}

/** The place in the text under a point; null where the browser cannot tell. */
function caretAt(x, y) {
  const found = document.caretPositionFromPoint?.(x, y);
  return found ? found.offset : (document.caretRangeFromPoint?.(x, y)?.startOffset ?? null);
}

customElements.define("transcript-text", TranscriptText);
