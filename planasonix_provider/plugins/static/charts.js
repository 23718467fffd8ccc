// Charts of what has ended: outcomes over time, rows per table, and durations per connection.

import { route, usePolling } from "./api.js";
import { Fragment, h, useId, useSearchParams } from "./elements.js";
import {
  capitalize,
  count,
  formatCompact,
  formatDay,
  formatDuration,
  formatHour,
  formatNumber,
  formatTime,
} from "./format.js";
import { fillOf, Patterns, Swatch } from "./patterns.js";
import { Empty, Id, Notice, Table, Toolbar } from "./widgets.js";

const PERIODS = { "24h": "Last 24 hours", "7d": "Last 7 days" };
/** From the bottom of a bar to its top, as in the legend. */
const OUTCOMES = ["succeeded", "failed", "cancelled"];
const HEIGHT = 200;

export function Charts() {
  const [query, setQuery] = useSearchParams();
  const period = query.get("period") in PERIODS ? query.get("period") : "24h";
  const view = usePolling(route("charts", { period }), 60_000);
  const { data } = view;
  function select(value) {
    const next = new URLSearchParams(query);
    next.set("period", value);
    setQuery(next, { replace: true });
  }
  return h(
    "section",
    { "aria-label": "Charts" },
    h(
      Toolbar,
      { view },
      h(
        "div",
        { className: "switch", role: "group", "aria-label": "Period" },
        Object.entries(PERIODS).map(([value, text]) =>
          h(
            "button",
            { key: value, type: "button", "aria-pressed": value === period, onClick: () => select(value) },
            text,
          ),
        ),
      ),
    ),
    data?.problem && h(Notice, null, data.problem),
    data && h(Outcomes, { outcomes: data.outcomes, period }),
    data &&
      h(
        "div",
        { className: "columns" },
        h(Ranking, {
          title: "Rows loaded per table",
          nothing: "No table was loaded in this period.",
          columns: ["Table", "Rows"],
          items: data.tables.map((table) => ({
            name: table.name,
            of: table.connection_id,
            value: table.rows_loaded,
            text: formatNumber(table.rows_loaded),
          })),
        }),
        h(Ranking, {
          title: "Median duration per connection",
          nothing: "No job ended in this period.",
          columns: ["Connection", "Median"],
          items: data.durations.map((each) => ({
            name: each.connection_id,
            of: count(each.jobs, "job"),
            value: each.median_seconds,
            text: formatDuration(each.median_seconds),
          })),
        }),
      ),
  );
}

function total(outcome) {
  return OUTCOMES.reduce((sum, name) => sum + outcome[name], 0);
}

/** Return a round number that is at least the highest bar, and that halves well. */
function scaleOf(highest) {
  const steps = [2, 4, 10, 20, 40, 60, 80, 100];
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(Math.max(highest, 1))) - 1);
  return steps.map((step) => step * unit).find((step) => step >= highest) ?? highest;
}

function Outcomes({ outcomes, period }) {
  const titleId = useId();
  const prefix = useId().replace(/\W/g, "");
  const sums = OUTCOMES.map((name) => [name, outcomes.reduce((sum, outcome) => sum + outcome[name], 0)]);
  const hasNone = sums.every(([, sum]) => sum === 0);
  const label = period === "24h" ? formatHour : formatDay;
  const scale = scaleOf(Math.max(...outcomes.map(total)));
  const summary = sums.map(([name, sum]) => `${formatNumber(sum)} ${name}`).join(", ");
  return h(
    "section",
    { className: "card", "aria-labelledby": titleId },
    h("h2", { id: titleId }, "Jobs by outcome"),
    hasNone
      ? h(Empty, null, "No job ended in this period.")
      : h(
          Fragment,
          null,
          h(
            "p",
            { className: "legend small" },
            sums.map(([name, sum]) =>
              h("span", { key: name }, h(Swatch, { state: name, prefix }), `${capitalize(name)} ${formatNumber(sum)}`),
            ),
          ),
          h(
            "div",
            { className: "plot" },
            h(
              "div",
              { className: "scale small", "aria-hidden": true },
              [scale, scale / 2, 0].map((value) => h("span", { key: value }, formatCompact(value))),
            ),
            h(
              "svg",
              {
                width: "100%",
                height: HEIGHT,
                role: "img",
                "aria-label": `${PERIODS[period]}: ${summary}. The table below has each number.`,
              },
              h(Patterns, { prefix }),
              [0, 0.5, 1].map((part) =>
                h("line", {
                  key: part,
                  className: "grid",
                  x1: 0,
                  x2: "100%",
                  y1: part * HEIGHT + 0.5,
                  y2: part * HEIGHT + 0.5,
                }),
              ),
              outcomes.map((outcome, index) =>
                h(Stack, { key: outcome.at, outcome, index, bars: outcomes.length, scale, prefix, label }),
              ),
            ),
            h(
              "div",
              { className: "axis small", "aria-hidden": true },
              outcomes.map(({ at }, index) =>
                h("span", { key: at }, outcomes.length <= 7 || index % 6 === 0 ? label(at) : ""),
              ),
            ),
          ),
          h(
            "details",
            null,
            h("summary", null, "Show the numbers"),
            h(Table, {
              caption: `Jobs by outcome, ${PERIODS[period].toLowerCase()}`,
              columns: [
                { label: period === "24h" ? "Hour" : "Day" },
                ...OUTCOMES.map((name) => ({ label: capitalize(name), isNumber: true })),
              ],
              rows: outcomes.map((outcome) => ({
                key: outcome.at,
                cells: [
                  period === "24h"
                    ? formatTime(outcome.at).replace(":00 UTC", " UTC")
                    : formatTime(outcome.at).slice(0, 10),
                  ...OUTCOMES.map((name) => formatNumber(outcome[name])),
                ],
              })),
            }),
          ),
        ),
  );
}

function Stack({ outcome, index, bars, scale, prefix, label }) {
  const slot = 100 / bars;
  let top = HEIGHT;
  const parts = OUTCOMES.filter((name) => outcome[name] > 0).map((name) => {
    const height = (outcome[name] / scale) * HEIGHT;
    top -= height;
    return h("rect", {
      key: name,
      className: name,
      x: `${(index + 0.15) * slot}%`,
      width: `${slot * 0.7}%`,
      y: top,
      height,
      fill: fillOf(name, prefix),
    });
  });
  return h(
    "g",
    null,
    h("title", null, `${label(outcome.at)}: ${OUTCOMES.map((name) => `${outcome[name]} ${name}`).join(", ")}`),
    h("rect", { x: `${index * slot}%`, width: `${slot}%`, y: 0, height: HEIGHT, fill: "transparent" }),
    parts,
  );
}

/** Horizontal bars in a table: the numbers are beside the bars, for everybody. */
function Ranking({ title, nothing, columns, items }) {
  const titleId = useId();
  const highest = Math.max(...items.map((item) => item.value), 0);
  return h(
    "section",
    { className: "card", "aria-labelledby": titleId },
    h("h2", { id: titleId }, title),
    items.length === 0
      ? h(Empty, null, nothing)
      : h(
          "table",
          { className: "ranking", "aria-labelledby": titleId },
          h(
            "thead",
            { className: "unseen" },
            h(
              "tr",
              null,
              columns.map((column) => h("th", { key: column, scope: "col" }, column)),
            ),
          ),
          h(
            "tbody",
            null,
            items.map((item) =>
              h(
                "tr",
                { key: `${item.of}/${item.name}` },
                h(
                  "th",
                  { scope: "row" },
                  h(
                    "span",
                    { className: "line" },
                    h(Id, { value: item.name }),
                    h("span", { className: "quiet small" }, item.of),
                  ),
                  h(
                    "svg",
                    { width: "100%", height: 10, "aria-hidden": true },
                    h("rect", { className: "track", width: "100%", height: 10, rx: 3 }),
                    h("rect", {
                      className: "measure",
                      width: `${highest ? (item.value / highest) * 100 : 0}%`,
                      height: 10,
                      rx: 3,
                    }),
                  ),
                ),
                h("td", { className: "number" }, item.text),
              ),
            ),
          ),
        ),
  );
}
