// Jobs and backfills: filters, one page of the list at a time, and the details of a backfill.

import { route, usePolling } from "./api.js";
import { CancelButton } from "./cancel.js";
import { h, useEffect, useSearchParams, useState } from "./elements.js";
import { capitalize, formatDate } from "./format.js";
import { JobDetail } from "./job.js";
import { BackfillDetail } from "./timeline.js";
import {
  Age,
  Duration,
  Empty,
  ExternalLink,
  Id,
  Notice,
  Rows,
  Table,
  TaskLink,
  Toolbar,
  WorkState,
} from "./widgets.js";

const PAGE_SIZE = 50;
/** The cursors of all pages up to the one that is shown; the first page has none. */
const FIRST_PAGE = [""];

const STATES = {
  job: ["active", "queued", "running", "cancelling", "succeeded", "failed", "cancelled", "all"],
  backfill: ["active", "queued", "running", "completed", "failed", "cancelled", "all"],
};
const ANY_TIME = "any";
const PERIODS = { [ANY_TIME]: "Any time", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days" };

const COLUMNS = {
  job: [
    { label: "Job" },
    { label: "State" },
    { label: "Rows loaded", isNumber: true },
    { label: "Started", isNumber: true },
    { label: "Duration", isNumber: true },
    { label: "Airflow task", isWide: true },
    { label: "Actions", isUnlabelled: true, isNumber: true },
  ],
};
COLUMNS.backfill = [{ label: "Backfill" }, ...COLUMNS.job.slice(1)];

export function WorkView({ kind }) {
  const [query, setQuery] = useSearchParams();
  const overview = usePolling("overview", 60_000);
  const connections = overview.data?.connections ?? [];
  const state = query.get("state") ?? "active";
  const filter = {
    conn_id: query.get("conn_id") ?? connections[0]?.conn_id ?? null,
    state,
    // Work may be active for longer than a day.
    since: query.get("since") ?? (state === "active" ? ANY_TIME : "24h"),
    connection_id: query.get("connection_id") ?? "",
  };

  function change(name, value) {
    const next = new URLSearchParams(query);
    if (value) next.set(name, value);
    else next.delete(name);
    setQuery(next, { replace: true });
  }

  const hasNoConnection = overview.data !== null && filter.conn_id === null;
  return h(
    "section",
    { "aria-label": capitalize(`${kind}s`) },
    hasNoConnection && h(Empty, null, "There is no Airflow connection of type Planasonix that you may read."),
    overview.error && filter.conn_id === null && h(Notice, null, overview.error.message),
    filter.conn_id && h(WorkPages, { kind, filter }, h(Filters, { kind, filter, connections, change })),
  );
}

function Filters({ kind, filter, connections, change }) {
  const names = connections.map((connection) => connection.conn_id);
  if (filter.conn_id && !names.includes(filter.conn_id)) names.push(filter.conn_id);
  return h(
    "form",
    { className: "filters", role: "search", "aria-label": "Filter", onSubmit: (event) => event.preventDefault() },
    h(Select, {
      label: "Airflow connection",
      value: filter.conn_id ?? "",
      options: names.map((name) => [name, name]),
      onChange: (value) => change("conn_id", value),
    }),
    h(Select, {
      label: "State",
      value: filter.state,
      options: STATES[kind].map((state) => [state, capitalize(state)]),
      onChange: (value) => change("state", value),
    }),
    h(Select, {
      label: "Created",
      value: filter.since,
      options: Object.entries(PERIODS),
      onChange: (value) => change("since", value),
    }),
    h(ConnectionField, {
      value: filter.connection_id,
      onChange: (value) => change("connection_id", value),
    }),
  );
}

function Select({ label, value, options, onChange }) {
  return h(
    "label",
    null,
    label,
    h(
      "select",
      { value, onChange: (event) => onChange(event.target.value) },
      options.map(([name, text]) => h("option", { key: name, value: name }, text)),
    ),
  );
}

/** Text is applied when it is complete, because each change sends a request. */
function ConnectionField({ value, onChange }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const apply = () => text.trim() !== value && onChange(text.trim());
  return h(
    "label",
    null,
    "Connection in Planasonix",
    h("input", {
      type: "search",
      value: text,
      placeholder: "All connections",
      spellCheck: false,
      autoComplete: "off",
      onChange: (event) => {
        setText(event.target.value);
        if (event.target.value === "" && value !== "") onChange("");
      },
      onBlur: apply,
      onKeyDown: (event) => event.key === "Enter" && apply(),
    }),
  );
}

function WorkPages({ kind, filter, children }) {
  const filterKey = JSON.stringify(filter);
  const [place, setPlace] = useState({ filterKey, cursors: FIRST_PAGE });
  // A change of the filter starts again with the first page.
  const cursors = place.filterKey === filterKey ? place.cursors : FIRST_PAGE;
  const setCursors = (next) => setPlace({ filterKey, cursors: next });
  const [result, setResult] = useState(null);
  const since = filter.since === ANY_TIME ? "" : filter.since;
  const view = usePolling(route(`${kind}s`, { ...filter, since, limit: PAGE_SIZE, cursor: cursors.at(-1) }));
  const { data } = view;
  function cancelled(message) {
    setResult(message);
    view.refresh();
  }
  return h(
    "div",
    null,
    h(Toolbar, { view }, children),
    h(
      "div",
      { "aria-live": "polite" },
      result &&
        h(
          Notice,
          { kind: "success", action: h("button", { type: "button", onClick: () => setResult(null) }, "Dismiss") },
          result,
        ),
    ),
    data?.problem && h(Notice, null, data.problem),
    data &&
      data.items.length === 0 &&
      !data.problem &&
      h(
        Empty,
        null,
        `No ${filter.state === "all" ? "" : `${filter.state} `}${kind} was found${cursors.length > 1 ? " on this page" : ""}.`,
      ),
    data &&
      data.items.length > 0 &&
      h(WorkTable, { kind, connId: filter.conn_id, items: data.items, onCancelled: cancelled }),
    data && h(Pages, { cursors, setCursors, nextCursor: data.next_cursor, shown: data.items.length }),
  );
}

function Pages({ cursors, setCursors, nextCursor, shown }) {
  if (cursors.length === 1 && nextCursor === null) return null;
  const first = (cursors.length - 1) * PAGE_SIZE + 1;
  return h(
    "nav",
    { className: "pages", "aria-label": "Pages" },
    h(
      "button",
      { type: "button", disabled: cursors.length === 1, onClick: () => setCursors(cursors.slice(0, -1)) },
      "Previous",
    ),
    h("span", { className: "quiet small", "aria-live": "polite" }, `${first} to ${first + Math.max(shown - 1, 0)}`),
    h(
      "button",
      { type: "button", disabled: nextCursor === null, onClick: () => setCursors([...cursors, nextCursor]) },
      "Next",
    ),
  );
}

function WorkTable({ kind, connId, items, onCancelled }) {
  const [openIds, setOpenIds] = useState(new Set());
  function toggle(id) {
    const next = new Set(openIds);
    if (!next.delete(id)) next.add(id);
    setOpenIds(next);
  }
  const rows = items.map((work) => {
    const isOpen = openIds.has(work.id);
    return {
      key: work.id,
      cells: [
        h(WorkName, { work, isOpen, onToggle: () => toggle(work.id) }),
        h(WorkState, { work }),
        h(Rows, { value: work.rows_loaded }),
        h(Age, { time: work.started_at ?? work.created_at }),
        h(Duration, { work }),
        h(TaskLink, { task: work.task }),
        h(
          "span",
          { className: "actions" },
          work.url &&
            h(
              ExternalLink,
              { href: work.url, label: `Open in Planasonix: ${work.kind} ${work.id}` },
              "Open in Planasonix",
            ),
          h(CancelButton, { connId, work, onCancelled }),
        ),
      ],
      detail:
        isOpen &&
        (kind === "job" ? h(JobDetail, { connId, job: work }) : h(BackfillDetail, { connId, backfill: work })),
    };
  });
  return h(Table, { caption: capitalize(`${kind}s, newest first`), columns: COLUMNS[kind], rows });
}

function WorkName({ work, isOpen, onToggle }) {
  const facts = [work.connection_id, work.type?.replaceAll("_", " ")];
  const name = h(
    "span",
    { className: "stack" },
    h(Id, { value: work.id }),
    h("span", { className: "quiet small break" }, facts.filter(Boolean).join(" · ")),
    work.window &&
      h(
        "span",
        { className: "quiet small" },
        `${formatDate(work.window.start_at)} to ${formatDate(work.window.end_at)}`,
      ),
  );
  return h(
    "span",
    { className: "expandable" },
    h(
      "button",
      {
        type: "button",
        className: "toggle",
        "aria-expanded": isOpen,
        "aria-label": work.kind === "job" ? `Details of job ${work.id}` : `Jobs of backfill ${work.id}`,
        onClick: onToggle,
      },
      h("span", { "aria-hidden": true, className: "chevron" }),
    ),
    name,
  );
}
