// Small parts that several views use.

import { now, useClockText } from "./clock.js";
import { Fragment, h, Link } from "./elements.js";
import { capitalize, formatDuration, formatNumber, formatRelative, formatTime, NONE } from "./format.js";

/** The palette of Airflow's theme and the sign of each state: no state is told by its colour alone. */
const STATES = {
  queued: ["queued", "○"],
  pending: ["queued", "○"],
  running: ["running", "▶"],
  cancelling: ["orange", "◌"],
  succeeded: ["success", "✓"],
  success: ["success", "✓"],
  completed: ["success", "✓"],
  failed: ["failed", "✗"],
  cancelled: ["gray", "⊘"],
  skipped: ["gray", "⊘"],
  deferred: ["purple", "◷"],
};

export function Status({ value }) {
  if (!value) return NONE;
  const [palette, sign] = STATES[value] ?? ["gray", "•"];
  return h(Badge, { palette, sign }, capitalize(value.replaceAll("_", " ")));
}

export function Badge({ palette, sign, children }) {
  const style = {
    background: `var(--chakra-colors-${palette}-subtle)`,
    color: `var(--chakra-colors-${palette}-fg)`,
  };
  return h("span", { className: "badge", style, "data-sign": sign }, children);
}

export function Progress({ percent, label }) {
  if (percent === null) return null;
  return h(
    "span",
    { className: "progress" },
    h("progress", { max: 100, value: percent, "aria-label": label }),
    h("span", { "aria-hidden": true }, `${Math.round(percent)} %`),
  );
}

/** A time as "3 min ago", which counts on. */
export function Age({ time, mayBeFuture }) {
  const text = useClockText(() => (time ? formatRelative(time, now(), { mayBeFuture }) : NONE));
  return time ? h("time", { dateTime: time, title: formatTime(time) }, text) : text;
}

/** How long something took, or takes so far. */
export function Duration({ work }) {
  const text = useClockText(() => {
    const startedAt = work.started_at ?? (work.status === "running" ? work.created_at : null);
    if (work.is_over || !startedAt) return formatDuration(work.duration_seconds);
    return formatDuration((now() - Date.parse(startedAt)) / 1000);
  });
  return h("span", { className: "number" }, text);
}

export function TaskLink({ task, withState = false }) {
  if (!task) return h("span", { className: "quiet" }, "No task that you may read");
  const name = task.map_index >= 0 ? `${task.task_id} [${task.map_index}]` : task.task_id;
  const attempt = task.try_number ? `, try ${task.try_number}` : "";
  return h(
    "span",
    { className: "stack" },
    h(Link, { to: task.url, className: "break" }, `${task.dag_id}.${name}`),
    h("span", { className: "quiet small break" }, `${task.run_id}${attempt}`),
    withState && task.state && h("span", null, h(Status, { value: task.state })),
  );
}

export function ExternalLink({ href, label, children }) {
  if (!href) return children;
  return h(
    "a",
    { href, target: "_blank", rel: "noopener noreferrer", className: "external", "aria-label": label },
    children,
  );
}

export function Id({ value }) {
  return h("code", { className: "id" }, value);
}

export function Notice({ kind = "error", title, children, action }) {
  return h(
    "div",
    { className: `notice ${kind}`, role: kind === "error" ? "alert" : "status" },
    h("div", { className: "stack" }, title && h("strong", null, title), h("span", { className: "break" }, children)),
    action,
  );
}

/** The controls of a view, how old its data is, and an error that hides no data. */
export function Toolbar({ view, children }) {
  const { error, readAt, refresh } = view;
  const text = useClockText(() => {
    if (readAt === null) return error ? "Not loaded" : "Loading…";
    return `Updated ${formatRelative(new Date(readAt).toISOString(), Date.now())}`;
  });
  return h(
    Fragment,
    null,
    h(
      "div",
      { className: "toolbar" },
      children ?? h("span"),
      h(
        "div",
        { className: "line" },
        h("span", { className: "quiet small number" }, text),
        h("button", { type: "button", onClick: refresh }, "Refresh"),
      ),
    ),
    error && h(ReadError, { view }),
  );
}

/** What went wrong, how old the data is that is still shown, and when it is read again. */
export function ReadError({ view }) {
  const { data, error, readAt, retryAt } = view;
  const retry = useClockText(() => {
    if (retryAt === Infinity) return "";
    const seconds = Math.ceil((retryAt - Date.now()) / 1000);
    return seconds > 0 ? `The page reads again in ${formatDuration(seconds)}.` : "The page reads again now.";
  });
  const age = data !== null ? `Below is the state of ${formatTime(new Date(readAt).toISOString())}.` : "";
  return h(
    "div",
    { className: "notice error" },
    h(
      "div",
      { className: "stack" },
      // Only the message is read aloud: the rest changes every second.
      h("strong", { role: "alert", className: "break" }, error.message),
      h("span", { className: "small" }, [age, retry].filter(Boolean).join(" ")),
    ),
  );
}

export function Empty({ children }) {
  return h("p", { className: "empty" }, children);
}

/**
 * A table whose rows are cards if it is narrow. Its roles are explicit, because browsers drop them from a table that is
 * displayed in another way.
 *
 * columns: [{ label, isNumber, isWide, isHeader, isUnlabelled }]; rows: [{ key, cells, detail }]
 */
export function Table({ caption, columns, rows, isBusy }) {
  return h(
    "table",
    { role: "table", className: "list", "aria-busy": isBusy },
    h("caption", { className: "unseen" }, caption),
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        columns.map((column) =>
          h(
            "th",
            { key: column.label, role: "columnheader", scope: "col", className: column.isNumber ? "number" : null },
            column.isUnlabelled ? h("span", { className: "unseen" }, column.label) : column.label,
          ),
        ),
      ),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map((row) => h(Row, { key: row.key, row, columns })),
    ),
  );
}

function Row({ row, columns }) {
  const cells = columns.map((column, index) =>
    h(
      index === 0 ? "th" : "td",
      {
        key: column.label,
        role: index === 0 ? "rowheader" : "cell",
        scope: index === 0 ? "row" : null,
        className: [column.isNumber && "number", column.isWide && "wide"].filter(Boolean).join(" ") || null,
        "data-label": index === 0 || column.isUnlabelled ? null : column.label,
      },
      row.cells[index],
    ),
  );
  const detail =
    row.detail &&
    h("tr", { role: "row", className: "detail" }, h("td", { role: "cell", colSpan: columns.length }, row.detail));
  return h(Fragment, null, h("tr", { role: "row", className: row.detail ? "open" : null }, cells), detail);
}

export function Rows({ value }) {
  return h("span", { className: "number" }, formatNumber(value));
}

/** The state of a job or a backfill, with its progress or its error. */
export function WorkState({ work }) {
  return h(
    "span",
    { className: "stack" },
    h(
      "span",
      { className: "line" },
      h(Status, { value: work.status }),
      !work.is_over && h(Progress, { percent: work.progress_percent, label: `Progress of ${work.kind} ${work.id}` }),
    ),
    work.error && h("span", { className: "small break error-text" }, work.error),
  );
}
