// The panel on Airflow's home page. It shows nothing to people who may not read connections, or who have none of Planasonix.

import { usePolling } from "./api.js";
import { h, Link } from "./elements.js";
import { count } from "./format.js";
import { ReachabilityBadge } from "./overview.js";

const INTERVAL_MS = 30_000;
const PAGE = "/plugin/planasonix";

export function Panel() {
  const overview = usePolling("overview", INTERVAL_MS);
  const connections = overview.data?.connections ?? [];
  const hasConnections = connections.length > 0;
  const waits = usePolling(hasConnections ? "waits" : null, INTERVAL_MS);
  const orphans = usePolling(waits.data ? "orphans" : null, INTERVAL_MS);
  if (!hasConnections) return null;
  return h(
    "section",
    { className: "planasonix panel", "aria-labelledby": "planasonix-panel" },
    h(
      "div",
      { className: "panel-title" },
      h("h2", { id: "planasonix-panel" }, "Planasonix"),
      h(Link, { to: PAGE }, "Open the page"),
    ),
    h(
      "ul",
      null,
      connections.map((connection) =>
        h(Card, { key: connection.conn_id, connection, waits: waits.data, orphans: orphans.data }),
      ),
    ),
  );
}

function Card({ connection, waits, orphans }) {
  const ofConnection = (items) => items.filter((item) => item.conn_id === connection.conn_id).length;
  return h(
    "li",
    null,
    h(
      "span",
      { className: "line" },
      h("strong", { className: "break" }, connection.conn_id),
      h(ReachabilityBadge, { connection }),
    ),
    h(
      "span",
      { className: "facts small" },
      connection.active_jobs !== null &&
        h(Fact, {
          view: "jobs",
          connection,
          text: count(connection.active_jobs, "active job") + (connection.has_more ? " or more" : ""),
        }),
      waits &&
        h(Fact, {
          view: "waits",
          text: count(ofConnection(waits.items), "waiting task") + (waits.has_more ? " or more" : ""),
        }),
      orphans &&
        h(Fact, {
          view: "orphans",
          text: count(ofConnection(orphans.items), "orphan"),
          isProblem: ofConnection(orphans.items) > 0,
        }),
    ),
  );
}

function Fact({ view, connection, text, isProblem }) {
  const query = new URLSearchParams({ view });
  if (connection) query.set("conn_id", connection.conn_id);
  return h(
    Link,
    { to: `${PAGE}?${query}`, className: isProblem ? "error-text" : null },
    isProblem ? `! ${text}` : text,
  );
}
