/** Blind votes between two voices: how often each was heard and preferred; kept in this browser. */
const STORED = "voxray-votes";

/** @typedef {{heard: number, won: number}} Count */

/** @returns {Record<string, Count>} by voice */
export const votes = () => JSON.parse(localStorage.getItem(STORED) ?? "{}");

/** @param {string} winner @param {string} loser */
export function vote(winner, loser) {
  const all = votes();
  for (const [voice, won] of /** @type {[string, number][]} */ ([
    [winner, 1],
    [loser, 0],
  ])) {
    const { heard, won: before } = all[voice] ?? { heard: 0, won: 0 };
    all[voice] = { heard: heard + 1, won: before + won };
  }
  localStorage.setItem(STORED, JSON.stringify(all));
}
