// Jobs that run although the task that started them is over.

import { usePolling } from "./api.js";
import { CancelButton } from "./cancel.js";
import { h, useState } from "./elements.js";
import { Age, Empty, ExternalLink, Id, Notice, Status, Table, TaskLink, Toolbar } from "./widgets.js";

const COLUMNS = [
  { label: "Job or backfill" },
  { label: "State" },
  { label: "Airflow task", isWide: true },
  { label: "Task state" },
  { label: "Task ended", isNumber: true },
  { label: "Actions", isUnlabelled: true, isNumber: true },
];

export function Orphans() {
  const view = usePolling("orphans");
  const [result, setResult] = useState(null);
  const { data } = view;
  function cancelled(message) {
    setResult(message);
    view.refresh();
  }
  return h(
    "section",
    { "aria-label": "Orphans" },
    h(
      Toolbar,
      { view },
      h("p", { className: "quiet" }, "Jobs that still run although their task is over. No task waits for them."),
    ),
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
      h(Empty, null, "There is no orphan: every job that runs has a task that waits for it."),
    data &&
      data.items.length > 0 &&
      h(Table, {
        caption: "Jobs whose task is over",
        columns: COLUMNS,
        rows: data.items.map((orphan) => rowOf(orphan, cancelled)),
      }),
  );
}

function rowOf({ work, conn_id, task, task_ended_at }, onCancelled) {
  return {
    key: work.id,
    cells: [
      h(
        "span",
        { className: "stack" },
        h(Id, { value: work.id }),
        h("span", { className: "quiet small break" }, [work.connection_id, conn_id].filter(Boolean).join(" · ")),
      ),
      h(Status, { value: work.status }),
      h(TaskLink, { task }),
      h(Status, { value: task?.state }),
      h(Age, { time: task_ended_at }),
      h(
        "span",
        { className: "actions" },
        work.url &&
          h(
            ExternalLink,
            { href: work.url, label: `Open in Planasonix: ${work.kind} ${work.id}` },
            "Open in Planasonix",
          ),
        h(CancelButton, { connId: conn_id, work, onCancelled }),
      ),
    ],
  };
}
