/** Languages to choose from, by their names in the person's language; the server refuses what its engine cannot do. */
const CODES =
  "ar bg ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv ta th tr uk ur vi zh".split(" ");

/** @returns {[string, string][]} ISO 639-1 codes and names, by name */
export function languages() {
  const names = new Intl.DisplayNames(navigator.languages, { type: "language" });
  const named = CODES.map((code) => /** @type {[string, string]} */ ([code, names.of(code) ?? code]));
  return named.sort(([, one], [, other]) => one.localeCompare(other));
}
