/** What tenants have used, by day. */
import { Element, html, nothing } from "../element.js";
import { usage } from "../server/status.js";
import { server as strings } from "../strings.js";

class UsageTable extends Element {
  static properties = { rows: { state: true }, error: { state: true } };

  constructor() {
    super();
    /** @type {any[]} */
    this.rows = [];
    this.error = null;
  }

  connectedCallback() {
    super.connectedCallback();
    this.attempt(async () => {
      this.rows = (await usage()).data;
    });
  }

  render() {
    if (this.error) return html`<error-notice .error=${this.error}></error-notice>`;
    if (!this.rows.length) return html`<p class="soft">${strings.noUsage}</p>`;
    return html`
      <div class="scroll" tabindex="0" role="group" aria-label=${strings.usage}>
        <table>
          <thead>
            <tr>${strings.usageColumns.map((it) => html`<th scope="col">${it}</th>`)}</tr>
          </thead>
          <tbody>${this.rows.map((it) => this.row(it))}</tbody>
        </table>
      </div>
    `;
  }

  row(it) {
    const numbers = [Math.round(it.audio_seconds / 60), it.characters, it.tokens, it.jobs, it.requests];
    return html`
      <tr>
        <th scope="row">${it.day}</th>
        <td dir="auto">${it.tenant ?? nothing}</td>
        ${numbers.map((number) => html`<td class="number">${number.toLocaleString()}</td>`)}
      </tr>
    `;
  }
}

customElements.define("usage-table", UsageTable);
