/** The first view: what this server can do now, and a door to each other view. */
import { Element, html, nothing } from "../element.js";
import { health } from "../server/status.js";
import { start as strings } from "../strings.js";

class StartView extends Element {
  static properties = { who: {}, path: {}, health: { state: true }, error: { state: true } };

  constructor() {
    super();
    this.who = null;
    this.path = [];
    this.health = null;
    this.error = null;
  }

  connectedCallback() {
    super.connectedCallback();
    this.load();
  }

  async load() {
    try {
      this.health = await health();
      this.error = null;
    } catch (error) {
      this.error = error;
    }
  }

  render() {
    return html`
      <h1>${strings.title}</h1>
      <p class="soft">${strings.intro}</p>
      <nav class="doors" aria-label=${strings.title}>${Object.entries(strings.go).map((it) => this.door(...it))}</nav>
      ${this.error ? html`<error-notice .error=${this.error} .retry=${() => this.load()}></error-notice>` : nothing}
      ${this.health ? this.engines(this.health.engines) : nothing}
    `;
  }

  /** @param {string} view @param {string[]} texts */
  door(view, [title, what]) {
    return html`<a class="door" href="#/${view}"><strong>${title}</strong>${what}</a>`;
  }

  engines(engines) {
    return html`
      <section class="card" aria-labelledby="engines">
        <h2 id="engines">${strings.engines}</h2>
        <dl class="pairs">
          ${Object.entries(engines).map(
            ([kind, name]) => html`<dt>${strings.kinds[kind] ?? kind}</dt>
              <dd><strong>${name}</strong> <span class="soft">${strings.honesty[name] ?? ""}</span></dd>`,
          )}
        </dl>
      </section>
    `;
  }
}

customElements.define("start-view", StartView);
