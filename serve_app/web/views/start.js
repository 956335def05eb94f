/** The first view: what this server can do now, and a door to each other view. */
import { Element, html, nothing } from "../element.js";
import { submit } from "../server/jobs.js";
import { speech } from "../server/speech.js";
import { health } from "../server/status.js";
import { kinds, start as strings } from "../strings.js";

class StartView extends Element {
  static properties = { who: {}, path: {}, health: { state: true }, error: { state: true }, making: { state: true } };

  constructor() {
    super();
    this.who = null;
    this.path = [];
    this.health = null;
    this.error = null;
    this.making = false;
  }

  connectedCallback() {
    super.connectedCallback();
    this.load();
  }

  load() {
    return this.attempt(async () => {
      this.health = await health();
    });
  }

  render() {
    return html`
      <h1>${strings.title}</h1>
      <p class="soft">${strings.intro}</p>
      <nav class="doors" aria-label=${strings.title}>${Object.entries(strings.go).map((it) => this.door(...it))}</nav>
      ${this.sample()} ${this.error ? html`<error-notice .error=${this.error} .retry=${() => this.load()}></error-notice>` : nothing}
      ${this.health ? this.engines(this.health.engines) : nothing}
    `;
  }

  /** @param {string} view @param {string[]} texts */
  door(view, [title, what]) {
    return html`<a class="door" href="#/${view}"><strong>${title}</strong>${what}</a>`;
  }

  /** For people who have no recording yet. */
  sample() {
    if (!["speak", "jobs"].every((scope) => this.who?.scopes.includes(scope))) return nothing;
    return html`
      <section class="card row spread" aria-labelledby="sample">
        <div>
          <h2 id="sample">${strings.sample}</h2>
          <p class="soft">${strings.sampleWhy}</p>
        </div>
        <button id="make-sample" ?disabled=${this.making} @click=${this.make}>${this.making ? strings.sampleMaking : strings.sampleMake}</button>
      </section>
    `;
  }

  async make() {
    this.making = true;
    await this.attempt(async () => {
      const spoken = await speech({ input: strings.sampleText, response_format: "wav" });
      const job = await submit(spoken, strings.sampleName);
      location.hash = `#/recordings/${job.id}`;
    });
    this.making = false;
  }

  engines(engines) {
    return html`
      <section class="card" aria-labelledby="engines">
        <h2 id="engines">${strings.engines}</h2>
        <dl class="pairs">
          ${Object.entries(engines).map(
            ([kind, name]) => html`<dt>${kinds[kind] ?? kind}</dt>
              <dd><strong>${name}</strong> <span class="soft">${strings.honesty[name] ?? ""}</span></dd>`,
          )}
        </dl>
      </section>
    `;
  }
}

customElements.define("start-view", StartView);
