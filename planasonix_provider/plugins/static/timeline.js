// The jobs of a backfill on a time line, by the times in which they ran: the API does not say which part of the window a
// job loads.

import { usePolling } from "./api.js";
import { now } from "./clock.js";
import { h, useId } from "./elements.js";
import { capitalize, count, formatTime } from "./format.js";
import { fillOf, Patterns, Swatch } from "./patterns.js";
import { Age, Duration, Empty, ExternalLink, Id, ReadError, Rows, Table, WorkState } from "./widgets.js";

const BAR = 22;
const GAP = 6;
const TICKS = 4;
const MAX_OPEN_JOBS = 24;

export function BackfillDetail({ connId, backfill }) {
  const view = usePolling(`backfills/${encodeURIComponent(connId)}/${encodeURIComponent(backfill.id)}`);
  const { data } = view;
  return h(
    "div",
    { className: "details" },
    view.error && h(ReadError, { view }),
    data && data.jobs.length === 0 && h(Empty, null, "This backfill has no jobs yet."),
    data && data.jobs.length > 0 && h(Timeline, { jobs: data.jobs }),
    data && data.jobs.length > 0 && h(JobList, { backfill, jobs: data.jobs }),
  );
}

function JobList({ backfill, jobs }) {
  return h(
    "details",
    { open: jobs.length <= MAX_OPEN_JOBS },
    h("summary", null, count(jobs.length, "job")),
    h(JobTable, { backfill, jobs }),
  );
}

function JobTable({ backfill, jobs }) {
  const columns = [
    { label: "Job" },
    { label: "State" },
    { label: "Rows loaded", isNumber: true },
    { label: "Started", isNumber: true },
    { label: "Duration", isNumber: true },
    { label: "Actions", isUnlabelled: true, isNumber: true },
  ];
  const rows = jobs.map((job) => ({
    key: job.id,
    cells: [
      h(Id, { value: job.id }),
      h(WorkState, { work: job }),
      h(Rows, { value: job.rows_loaded }),
      h(Age, { time: job.started_at ?? job.created_at }),
      h(Duration, { work: job }),
      job.url && h(ExternalLink, { href: job.url, label: `Open in Planasonix: job ${job.id}` }, "Open in Planasonix"),
    ],
  }));
  return h(Table, { caption: `Jobs of backfill ${backfill.id}`, columns, rows });
}

/** Return the bars with their start and end in milliseconds, and the period that they share. */
function layOut(jobs) {
  const bars = jobs
    .filter((job) => job.started_at)
    .map((job) => ({
      job,
      start: Date.parse(job.started_at),
      end: job.finished_at ? Date.parse(job.finished_at) : now(),
    }));
  const start = Math.min(...bars.map((bar) => bar.start));
  return { bars, start, end: Math.max(...bars.map((bar) => bar.end), start + 1000) };
}

/** Give each bar the first lane in which it overlaps no other. */
function assignLanes(bars) {
  const ends = [];
  for (const bar of [...bars].sort((a, b) => a.start - b.start)) {
    let lane = ends.findIndex((end) => end <= bar.start);
    if (lane === -1) lane = ends.length;
    ends[lane] = bar.end;
    bar.lane = lane;
  }
  return ends.length;
}

function Timeline({ jobs }) {
  const titleId = useId();
  const prefix = useId().replace(/\W/g, "");
  const { bars, start, end } = layOut(jobs);
  if (bars.length === 0) return null;
  const height = assignLanes(bars) * (BAR + GAP) - GAP;
  const percent = (time) => ((time - start) / (end - start)) * 100;
  return h(
    "figure",
    { className: "timeline" },
    h("figcaption", { id: titleId, className: "quiet small" }, "Jobs by the time in which they ran"),
    h(
      "svg",
      { width: "100%", height, role: "img", "aria-labelledby": titleId },
      h(Patterns, { prefix }),
      bars.map((bar) =>
        h(Bar, {
          key: bar.job.id,
          bar,
          x: percent(bar.start),
          width: percent(bar.end) - percent(bar.start),
          prefix,
        }),
      ),
    ),
    h(Axis, { start, end }),
    h(
      "p",
      { className: "legend small" },
      [...new Set(bars.map((bar) => bar.job.status))].map((state) =>
        h("span", { key: state }, h(Swatch, { state, prefix }), capitalize(state)),
      ),
    ),
  );
}

function Axis({ start, end }) {
  const ticks = Array.from({ length: TICKS + 1 }, (_, index) =>
    new Date(start + (index / TICKS) * (end - start)).toISOString(),
  );
  return h(
    "div",
    { className: "ticks small", "aria-hidden": true },
    ticks.map((tick) => h("span", { key: tick }, tick.slice(11, 19))),
  );
}

function Bar({ bar, x, width, prefix }) {
  const { job, lane } = bar;
  const y = lane * (BAR + GAP) + 0.5;
  // A gap separates neighbours, and a short job keeps a visible width.
  const place = { x: `${x}%`, y, height: BAR - 1, rx: 3, style: { width: `calc(max(${width}%, 4px) - 2px)` } };
  return h(
    "g",
    null,
    h("title", null, `${job.id}: ${job.status}, ${formatTime(job.started_at)}`),
    h("rect", { ...place, fill: fillOf(job.status, prefix) }),
    h("rect", { ...place, className: "frame", fill: "none" }),
  );
}
