/** How long the stages of each turn took, as bars and as a table; measured in this page. */
import { Element, html, nothing } from "../element.js";
import { conversation as strings } from "../strings.js";

const SHOWN = 5;
const STAGES = ["words", "token", "audio"];

class WaterFall extends Element {
  static properties = { stages: {} };

  constructor() {
    super();
    /** @type {import("../conversation/turns.js").Stages[]} */
    this.stages = [];
  }

  render() {
    const shown = this.stages.filter((it) => it.audio ?? it.token).slice(-SHOWN);
    if (!shown.length) return nothing;
    const longest = Math.max(...shown.flatMap((it) => STAGES.map((name) => (it[name] ?? it.ended) - it.ended)), 1);
    return html`
      <section class="card" aria-labelledby="stages-title">
        <h2 id="stages-title">${strings.stages}</h2>
        <div class="scroll" tabindex="0" role="group" aria-labelledby="stages-title">
          <table class="waterfall">
            <thead>
              <tr><th scope="col">${strings.turn}</th>${STAGES.map((name) => html`<th scope="col">${strings.stage[name]}</th>`)}</tr>
            </thead>
            <tbody>${shown.map((it, i) => this.row(it, this.stages.length - shown.length + i + 1, longest))}</tbody>
          </table>
        </div>
        <p class="hint">${strings.measured}</p>
      </section>
    `;
  }

  row(turn, number, longest) {
    return html`
      <tr>
        <th scope="row">${number}</th>
        ${STAGES.map((name) => {
          const ms = turn[name] === undefined ? null : turn[name] - turn.ended;
          return html`<td class="number">${ms === null ? "–" : html`<meter min="0" max=${longest} .value=${ms} aria-hidden="true"></meter> ${Math.round(ms)} ms`}</td>`;
        })}
      </tr>
    `;
  }
}

customElements.define("water-fall", WaterFall);
