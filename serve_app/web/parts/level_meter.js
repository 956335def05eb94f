/** How loud it is: a bar that a screen reader can read. */
import { Element, html } from "../element.js";

const QUIETEST_DBFS = -60;

class LevelMeter extends Element {
  static properties = { level: { type: Number }, label: {} };

  constructor() {
    super();
    this.level = 0;
    this.label = "";
  }

  /** @returns {number} 0 to 1 of the scale, from the level as root mean square, 0 to 1 */
  get share() {
    const dbfs = 20 * Math.log10(Math.max(this.level, 1e-6));
    return Math.max(0, Math.min(1, 1 - dbfs / QUIETEST_DBFS));
  }

  render() {
    return html`<meter class="level" min="0" max="1" low="0.2" high="0.95" optimum="0.6" .value=${this.share} aria-label=${this.label}></meter>`;
  }
}

customElements.define("level-meter", LevelMeter);
