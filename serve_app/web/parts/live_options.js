/** What to listen to, and what helps the recogniser. A button elsewhere submits it; fires `begin` in the click that browsers want to see. */
import { Element, html, nothing } from "../element.js";
import { live as strings } from "../strings.js";
import { languageField } from "./language_field.js";

class LiveOptions extends Element {
  static properties = { devices: {}, disabled: { type: Boolean }, source: { state: true } };

  constructor() {
    super();
    /** @type {MediaDeviceInfo[]} */
    this.devices = [];
    this.disabled = false;
    this.source = "microphone";
  }

  render() {
    return html`
      <form class="card" id="live-options" @submit=${this.submit}>
        <label class="field">
          ${strings.source}
          <select name="source" ?disabled=${this.disabled} @change=${(event) => (this.source = event.target.value)}>
            ${Object.entries(strings.sources).map(([value, label]) => html`<option value=${value} ?selected=${value === this.source}>${label}</option>`)}
          </select>
        </label>
        ${this.source === "microphone" ? this.microphone() : nothing} ${this.source === "file" ? this.file() : nothing}
        ${languageField(this.disabled)}
        <label class="field">
          ${strings.hotwords}
          <input name="hotwords" ?disabled=${this.disabled} autocomplete="off" aria-describedby="hotwords-hint" />
        </label>
        <p class="hint" id="hotwords-hint">${strings.hotwordsHint}</p>
      </form>
    `;
  }

  microphone() {
    const named = this.devices.filter((it) => it.deviceId);
    return html`
      <label class="field">
        ${strings.device}
        <select name="deviceId" ?disabled=${this.disabled}>
          <option value="">${strings.defaultDevice}</option>
          ${named.map((it, i) => html`<option value=${it.deviceId}>${it.label || strings.unnamed(i + 1)}</option>`)}
        </select>
      </label>
    `;
  }

  file() {
    return html`<label class="field">${strings.file}<input name="file" type="file" accept="audio/*,video/*" required ?disabled=${this.disabled} /></label>`;
  }

  submit(event) {
    event.preventDefault();
    const form = Object.fromEntries(new FormData(event.target));
    const hotwords = String(form.hotwords)
      .split(",")
      .map((it) => it.trim());
    const detail = { ...form, hotwords: hotwords.filter(Boolean) };
    this.dispatchEvent(new CustomEvent("begin", { detail }));
  }
}

customElements.define("live-options", LiveOptions);
