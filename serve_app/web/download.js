/** Gives the person a file, or text for the clipboard. */

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @param {string} text @returns {Promise<void>} rejects where the browser does not permit it */
export const copy = (text) => navigator.clipboard.writeText(text);

/** For file names: local date and time, as `2026-11-24 15.04`. */
export function stamp(date = new Date()) {
  const two = (number) => String(number).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${two(date.getHours())}.${two(date.getMinutes())}`;
}
