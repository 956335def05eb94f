import { LitElement } from "./vendor/lit.js";

export { classMap, createRef, guard, html, ifDefined, live, nothing, ref, repeat } from "./vendor/lit.js";

/** A component whose content is in the page's own tree: one style sheet, and find-in-page reaches all of it. */
export class Element extends LitElement {
  /** @returns {any} */
  createRenderRoot() {
    return this;
  }

  /** @returns {any} */
  render() {}

  /** Does it; `error` is then what went wrong, or null. @param {() => any} act */
  async attempt(act) {
    try {
      await act();
      this.error = null;
    } catch (error) {
      this.error = error;
    }
  }
}
