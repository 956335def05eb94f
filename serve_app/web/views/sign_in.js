/** Asks for an API key, and exchanges it for a session. */
import { Element, html, nothing } from "../element.js";
import { signIn } from "../server/identity.js";
import { signIn as strings } from "../strings.js";

class SignInView extends Element {
  static properties = { error: { state: true }, busy: { state: true } };

  constructor() {
    super();
    this.error = null;
    this.busy = false;
  }

  render() {
    return html`
      <form class="card narrow" @submit=${this.submit}>
        <h1>${strings.title}</h1>
        <p>${strings.why}</p>
        <label class="field">
          ${strings.key}
          <input name="key" type="password" required autocomplete="off" spellcheck="false" autofocus />
        </label>
        ${this.error ? html`<error-notice .error=${this.error}></error-notice>` : nothing}
        <button class="primary" ?disabled=${this.busy}>${strings.submit}</button>
        <p class="hint">${strings.where}</p>
      </form>
    `;
  }

  async submit(event) {
    event.preventDefault();
    const form = event.target;
    this.busy = true;
    try {
      await signIn(String(new FormData(form).get("key")).trim());
      form.reset();
      this.dispatchEvent(new CustomEvent("signed-in", { bubbles: true }));
    } catch (error) {
      this.error = error;
    } finally {
      this.busy = false;
    }
  }
}

customElements.define("sign-in-view", SignInView);
