// Fills of bars by state. States differ in pattern, too: not everybody tells red from green.

import { h } from "./elements.js";

/** The patterns of one drawing; prefix keeps their ids apart from those of other drawings. */
export function Patterns({ prefix }) {
  return h(
    "defs",
    null,
    h(
      "pattern",
      { id: `${prefix}failed`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      h("rect", { width: 6, height: 6, fill: "var(--bad)" }),
      h("rect", { width: 2, height: 6, fill: "var(--ground)" }),
    ),
    h(
      "pattern",
      { id: `${prefix}cancelled`, width: 5, height: 5, patternUnits: "userSpaceOnUse" },
      h("rect", { width: 5, height: 5, fill: "var(--raised)" }),
      h("circle", { cx: 2.5, cy: 2.5, r: 1.4, fill: "var(--quiet)" }),
    ),
    h(
      "pattern",
      { id: `${prefix}running`, width: 6, height: 6, patternUnits: "userSpaceOnUse" },
      h("rect", { width: 6, height: 6, fill: "var(--running)" }),
      h("rect", { width: 1.5, height: 6, fill: "var(--ground)" }),
    ),
  );
}

export function fillOf(state, prefix) {
  if (state === "succeeded") return "var(--good)";
  if (state === "failed" || state === "cancelled") return `url(#${prefix}${state})`;
  return state === "running" || state === "cancelling" ? `url(#${prefix}running)` : "none";
}

export function Swatch({ state, prefix }) {
  return h(
    "svg",
    { className: "swatch", width: 12, height: 12, "aria-hidden": true },
    h("rect", { className: "frame", x: 0.5, y: 0.5, width: 11, height: 11, rx: 2, fill: fillOf(state, prefix) }),
  );
}
