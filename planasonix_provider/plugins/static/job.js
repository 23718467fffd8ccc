// The details of a job, which the list does not have: times, rows and tables.

import { usePolling } from "./api.js";
import { h } from "./elements.js";
import { formatNumber, formatTime } from "./format.js";
import { Duration, ReadError, Table } from "./widgets.js";

export function JobDetail({ connId, job }) {
  const view = usePolling(`jobs/${encodeURIComponent(connId)}/${encodeURIComponent(job.id)}`);
  const { data } = view;
  return h(
    "div",
    { className: "details" },
    view.error && h(ReadError, { view }),
    data && h(Facts, { work: data.item }),
    data?.tables?.length > 0 && h(Tables, { job, tables: data.tables }),
  );
}

function Facts({ work }) {
  const facts = [
    ["Created", formatTime(work.created_at)],
    ["Started", formatTime(work.started_at)],
    ["Finished", formatTime(work.finished_at)],
    ["Duration", h(Duration, { work })],
    ["Rows loaded", formatNumber(work.rows_loaded)],
    ["Error", work.error],
  ];
  return h(
    "dl",
    null,
    facts
      .filter(([, value]) => value !== null)
      .map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", { className: "break" }, value))),
  );
}

function Tables({ job, tables }) {
  const columns = [{ label: "Table" }, { label: "Rows loaded", isNumber: true }];
  const rows = tables.map((table) => ({
    key: table.name,
    cells: [h("code", { className: "break" }, table.name), formatNumber(table.rows_loaded)],
  }));
  return h("div", { className: "tables" }, h(Table, { caption: `Tables of job ${job.id}`, columns, rows }));
}
