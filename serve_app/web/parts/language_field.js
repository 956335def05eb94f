/** A field to choose the language of speech, or to leave it to the recogniser. */
import { html } from "../element.js";
import { languages } from "../languages.js";
import { app as strings } from "../strings.js";

/** @param {boolean} [disabled] */
export const languageField = (disabled = false) => html`
  <label class="field">
    ${strings.language}
    <select name="language" ?disabled=${disabled}>
      <option value="">${strings.anyLanguage}</option>
      ${languages().map(([code, name]) => html`<option value=${code}>${name}</option>`)}
    </select>
  </label>
`;
