// The page Browse > Planasonix: a title, the links to its views, and the view that the URL names.

import { Charts } from "./charts.js";
import { Component, h, Link, useEffect, useLocation, useNavigate, useSearchParams, useState } from "./elements.js";
import { Orphans } from "./orphans.js";
import { Overview } from "./overview.js";
import { Waits } from "./waits.js";
import { Notice } from "./widgets.js";
import { WorkView } from "./work.js";

const VIEWS = {
  overview: { title: "Overview", render: () => h(Overview) },
  jobs: { title: "Jobs", render: () => h(WorkView, { key: "job", kind: "job" }) },
  backfills: { title: "Backfills", render: () => h(WorkView, { key: "backfill", kind: "backfill" }) },
  waits: { title: "Waiting tasks", render: () => h(Waits) },
  orphans: { title: "Orphans", render: () => h(Orphans) },
  charts: { title: "Charts", render: () => h(Charts) },
};

const SHARED_FILTERS = ["conn_id", "since", "connection_id"];

let isSettled = false;

/**
 * Return whether the page may show something. Airflow renders a bundle that it has just loaded as a lazy component, and
 * by its name from the next navigation on. React then mounts the page again, so people would lose the focus and open
 * rows with their first change of a filter. So the page navigates once to where it is, before it shows anything.
 */
function useSettled() {
  const { search } = useLocation();
  const navigate = useNavigate();
  const [isReady, setIsReady] = useState(isSettled);
  useEffect(() => {
    if (isReady) return undefined;
    isSettled = true;
    navigate({ search }, { replace: true });
    // For versions of Airflow that do not mount it again.
    const timer = setTimeout(() => setIsReady(true), 100);
    return () => clearTimeout(timer);
  }, []);
  return isReady;
}

export function Page() {
  const isReady = useSettled();
  const [query] = useSearchParams();
  const name = Object.hasOwn(VIEWS, query.get("view") ?? "") ? query.get("view") : "overview";
  return h(
    "div",
    { className: "planasonix page" },
    h(
      "header",
      null,
      h("h1", null, "Planasonix"),
      h(
        "nav",
        { className: "views", "aria-label": "Views" },
        Object.entries(VIEWS).map(([each, { title }]) =>
          h(
            Link,
            { key: each, to: { search: searchOf(each, query) }, "aria-current": each === name ? "page" : undefined },
            title,
          ),
        ),
      ),
    ),
    isReady && h(Boundary, { key: name }, VIEWS[name].render()),
  );
}

/** A view keeps the filters that have a meaning in several views. */
function searchOf(view, query) {
  const search = new URLSearchParams({ view });
  for (const name of SHARED_FILTERS) if (query.get(name)) search.set(name, query.get(name));
  return `?${search}`;
}

/** An error in a view must not take Airflow's page away. */
export class Boundary extends Component {
  state = { error: null };

  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    if (!this.state.error) return this.props.children;
    if (this.props.isSilent) return null;
    return h(
      Notice,
      { title: "This view cannot be shown." },
      `${this.state.error.message} Reload the page. If it happens again, report it.`,
    );
  }
}
