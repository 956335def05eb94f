/** Sends what was heard to the recordings, where it is transcribed with speakers. Fires `kept`. */
import { stamp } from "../download.js";
import { Element, html } from "../element.js";
import { submit } from "../server/jobs.js";
import { keep as strings } from "../strings.js";
import { toast } from "./notice.js";

class KeepTape extends Element {
  static properties = { tape: {}, label: {}, name: {}, options: {}, keeping: { state: true }, kept: { state: true } };

  constructor() {
    super();
    /** @type {import("../audio/wav.js").Tape | null} */
    this.tape = null;
    this.label = "";
    /** @type {(stamp: string) => string} the file's name */
    this.name = (at) => at;
    /** @type {Record<string, string>} of the job */
    this.options = {};
    this.keeping = false;
    /** @type {any} the job that the tape was kept as */
    this.kept = null;
  }

  willUpdate(changed) {
    if (changed.has("tape")) this.kept = null;
  }

  render() {
    if (this.kept) return html`<span>${strings.kept} <a href="#/recordings/${this.kept.id}">${strings.show}</a></span>`;
    return html`<button class="primary" id="keep" ?disabled=${this.keeping} @click=${this.store}>${this.keeping ? strings.keeping : this.label}</button>`;
  }

  async store() {
    this.keeping = true;
    try {
      this.kept = await submit(this.tape.file(), this.name(stamp()), this.options);
      this.dispatchEvent(new CustomEvent("kept"));
    } catch (error) {
      toast(error.message);
    } finally {
      this.keeping = false;
    }
  }
}

customElements.define("keep-tape", KeepTape);
