/**
 * The captions of a live session: finals black, the partial grey. It follows the newest words until the person scrolls;
 * then the position holds, and a button goes to the newest. All text stays in the page, so find-in-page reaches it.
 */
import { classMap, Element, guard, html, nothing, repeat } from "../element.js";
import { live as strings } from "../strings.js";

const NEAR_END_PX = 40;
/** Words below these are marked. */
const UNSURE = 0.5;
const DOUBTFUL = 0.75;
const KEYS = ["ArrowUp", "PageUp", "Home"];

class CaptionList extends Element {
  static properties = { finals: {}, partial: {}, shaded: { type: Boolean }, following: { state: true } };

  constructor() {
    super();
    /** @type {import("../live/captions.js").Caption[]} */
    this.finals = [];
    /** @type {import("../live/captions.js").Caption | null} */
    this.partial = null;
    this.shaded = false;
    this.following = true;
  }

  render() {
    return html`
      <div class="captions" tabindex="0" role="log" aria-label=${strings.captions} @wheel=${this.leave} @touchmove=${this.leave} @keydown=${this.onKey} @scroll=${this.onScroll}>
        ${this.finals.length || this.partial ? nothing : html`<p class="soft">${strings.empty}</p>`}
        ${repeat(
          this.finals,
          (it) => it.id,
          (it) => guard([it, this.shaded], () => this.final(it)),
        )}
        ${this.partial ? html`<p class="partial" dir="auto" aria-live="off">${this.partial.text}</p>` : nothing}
      </div>
      ${this.following ? nothing : html`<button class="latest" @click=${this.follow}>${strings.latest}</button>`}
    `;
  }

  final(it) {
    const speaker = it.speaker ? html`<strong class="speaker">${it.speaker}</strong> ` : nothing;
    return html`<p class="final" dir="auto">${speaker}${this.shaded && it.words.length ? it.words.map((word) => this.word(word)) : it.text}</p>`;
  }

  word({ word, confidence }) {
    const classes = { unsure: confidence < UNSURE, doubtful: confidence >= UNSURE && confidence < DOUBTFUL };
    return html`<span class=${classMap(classes)} title=${strings.confidence(confidence)}>${word}</span> `;
  }

  get list() {
    return this.querySelector(".captions");
  }

  updated() {
    if (this.following) this.list.scrollTop = this.list.scrollHeight;
  }

  /** The person scrolls: the position is theirs from now on. */
  leave(event) {
    if (event.deltaY > 0 && this.isAtEnd) return;
    this.following = false;
  }

  onKey(event) {
    if (KEYS.includes(event.key)) this.following = false;
  }

  onScroll() {
    if (this.isAtEnd) this.following = true;
  }

  get isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.list;
    return scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  }

  follow() {
    this.following = true;
  }
}

customElements.define("caption-list", CaptionList);
