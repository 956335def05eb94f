/** What went wrong and what to do, and short messages that pass. */
import { Element, html, nothing } from "../element.js";
import { app as strings } from "../strings.js";

const TOAST_MS = 4_000;
const SHOWN_TOASTS = 3;
const explanations = new WeakMap();

/**
 * An error for `<error-notice>` with a message in plain words, if its code has some: the same object for the same
 * error, because a new one would begin the countdown again.
 * @param {any} error @param {Record<string, string>} problems by code
 */
export function explained(error, problems) {
  const { code, retryAfterS } = error;
  if (!explanations.has(error)) explanations.set(error, { code, retryAfterS, message: problems[code] ?? error.message });
  return explanations.get(error);
}

/** An error in plain words; with `retry` it counts down what the server asked for, or has a button. */
class ErrorNotice extends Element {
  static properties = { error: {}, retry: {}, left: { state: true } };

  constructor() {
    super();
    /** @type {any} */
    this.error = null;
    /** @type {(() => void) | null} */
    this.retry = null;
    this.left = 0;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.clock = undefined;
  }

  willUpdate(changed) {
    if (!changed.has("error")) return;
    this.stop();
    this.left = this.retry ? (this.error?.retryAfterS ?? 0) : 0;
    if (this.left) this.clock = setInterval(() => this.count(), 1_000);
  }

  count() {
    this.left -= 1;
    if (this.left > 0) return;
    this.stop();
    this.retry();
  }

  stop() {
    clearInterval(this.clock);
    this.clock = undefined;
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.stop();
  }

  render() {
    if (!this.error) return nothing;
    return html`
      <div class="notice" role="alert" data-code=${this.error.code ?? "error"}>
        <p>${this.error.message}</p>
        ${this.left > 0 ? html`<p class="countdown">${strings.retryIn(this.left)}</p>` : nothing}
        ${this.retry ? html`<button @click=${this.again}>${strings.tryAgain}</button>` : nothing}
      </div>
    `;
  }

  again() {
    this.stop();
    this.retry();
  }
}

/** Where toasts appear; screen readers read them. */
class ToastRegion extends Element {
  static properties = { toasts: { state: true } };

  constructor() {
    super();
    this.toasts = [];
    this.onToast = (event) => this.show(event.detail);
  }

  connectedCallback() {
    super.connectedCallback();
    addEventListener("voxray-toast", this.onToast);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    removeEventListener("voxray-toast", this.onToast);
  }

  show(toast) {
    this.toasts = [...this.toasts, toast].slice(-SHOWN_TOASTS);
    setTimeout(() => this.drop(toast), toast.lasts ?? TOAST_MS);
  }

  drop(toast) {
    this.toasts = this.toasts.filter((it) => it !== toast);
  }

  render() {
    return html`<div class="toasts" role="status" aria-live="polite">${this.toasts.map((it) => this.toast(it))}</div>`;
  }

  toast(it) {
    const act = () => {
      this.drop(it);
      it.act();
    };
    return html`<div class="toast">${it.text} ${it.act ? html`<button class="quiet" @click=${act}>${it.label}</button>` : nothing}</div>`;
  }
}

/**
 * Shows a text for a moment.
 * @param {string} text
 * @param {{label?: string, act?: () => void, lasts?: number}} [offer] a button, as for undo; ms that it lasts
 */
export function toast(text, offer = {}) {
  dispatchEvent(new CustomEvent("voxray-toast", { detail: { text, ...offer } }));
}

customElements.define("error-notice", ErrorNotice);
customElements.define("toast-region", ToastRegion);
