// Deferred tasks of this provider: what they wait for, since when, and until when.

import { usePolling } from "./api.js";
import { h } from "./elements.js";
import { count } from "./format.js";
import { Age, Badge, Empty, ExternalLink, Notice, Status, Table, TaskLink, Toolbar } from "./widgets.js";

const COLUMNS = [
  { label: "Airflow task", isWide: true },
  { label: "Waits for", isWide: true },
  { label: "Last seen state" },
  { label: "Waiting since", isNumber: true },
  { label: "Deadline", isNumber: true },
  { label: "Triggerer" },
];

export function Waits() {
  const view = usePolling("waits");
  const { data } = view;
  return h(
    "section",
    { "aria-label": "Waiting tasks" },
    h(
      Toolbar,
      { view },
      h("p", { className: "quiet" }, "Deferred tasks of all Airflow connections. They use no worker slot."),
    ),
    data?.problem && h(Notice, null, data.problem),
    data && !data.problem && data.items.length === 0 && h(Empty, null, "No deferred task waits for Planasonix."),
    data &&
      data.items.length > 0 &&
      h(Table, { caption: "Deferred tasks that wait for Planasonix", columns: COLUMNS, rows: data.items.map(rowOf) }),
    data?.has_more &&
      h(Notice, { kind: "warning" }, `There are more: the page shows the first ${count(data.items.length, "task")}.`),
  );
}

function rowOf(wait) {
  const { task } = wait;
  return {
    key: `${task.dag_id}/${task.run_id}/${task.task_id}/${task.map_index}`,
    cells: [
      h(TaskLink, { task }),
      h(
        "span",
        { className: "stack" },
        h(
          ExternalLink,
          { href: wait.url, label: wait.url && `${wait.target}, open in Planasonix` },
          h("code", { className: "id" }, wait.target),
        ),
        h("span", { className: "quiet small break" }, [wait.connection_id, wait.conn_id].filter(Boolean).join(" · ")),
      ),
      h(Status, { value: wait.status }),
      h(Age, { time: wait.since }),
      wait.deadline ? h(Age, { time: wait.deadline, mayBeFuture: true }) : "None",
      h(TriggererState, { isAlive: wait.is_triggerer_alive }),
    ],
  };
}

function TriggererState({ isAlive }) {
  if (isAlive === null) return h(Badge, { palette: "gray", sign: "…" }, "Not assigned");
  return isAlive
    ? h(Badge, { palette: "success", sign: "✓" }, "Alive")
    : h(Badge, { palette: "failed", sign: "✗" }, "Gone");
}
