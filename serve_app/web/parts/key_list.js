/** The keys of this server: who may do what. A new key is shown once. */
import { copy } from "../download.js";
import { Element, html, nothing } from "../element.js";
import { createKey, keys, revokeKey } from "../server/identity.js";
import { app, server as strings } from "../strings.js";
import { toast } from "./notice.js";

const SCOPES = ["transcribe", "jobs", "speak", "chat", "realtime", "admin"];
const DAY_S = 86_400;

class KeyList extends Element {
  static properties = { listed: { state: true }, made: { state: true }, error: { state: true }, asked: { state: true } };

  constructor() {
    super();
    /** @type {any[] | null} */
    this.listed = null;
    /** @type {any} with its secret, until the page is left */
    this.made = null;
    this.error = null;
    /** @type {string} the key that is about to be revoked */
    this.asked = "";
  }

  connectedCallback() {
    super.connectedCallback();
    this.load();
  }

  load() {
    return this.attempt(async () => {
      this.listed = (await keys()).data;
    });
  }

  render() {
    return html`
      ${this.error ? html`<error-notice .error=${this.error}></error-notice>` : nothing} ${this.made ? this.secret() : nothing}
      ${this.listed?.length ? this.table() : nothing} ${this.listed ? this.form() : nothing}
    `;
  }

  secret() {
    return html`
      <div class="notice calm" role="status">
        <p>${strings.keyOnce}</p>
        <p><code class="secret">${this.made.secret}</code></p>
        <button @click=${this.copied}>${strings.copy}</button>
      </div>
    `;
  }

  table() {
    return html`
      <div class="scroll" tabindex="0" role="group" aria-label=${strings.keys}>
        <table id="key-table">
          <thead>
            <tr>${strings.keyColumns.map((it) => html`<th scope="col">${it}</th>`)}<th><span class="sr">${strings.revoke}</span></th></tr>
          </thead>
          <tbody>${this.listed.map((it) => this.row(it))}</tbody>
        </table>
      </div>
    `;
  }

  row(key) {
    return html`
      <tr>
        <th scope="row" dir="auto">${key.name || key.id}</th>
        <td dir="auto">${key.tenant}</td>
        <td>${key.scopes.join(", ")}</td>
        <td>${day(key.last_used)}</td>
        <td>${day(key.expires)}</td>
        <td>${key.state === "valid" ? this.revocation(key) : html`<span class="badge">${strings.keyStates[key.state]}</span>`}</td>
      </tr>
    `;
  }

  revocation({ id }) {
    if (this.asked !== id) return html`<button data-key=${id} @click=${() => (this.asked = id)}>${strings.revoke}</button>`;
    return html`
      <button class="danger" data-sure=${id} @click=${() => this.revoke(id)}>${strings.revokeSure}</button>
      <button class="quiet" @click=${() => (this.asked = "")}>${strings.cancel}</button>
    `;
  }

  form() {
    return html`
      <form class="row end" id="new-key" @submit=${this.create}>
        <label class="field">${strings.keyName}<input name="name" required maxlength="80" autocomplete="off" /></label>
        <label class="field">${strings.tenant}<input name="tenant" value="default" required maxlength="63" autocomplete="off" /></label>
        <label class="field">${strings.days}<input name="days" type="number" min="1" max="3650" /></label>
        <fieldset class="row">
          <legend class="sr">${strings.scopes}</legend>
          ${SCOPES.map((it) => html`<label class="check"><input type="checkbox" name="scopes" value=${it} ?checked=${it !== "admin"} />${it}</label>`)}
        </fieldset>
        <button>${strings.create}</button>
      </form>
    `;
  }

  create(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const days = Number(form.get("days"));
    const lasts = days ? { expires_in_s: days * DAY_S } : {};
    const wanted = { name: form.get("name"), tenant: form.get("tenant"), scopes: form.getAll("scopes"), ...lasts };
    return this.attempt(async () => {
      this.made = await createKey(wanted);
      event.target.reset();
      await this.load();
    });
  }

  revoke(id) {
    return this.attempt(async () => {
      await revokeKey(id);
      this.asked = "";
      await this.load();
    });
  }

  async copied() {
    await copy(this.made.secret);
    toast(app.copied);
  }
}

/** @param {number | null} seconds since 1970 */
const day = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleDateString() : "–");

customElements.define("key-list", KeyList);
