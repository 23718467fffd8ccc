// What Airflow loads (react_apps). It looks for a component under the name of the app, so that one bundle serves two apps.

import { h } from "./elements.js";
import { Boundary, Page } from "./page.js";
import { Panel } from "./panel.js";

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("planasonix.css", import.meta.url).href;
await new Promise((resolve) => {
  // Without its style the page is plain, but it works.
  style.onload = resolve;
  style.onerror = resolve;
  document.head.append(style);
});

globalThis.Planasonix = Page;
globalThis["Planasonix panel"] = () => h(Boundary, { isSilent: true }, h(Panel));
globalThis.AirflowPlugin = Page;
