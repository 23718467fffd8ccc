// Airflow connections and webhook receivers: what is reachable, and what runs.

import { usePolling } from "./api.js";
import { h, Link } from "./elements.js";
import { formatNumber, NONE } from "./format.js";
import { Age, Badge, Empty, ExternalLink, Table, Toolbar } from "./widgets.js";

const CONNECTION_COLUMNS = [
  { label: "Airflow connection" },
  { label: "Status", isWide: true },
  { label: "Active jobs", isNumber: true },
  { label: "Active backfills", isNumber: true },
  { label: "Requests left", isNumber: true },
  { label: "Checked", isNumber: true },
];

const RECEIVER_COLUMNS = [
  { label: "Receiver" },
  { label: "Status", isWide: true },
  { label: "Asset" },
  { label: "Last delivery", isNumber: true },
  { label: "Deliveries, 24 h", isNumber: true },
  { label: "Refusals, 24 h", isNumber: true },
];

export function Overview() {
  const view = usePolling("overview");
  const { data } = view;
  return h(
    "section",
    { "aria-label": "Overview" },
    h(Toolbar, { view }, h("h2", null, "Airflow connections")),
    data && h(Connections, { connections: data.connections }),
    data && h(Receivers, { receivers: data.receivers }),
  );
}

function Connections({ connections }) {
  if (connections.length === 0) {
    return h(
      Empty,
      null,
      "There is no Airflow connection of type Planasonix that you may read. Create one in Admin › Connections. " +
        "Connections from environment variables and secrets backends are listed when a task has used them.",
    );
  }
  const rows = connections.map((connection) => ({
    key: connection.conn_id,
    cells: [
      h(
        "span",
        { className: "stack" },
        h("strong", { className: "break" }, connection.conn_id),
        h("span", { className: "small" }, h(ExternalLink, { href: connection.web_url }, connection.host)),
      ),
      h(Reachability, { connection }),
      h(ActiveCount, { connection, view: "jobs", value: connection.active_jobs }),
      h(ActiveCount, { connection, view: "backfills", value: connection.active_backfills }),
      h(RateLimit, { limit: connection.rate_limit }),
      h(Age, { time: connection.read_at }),
    ],
  }));
  return h(Table, { caption: "Airflow connections of type Planasonix", columns: CONNECTION_COLUMNS, rows });
}

export function ReachabilityBadge({ connection }) {
  if (connection.is_reachable === null) return h(Badge, { palette: "gray", sign: "…" }, "Checking");
  if (connection.is_reachable) return h(Badge, { palette: "success", sign: "✓" }, "Reachable");
  return h(Badge, { palette: "failed", sign: "✗" }, "Not reachable");
}

function Reachability({ connection }) {
  return h(
    "span",
    { className: "stack" },
    h("span", null, h(ReachabilityBadge, { connection })),
    connection.message && h("span", { className: "small break" }, connection.message),
  );
}

function ActiveCount({ connection, view, value }) {
  if (value === null) return NONE;
  const query = new URLSearchParams({ view, conn_id: connection.conn_id });
  const text = connection.has_more ? `${formatNumber(value)}+` : formatNumber(value);
  const label = `${text} active ${view} of ${connection.conn_id}`;
  return h(Link, { to: { search: `?${query}` }, "aria-label": label }, text);
}

function RateLimit({ limit }) {
  if (!limit) return NONE;
  return `${formatNumber(limit.remaining)} of ${formatNumber(limit.limit)}`;
}

function Receivers({ receivers }) {
  const rows = receivers.map((receiver) => ({
    key: receiver.conn_id,
    cells: [
      h(
        "span",
        { className: "stack" },
        h("strong", { className: "break" }, receiver.conn_id),
        h("code", { className: "small break" }, receiver.url),
      ),
      h(ReceiverStatus, { receiver }),
      receiver.asset,
      h(Age, { time: receiver.last_delivery_at }),
      formatNumber(receiver.deliveries_24h),
      formatNumber(receiver.refusals_24h),
    ],
  }));
  return h(
    "section",
    { "aria-labelledby": "planasonix-receivers" },
    h("h2", { id: "planasonix-receivers" }, "Webhook receivers"),
    rows.length === 0
      ? h(Empty, null, "There is no webhook receiver: no Airflow connection of type Planasonix Webhook.")
      : h(Table, { caption: "Webhook receivers", columns: RECEIVER_COLUMNS, rows }),
  );
}

function ReceiverStatus({ receiver }) {
  const [palette, sign, text] = receiver.problem
    ? ["failed", "✗", receiver.has_secret ? "Problem" : "No secret"]
    : ["success", "✓", "Secret present"];
  return h(
    "span",
    { className: "stack" },
    h("span", null, h(Badge, { palette, sign }, text)),
    receiver.problem && h("span", { className: "small break" }, receiver.problem),
  );
}
