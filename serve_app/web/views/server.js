/** The server's pulse: figures now, curves of the last hour, replicas, models, usage and keys. */
import { Element, html, nothing } from "../element.js";
import { history, status } from "../server/status.js";
import { kinds, server as strings } from "../strings.js";
import "../parts/key_list.js";
import "../parts/time_chart.js";
import "../parts/usage_table.js";

const EVERY_MS = 5_000;
const SHOWN_S = 3_600;
const MEBIBYTE = 1 << 20;

/** Each chart: its series by the names of `metrics/history`; units as the text after a number. */
const CHARTS = [
  { name: "sessions", series: ["sessions", "conversations"] },
  { name: "latency", series: ["p50_ms", "p99_ms"], unit: "ms" },
  { name: "refused", series: ["refused"] },
  { name: "quality", series: ["quality_level"] },
  { name: "queue", series: ["jobs_queued", "jobs_running"] },
  { name: "cpu", series: ["cpu_percent"], unit: "%" },
  { name: "memory", series: ["memory_bytes"], unit: "MiB", divisor: MEBIBYTE },
  { name: "gpu", series: ["gpu_percent"], unit: "%" },
  { name: "gpuMemory", series: ["gpu_memory_bytes"], unit: "MiB", divisor: MEBIBYTE },
];

class ServerView extends Element {
  static properties = { who: {}, path: {}, status: { state: true }, samples: { state: true }, error: { state: true } };

  constructor() {
    super();
    this.who = null;
    this.path = [];
    this.status = null;
    /** @type {any[]} */
    this.samples = [];
    this.error = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  connectedCallback() {
    super.connectedCallback();
    this.load();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.timer);
  }

  /** Again and again while the view is shown; less often while the page is hidden, as timers are. */
  async load() {
    clearTimeout(this.timer);
    await this.attempt(async () => {
      const [now, past] = await Promise.all([status(), history(SHOWN_S)]);
      this.status = now;
      this.samples = past.samples;
    });
    if (this.isConnected) this.timer = setTimeout(() => this.load(), EVERY_MS);
  }

  render() {
    return html`
      <h1>${strings.title}</h1>
      ${this.error ? html`<error-notice .error=${this.error} .retry=${() => this.load()}></error-notice>` : nothing}
      ${this.status ? this.content() : nothing}
    `;
  }

  content() {
    return html`
      ${this.figures()}
      <section class="card" aria-labelledby="curves">
        <h2 id="curves">${strings.lastHour}</h2>
        <div class="grid wide">${CHARTS.filter((it) => this.has(it)).map((it) => this.chart(it))}</div>
      </section>
      ${this.card("models", this.models())} ${this.card("replicas", this.replicas())} ${this.card("machines", this.machines())}
      ${this.card("usage", html`<usage-table></usage-table>`)} ${this.card("keys", html`<key-list></key-list>`)}
      ${this.card("more", this.links())}
    `;
  }

  card(name, content) {
    return html`<section class="card" aria-labelledby=${name}><h2 id=${name}>${strings[name]}</h2>${content}</section>`;
  }

  figures() {
    const { status: state, active_sessions, active_conversations, jobs, quality_level, uptime_s, versions } = this.status;
    const figures = [
      state,
      active_sessions,
      active_conversations,
      jobs.waiting ?? "–",
      jobs.running ?? "–",
      quality_level,
      duration(uptime_s),
      versions.voxray,
    ];
    return html`<dl class="figures-grid card">${figures.map((it, i) => html`<div><dt>${strings.figures[i]}</dt><dd class="big">${it}</dd></div>`)}</dl>`;
  }

  has({ series }) {
    return this.samples.some((it) => series.some((name) => it[name] !== null && it[name] !== undefined));
  }

  chart({ name, series, unit = "", divisor = 1 }) {
    const scaled = (it, key) => (it[key] === null || it[key] === undefined ? null : it[key] / divisor);
    const curves = series.map((key) => ({ name: strings.series[key], values: this.samples.map((it) => scaled(it, key)) }));
    return html`<time-chart .label=${strings.charts[name]} .unit=${unit} .times=${this.samples.map((it) => it.at)} .series=${curves}></time-chart>`;
  }

  models() {
    return html`
      <ul class="plain">
        ${this.status.engines.map((it) => {
          const badge = { warm: "good", failed: "bad" }[it.state] ?? "warn";
          const loading = it.state === "loading" ? ` ${it.percent} %` : "";
          return html`<li>${kinds[it.kind] ?? it.kind}: <b>${it.engine}</b> ${it.model ?? ""} <span class="badge ${badge}">${strings.states[it.state] ?? it.state}${loading}</span></li>`;
        })}
      </ul>
    `;
  }

  replicas() {
    const deployments = Object.entries(this.status.deployments);
    if (!deployments.length) return html`<p class="soft">${strings.oneProcess}</p>`;
    return html`
      <ul class="plain">
        ${deployments.map(([name, it]) => html`<li><b>${name}</b> <span class="badge ${it.status === "HEALTHY" ? "good" : "warn"}">${it.status}</span> ${strings.replicaStates(it.replicas)}</li>`)}
      </ul>
    `;
  }

  machines() {
    return html`
      <ul class="plain">
        ${this.status.nodes.map((it) => html`<li><b dir="auto">${it.node}</b>: ${strings.machine(it)}${it.gpus.map((gpu) => html`<br />${strings.gpu(gpu)}`)}</li>`)}
      </ul>
    `;
  }

  links() {
    const links = Object.entries(this.status.links ?? {});
    return html`
      <ul class="plain">
        <li><a href="docs">${strings.reference}</a></li>
        ${links.map(([name, url]) => html`<li><a href=${url} rel="noopener" target="_blank" dir="auto">${name}</a></li>`)}
      </ul>
    `;
  }
}

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86_400, (seconds / 3_600) % 24, (seconds / 60) % 60].map(Math.floor);
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : `${minutes} min`;
}

customElements.define("server-view", ServerView);
