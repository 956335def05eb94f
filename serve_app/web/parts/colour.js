/** The colour of a variable of the style sheet as a canvas takes it: a canvas does not know `light-dark(…)`. */
export function colour(element, name) {
  const probe = document.createElement("span");
  probe.style.setProperty("color", `var(${name})`);
  element.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
