/** Which segment and word is spoken when, and where it stands in its segment's text. Pure. */

/** The last item that begins at `ms` or before, by binary search; -1 if there is none. @param {{start_ms: number}[]} items */
export function indexAt(items, ms) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (items[middle].start_ms <= ms) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/**
 * The places of the words in a segment's text, which has them with one space between.
 * @param {{words: {word: string}[]}} segment @returns {[number, number][]}
 */
export function places({ words }) {
  let at = 0;
  return words.map(({ word }) => {
    const place = /** @type {[number, number]} */ ([at, at + word.length]);
    at += word.length + 1;
    return place;
  });
}

/** The word at a place of the text. @param {{words: {word: string}[]}} segment @param {number} offset */
export function wordAt(segment, offset) {
  const found = places(segment).findIndex(([, end]) => offset <= end);
  return found < 0 ? segment.words.length - 1 : found;
}

/** The names of the speakers, in the order of their first words. @param {{speaker: string | null}[]} segments */
export const speakersOf = (segments) => [...new Set(segments.map((it) => it.speaker).filter(Boolean))];
