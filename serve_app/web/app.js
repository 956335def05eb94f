/** The page: which view is shown, who is signed in, and what went wrong. */
import { Element, html, nothing } from "./element.js";
import { SIGNED_OUT } from "./server/http.js";
import { signOut, whoAmI } from "./server/identity.js";
import { app as strings } from "./strings.js";
import "./parts/notice.js";
import "./views/sign_in.js";

/**
 * Each view is a file, loaded when it is first shown, and an element of that name. It is there for who has one of its
 * scopes; the start and an empty list are for everybody.
 */
const VIEWS = {
  start: { element: "start-view", scopes: [] },
  live: { element: "live-view", scopes: ["transcribe"] },
  recordings: { element: "recordings-view", scopes: ["jobs"] },
  conversation: { element: "conversation-view", scopes: ["realtime"] },
  voices: { element: "voices-view", scopes: ["speak"] },
  server: { element: "server-view", scopes: ["admin"] },
};

class App extends Element {
  static properties = { view: { state: true }, path: { state: true }, who: { state: true }, error: { state: true } };

  constructor() {
    super();
    this.view = "";
    this.path = [];
    this.who = null;
    this.error = null;
    /** @type {HTMLElement | null} */
    this.shown = null;
    this.onRoute = () => this.route();
    this.onSignedOut = () => this.identify();
  }

  connectedCallback() {
    super.connectedCallback();
    addEventListener("hashchange", this.onRoute);
    addEventListener(SIGNED_OUT, this.onSignedOut);
    this.identify();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    removeEventListener("hashchange", this.onRoute);
    removeEventListener(SIGNED_OUT, this.onSignedOut);
  }

  async identify() {
    try {
      this.who = await whoAmI();
      this.error = null;
      await this.route();
    } catch (error) {
      this.error = error;
    }
  }

  /** The address after `#/`: the view, and what it shows. */
  async route() {
    const [name, ...path] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    const view = name || "start";
    if (VIEWS[view]) await import(`./views/${view}.js`);
    this.view = view;
    this.path = path;
    document.title = VIEWS[view] && view !== "start" ? `${strings.views[view]} – ${strings.title}` : strings.title;
  }

  isFor({ scopes }) {
    return !scopes.length || scopes.some((scope) => this.who.scopes.includes(scope));
  }

  get names() {
    return Object.keys(VIEWS).filter((name) => this.isFor(VIEWS[name]));
  }

  render() {
    return html`
      <a class="skip" href="#content" @click=${this.skip}>${strings.skip}</a>
      <header class="top">
        <a class="brand" href="#/"><img src="web/icon.svg" alt="" width="28" height="28" />${strings.title}</a>
        ${this.who?.signed_in ? this.navigation() : nothing}
      </header>
      <main id="content" tabindex="-1">${this.content()}</main>
      <toast-region></toast-region>
    `;
  }

  navigation() {
    return html`
      <nav aria-label=${strings.navigation}>
        ${this.names.map((name) => {
          const current = name === this.view ? "page" : nothing;
          return html`<a href="#/${name}" aria-current=${current}>${strings.views[name]}</a>`;
        })}
      </nav>
      ${this.who.needs_key ? html`<button class="quiet" @click=${this.leave} title=${strings.signedInAs(this.who.tenant)}>${strings.signOut}</button>` : nothing}
    `;
  }

  content() {
    if (this.error) return html`<error-notice .error=${this.error} .retry=${() => this.identify()}></error-notice>`;
    if (!this.who) return html`<p class="loading">${strings.loading}</p>`;
    if (!this.who.signed_in) return this.signIn();
    if (!this.names.includes(this.view)) return html`<p>${this.view ? strings.notFound : nothing}</p>`;
    return this.viewed();
  }

  /** What the view has is not lost when a key or a session ends. */
  signIn() {
    return html`<sign-in-view @signed-in=${() => this.identify()}></sign-in-view>${this.shown ?? nothing}`;
  }

  /** The view's element; another path of the same view does not make a new one. */
  viewed() {
    if (this.shown?.localName !== VIEWS[this.view].element) {
      this.shown = document.createElement(VIEWS[this.view].element);
    }
    Object.assign(this.shown, { who: this.who, path: this.path });
    return this.shown;
  }

  skip(event) {
    event.preventDefault();
    document.getElementById("content").focus();
  }

  async leave() {
    await signOut();
    this.shown = null;
    await this.identify();
  }
}

customElements.define("voxray-app", App);
