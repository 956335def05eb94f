/** Where files come in: dropped, pasted or picked; and how far each is. */
import { Element, html, nothing, repeat } from "../element.js";
import { UploadQueue } from "../server/uploads.js";
import { recordings as strings } from "../strings.js";
import { languageField } from "./language_field.js";

class UploadArea extends Element {
  static properties = { over: { state: true } };

  constructor() {
    super();
    this.over = false;
    this.queue = new UploadQueue(
      () => this.requestUpdate(),
      (job) => this.dispatchEvent(new CustomEvent("uploaded", { detail: job })),
    );
    this.onPaste = (event) => this.pasted(event);
    this.onLeave = (event) => this.queue.active && event.preventDefault();
  }

  connectedCallback() {
    super.connectedCallback();
    addEventListener("paste", this.onPaste);
    addEventListener("beforeunload", this.onLeave);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    removeEventListener("paste", this.onPaste);
    if (!this.queue.active) removeEventListener("beforeunload", this.onLeave);
  }

  render() {
    return html`
      <div class="drop ${this.over ? "over" : ""}" @dragover=${this.drag} @dragleave=${() => (this.over = false)} @drop=${this.dropped}>
        <p>${strings.drop}</p>
        <div class="row">
          <label class="button primary">${strings.pick}<input class="sr" id="files" type="file" multiple accept="audio/*,video/*" @change=${this.picked} /></label>
          <label class="button">${strings.pickFolder}<input class="sr" type="file" webkitdirectory @change=${this.picked} /></label>
        </div>
        ${this.options()}
      </div>
      <ul class="plain uploads" aria-label=${strings.uploads}>
        ${repeat(
          this.queue.uploads,
          (it) => it,
          (it) => this.row(it),
        )}
      </ul>
    `;
  }

  options() {
    return html`
      <details>
        <summary>${strings.options}</summary>
        <form class="row end" id="job-options" @submit=${(event) => event.preventDefault()}>
          ${languageField()}
          <label class="field">${strings.speakers}<input name="speakers" type="number" min="1" max="20" placeholder=${strings.anySpeakers} /></label>
          <label class="field">${strings.hotwords}<input name="hotwords" autocomplete="off" /></label>
          <label class="check"><input type="checkbox" name="denoise" value="true" />${strings.denoise}</label>
        </form>
      </details>
    `;
  }

  row(upload) {
    const { name, state, sent, size, error } = upload;
    return html`
      <li class="upload" data-state=${state}>
        <div class="row spread">
          <b dir="auto">${name}</b>
          <span class="row">
            <span class="soft number">${strings.uploadState(state, sent, size, upload.speed)}</span>
            ${["sending", "retrying"].includes(state) ? html`<button @click=${() => upload.pause()}>${strings.pause}</button>` : nothing}
            ${["paused", "failed"].includes(state) ? html`<button @click=${() => this.queue.resume(upload)}>${strings.resume}</button>` : nothing}
            <button @click=${() => this.queue.cancel(upload)} aria-label=${strings.cancelUpload(name)}>${strings.cancel}</button>
          </span>
        </div>
        <progress max=${size} .value=${sent} aria-label=${name}></progress>
        ${error ? html`<p class="soft" role="status">${error.message}</p>` : nothing}
      </li>
    `;
  }

  get wanted() {
    const form = new FormData(/** @type {HTMLFormElement} */ (this.querySelector("#job-options")));
    const given = [...form].map(([name, value]) => [name, String(value).trim()]).filter(([, value]) => value);
    const options = Object.fromEntries(given);
    if (options.hotwords)
      options.hotwords = options.hotwords
        .split(",")
        .map((it) => it.trim())
        .join("\n");
    return options;
  }

  drag(event) {
    event.preventDefault();
    this.over = true;
  }

  async dropped(event) {
    event.preventDefault();
    this.over = false;
    this.queue.add(await filesOf(event.dataTransfer), this.wanted);
  }

  picked(event) {
    this.queue.add([...event.target.files].filter(isSound), this.wanted);
    event.target.value = "";
  }

  pasted(event) {
    const files = [...event.clipboardData.files];
    if (files.length) this.queue.add(files, this.wanted);
  }
}

/** Of a folder only what can be sound; what a person picks one by one the server judges. */
const isSound = (file) => !file.webkitRelativePath || /^(audio|video)\//.test(file.type);

/** Files and those in folders that were dropped. @param {DataTransfer} dropped */
async function filesOf(dropped) {
  const entries = [...dropped.items].map((it) => it.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...dropped.files];
  const found = await Promise.all(entries.map((it) => filesIn(it, it.isDirectory)));
  return found.flat();
}

async function filesIn(entry, inFolder) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return !inFolder || /^(audio|video)\//.test(file.type) ? [file] : [];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const one of some) found.push(...(await filesIn(one, true)));
  }
}

customElements.define("upload-area", UploadArea);
