/** Curves over the last hour, and the same numbers as a table for who cannot see them. */
import { Element, html } from "../element.js";
import { server as strings } from "../strings.js";
import Plot from "../vendor/uplot.js";
import { colour } from "./colour.js";

const HEIGHT_PX = 150;
/** Rows of the table; a curve has more points. */
const ROWS = 12;
const COLOURS = ["--accent", "--warn", "--good"];

class TimeChart extends Element {
  static properties = { label: {}, unit: {}, times: {}, series: {} };

  constructor() {
    super();
    this.label = "";
    this.unit = "";
    /** @type {number[]} seconds since 1970 */
    this.times = [];
    /** @type {{name: string, values: (number | null)[]}[]} */
    this.series = [];
    /** @type {Plot | null} */
    this.plot = null;
    this.observer = new ResizeObserver(() => this.fit());
    this.themes = matchMedia("(prefers-color-scheme: dark)");
    this.onTheme = () => this.draw();
  }

  connectedCallback() {
    super.connectedCallback();
    this.observer.observe(this);
    this.themes.addEventListener("change", this.onTheme);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.observer.disconnect();
    this.themes.removeEventListener("change", this.onTheme);
    this.plot?.destroy();
    this.plot = null;
  }

  render() {
    return html`
      <figure class="chart">
        <figcaption>${this.label} <span class="soft">${this.newest}</span></figcaption>
        <div class="plot" aria-hidden="true"></div>
        <details>
          <summary>${strings.table}</summary>
          ${this.table()}
        </details>
      </figure>
    `;
  }

  get newest() {
    return this.series.map((it) => `${this.series.length > 1 ? `${it.name} ` : ""}${shown(it.values.at(-1), this.unit)}`).join(", ");
  }

  table() {
    const step = Math.max(1, Math.ceil(this.times.length / ROWS));
    const rows = this.times.map((_, i) => i).filter((i) => (this.times.length - 1 - i) % step === 0);
    return html`
      <div class="scroll">
        <table>
          <caption class="sr">
            ${this.label}
          </caption>
          <thead>
            <tr>
              <th scope="col">${strings.time}</th>
              ${this.series.map((it) => html`<th scope="col">${it.name}</th>`)}
            </tr>
          </thead>
          <tbody>
            ${rows.map((i) => html`<tr><th scope="row">${clock(this.times[i])}</th>${this.series.map((it) => html`<td class="number">${shown(it.values[i], this.unit)}</td>`)}</tr>`)}
          </tbody>
        </table>
      </div>
    `;
  }

  updated(changed) {
    if (!changed.has("series") && !changed.has("times")) return;
    if (this.plot && this.plot.series.length === this.series.length + 1) this.plot.setData(this.data);
    else this.draw();
  }

  get data() {
    return /** @type {any} */ ([this.times, ...this.series.map((it) => it.values)]);
  }

  draw() {
    this.plot?.destroy();
    this.plot = new Plot(this.options, this.data, this.querySelector(".plot"));
  }

  get options() {
    const axis = { stroke: colour(this, "--soft"), grid: { stroke: colour(this, "--line"), width: 1 }, ticks: { show: false } };
    const curves = this.series.map((it, i) => ({
      label: it.name,
      stroke: colour(this, COLOURS[i % COLOURS.length]),
      width: 2,
      points: { show: false },
    }));
    const size = { width: Math.max(200, this.clientWidth - 2), height: HEIGHT_PX };
    return { ...size, legend: { show: false }, cursor: { show: false }, axes: [axis, { ...axis, size: 60 }], series: [{}, ...curves] };
  }

  fit() {
    if (this.plot && this.clientWidth) this.plot.setSize({ width: Math.max(200, this.clientWidth - 2), height: HEIGHT_PX });
  }
}

const shown = (value, unit) =>
  value === null || value === undefined ? "–" : `${Number(value.toPrecision(3)).toLocaleString()}${unit ? ` ${unit}` : ""}`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

customElements.define("time-chart", TimeChart);
