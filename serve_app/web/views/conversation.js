/** A spoken conversation with the server. */
import { microphones } from "../audio/capture.js";
import { Talk } from "../conversation/talk.js";
import { download, stamp } from "../download.js";
import { Element, html, nothing, repeat } from "../element.js";
import { explained } from "../parts/notice.js";
import { voices } from "../server/speech.js";
import { live, conversation as strings } from "../strings.js";
import "../parts/keep_tape.js";
import "../parts/level_meter.js";
import "../parts/waterfall.js";

const EXAMPLE =
  '[{"type": "function", "name": "weather", "description": "The weather in a town", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}}]';
const PROBLEMS = { ...live.problems, ...strings.problems };
const BOTH_VOICES = { channels: "speakers" };
const TYPING = "input, textarea, select, button:not(#push), a";

class ConversationView extends Element {
  static properties = {
    who: {},
    path: {},
    known: { state: true },
    devices: { state: true },
    wrong: { state: true },
  };

  constructor() {
    super();
    this.who = null;
    this.path = [];
    /** @type {any} what GET v1/audio/voices says */
    this.known = null;
    /** @type {MediaDeviceInfo[]} */
    this.devices = [];
    this.wrong = "";
    /** @type {Talk | null} */
    this.talk = null;
    this.onKeyDown = (event) => this.key(event, true);
    this.onKeyUp = (event) => this.key(event, false);
  }

  connectedCallback() {
    super.connectedCallback();
    addEventListener("keydown", this.onKeyDown);
    addEventListener("keyup", this.onKeyUp);
    this.load();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    removeEventListener("keydown", this.onKeyDown);
    removeEventListener("keyup", this.onKeyUp);
    this.talk?.end();
  }

  async load() {
    this.devices = await microphones();
    this.known = await voices().catch(() => null);
  }

  get active() {
    return this.talk && this.talk.state !== "over";
  }

  begin(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const tools = this.tools(String(form.get("tools")));
    if (!tools) return;
    const text = (name) => String(form.get(name) ?? "").trim();
    const wanted = {
      instructions: text("instructions"),
      voice: text("voice"),
      speed: Number(form.get("speed") ?? 1),
      tools,
      pushToTalk: form.has("push"),
      deviceId: text("deviceId"),
    };
    this.open(wanted);
  }

  /** Goes on below what was said before. @param {import("../conversation/talk.js").Wanted} wanted */
  open(wanted) {
    this.talk = new Talk(wanted, this.who.needs_key, () => this.requestUpdate(), this.talk);
    this.talk.start().then(() => this.load());
    this.requestUpdate();
  }

  /** Null for what is no list of tools. */
  tools(text) {
    this.wrong = "";
    if (!text.trim()) return [];
    try {
      const found = JSON.parse(text);
      if (Array.isArray(found)) return found;
    } catch {}
    this.wrong = strings.wrongTools;
    return null;
  }

  render() {
    return html`
      <h1>${strings.title}</h1>
      <div class="columns">
        <div>
          <section class="card" aria-label=${strings.title}>${this.status()} ${this.problem()} ${this.items()} ${this.active ? this.input() : nothing} ${this.saving()}</section>
          <water-fall .stages=${[...(this.talk?.turns.stages ?? [])]}></water-fall>
        </div>
        ${this.options()}
      </div>
    `;
  }

  status() {
    const { state, level, muted, wanted } = this.talk ?? { state: "", level: 0, muted: false, wanted: null };
    return html`
      <div class="row spread">
        <p class="state" role="status" data-state=${state}>${strings.states[state] ?? strings.ready}</p>
        <div class="row">
          ${
            this.active
              ? html`
                <button id="mute" aria-pressed=${muted} @click=${() => this.talk.mute(!muted)}>${muted ? strings.unmute : strings.mute}</button>
                ${["thinking", "speaking"].includes(state) ? html`<button id="interrupt" @click=${() => this.talk.stopReply()}>${strings.interrupt}</button>` : nothing}
                <button class="danger" id="end" @click=${() => this.talk.end()}>${strings.end}</button>
              `
              : html`<button class="primary" id="begin" form="talk-options">${strings.begin}</button>`
          }
        </div>
      </div>
      ${this.active ? html`<level-meter .level=${level} .label=${live.level}></level-meter>` : nothing}
      ${this.active && wanted.pushToTalk ? this.pushButton() : nothing}
    `;
  }

  pushButton() {
    const hold = (held) => () => this.talk.hold(held);
    return html`<button class="primary push" id="push" aria-pressed=${this.talk.held} @pointerdown=${hold(true)} @pointerup=${hold(false)} @pointerleave=${hold(false)}>${strings.push}</button>`;
  }

  problem() {
    const error = this.talk?.error;
    if (!error) return nothing;
    const again = this.active ? null : () => this.open(this.talk.wanted);
    return html`<error-notice .error=${explained(error, PROBLEMS)} .retry=${again}></error-notice>`;
  }

  items() {
    const items = this.talk?.turns.items ?? [];
    return html`
      <div class="said" role="log" aria-label=${strings.said} tabindex="0">
        ${items.length ? nothing : html`<p class="soft">${strings.empty}</p>`}
        ${repeat(
          items,
          (it) => it.id,
          (it) => this.item(it),
        )}
      </div>
    `;
  }

  item(it) {
    if (it.call) return this.call(it);
    const text = it.failed ? html`<em>${strings.notUnderstood}</em>` : this.textOf(it);
    return html`<p class="item ${it.role} ${it.done ? "" : "partial"}" data-role=${it.role} dir="auto"><b>${strings.roles[it.role]}</b> ${text}</p>`;
  }

  /** Of an interrupted reply the part that was not heard is crossed out. */
  textOf({ text, heard, done }) {
    if (heard === undefined || heard === null) return text || (done ? nothing : "…");
    return html`<span class="heard">${heard}</span><del class="unheard" title=${strings.unheard}>${text.startsWith(heard) ? text.slice(heard.length) : ` ${text}`}</del>`;
  }

  call(it) {
    const { name, arguments: given, output } = it.call;
    return html`
      <form class="item tool" data-role="tool" @submit=${(event) => this.answer(event, it)}>
        <p><b>${strings.calls(name)}</b> <code dir="ltr">${given}</code></p>
        ${output !== undefined ? html`<p class="soft" dir="auto">${strings.answered} ${output}</p>` : it.past ? nothing : html`<div class="row end"><label class="field">${strings.answer}<input name="output" required autocomplete="off" /></label><button>${strings.send}</button></div>`}
      </form>
    `;
  }

  answer(event, item) {
    event.preventDefault();
    this.talk.answer(item, String(new FormData(event.target).get("output")));
  }

  input() {
    return html`
      <form class="row end" id="type" @submit=${this.typed}>
        <label class="field wide">${strings.type}<input name="text" required maxlength="4000" autocomplete="off" dir="auto" /></label>
        <button>${strings.send}</button>
      </form>
    `;
  }

  typed(event) {
    event.preventDefault();
    this.talk.say(String(new FormData(event.target).get("text")));
    event.target.reset();
  }

  saving() {
    if (!this.talk?.turns.items.length) return nothing;
    const name = strings.fileName(stamp());
    return html`
      <div class="row">
        <button id="as-text" @click=${() => download(new Blob([this.talk.turns.text], { type: "text/plain" }), `${name}.txt`)}>${strings.asText}</button>
        <button @click=${() => download(new Blob([JSON.stringify(this.talk.turns, null, 2)], { type: "application/json" }), `${name}.json`)}>json</button>
        ${this.active || !this.who.scopes.includes("jobs") ? nothing : this.keep()}
      </div>
    `;
  }

  /** Its text goes on in the next conversation, and so does its tape: that is another recording then. */
  keep() {
    const name = (at) => `${strings.fileName(at)}.wav`;
    return html`<keep-tape .tape=${this.talk.tape} .label=${strings.keep} .name=${name} .options=${BOTH_VOICES}></keep-tape>`;
  }

  options() {
    const options = this.known?.options ?? [];
    return html`
      <form class="card" id="talk-options" @submit=${this.begin}>
        <fieldset ?disabled=${this.active}>
          <label class="field">${live.device}
            <select name="deviceId"><option value="">${live.defaultDevice}</option>${this.devices.filter((it) => it.deviceId).map((it, i) => html`<option value=${it.deviceId}>${it.label || live.unnamed(i + 1)}</option>`)}</select>
          </label>
          <label class="check"><input type="checkbox" name="push" />${strings.pushToTalk}</label>
          <label class="field">${strings.instructions}<textarea name="instructions" maxlength="4000" dir="auto"></textarea></label>
          <label class="field">${strings.voice}
            <select name="voice"><option value="">${strings.defaultVoice}</option>${(this.known?.voices ?? []).map((it) => html`<option value=${it.id}>${it.id} (${it.language})</option>`)}</select>
          </label>
          ${options.includes("speed") ? html`<label class="field">${strings.speed}<input name="speed" type="number" min="0.5" max="2" step="0.05" value="1" /></label>` : nothing}
          <details>
            <summary>${strings.tools}</summary>
            <label class="field">${strings.toolsJson}<textarea name="tools" spellcheck="false" dir="ltr" placeholder=${EXAMPLE}></textarea></label>
            ${this.wrong ? html`<p class="problem" role="alert">${this.wrong}</p>` : nothing}
          </details>
        </fieldset>
      </form>
    `;
  }

  /** The space bar is the button of push-to-talk. */
  key(event, held) {
    if (event.key !== " " || !this.active || !this.talk.wanted.pushToTalk || event.target.closest?.(TYPING)) return;
    event.preventDefault();
    this.talk.hold(held);
  }
}

customElements.define("conversation-view", ConversationView);
