// Requests to the plugin's routes in Airflow's API server, and how often they are sent.

import { now, setServerTime } from "./clock.js";
import { useEffect, useState } from "./elements.js";

const ROUTES = new URL("../ui/", import.meta.url);
const TIMEOUT_MS = 30_000;
const INTERVAL_MS = 10_000;
const MAX_INTERVAL_MS = 120_000;
/** Without a login or a permission, another request gives the same answer. */
const FINAL_STATUSES = [401, 403];

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Return the path of a route with its query; values that are empty are left out. */
export function route(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, ROUTES), { ...options, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const reason = error.name === "TimeoutError" ? `did not respond within ${TIMEOUT_MS / 1000} s` : "does not respond";
    throw new ApiError(`Airflow's API server ${reason}.`, null);
  }
  setServerTime(response.headers.get("date"));
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(messageOf(response.status, body), response.status);
  if (body === null) throw new ApiError("Airflow's API server sent a response that is not JSON.", response.status);
  return body;
}

function messageOf(status, body) {
  if (status === 401) return "Your session in Airflow has ended. Reload this page to log in again.";
  if (typeof body?.detail === "string" && body.detail !== "Forbidden") return body.detail;
  if (status === 403) return "You have no permission for this. It needs read access to Airflow connections.";
  return `Airflow's API server answered with status ${status}.`;
}

export function get(path, signal) {
  return send(path, { signal: anySignal(signal, AbortSignal.timeout(TIMEOUT_MS)) });
}

/** Send a request that changes something. The header proves that the request comes from this page. */
export function post(path) {
  return send(path, {
    method: "POST",
    headers: { "X-Requested-With": "planasonix" },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
}

// AbortSignal.any is missing in browsers of 2023.
function anySignal(...signals) {
  if (AbortSignal.any) return AbortSignal.any(signals);
  const controller = new AbortController();
  for (const signal of signals) signal.addEventListener("abort", () => controller.abort(signal.reason));
  return controller.signal;
}

/** Return when the server read the data, by this machine's clock. */
function readTimeOf(data) {
  return data.read_at ? Date.parse(data.read_at) + Date.now() - now() : Date.now();
}

const NOTHING = { data: null, error: null, readAt: null, retryAt: null };

/**
 * Read a path now and every ten seconds, one request at a time; null reads nothing. A hidden tab sends no request. After
 * an error the last data stays, and the interval doubles up to two minutes; after 401 and 403 nothing is read again.
 */
export function usePolling(path, interval = INTERVAL_MS) {
  const [state, setState] = useState({ path: null, ...NOTHING });
  const [round, setRound] = useState(0);

  useEffect(() => {
    if (path === null) return undefined;
    const controller = new AbortController();
    let timer = null;
    let failures = 0;
    let isBusy = false;
    let dueAt = 0;

    async function read() {
      if (document.visibilityState === "hidden") return;
      isBusy = true;
      let isFinal = false;
      let next;
      try {
        const data = await get(path, controller.signal);
        failures = 0;
        next = () => ({ path, data, error: null, readAt: readTimeOf(data), retryAt: null });
      } catch (error) {
        failures += 1;
        isFinal = FINAL_STATUSES.includes(error.status);
        next = (old) => ({ ...(old.path === path ? old : NOTHING), path, error, retryAt: dueAt });
      }
      isBusy = false;
      if (controller.signal.aborted) return;
      const wait = isFinal ? Infinity : Math.min(interval * 2 ** failures, MAX_INTERVAL_MS);
      dueAt = Date.now() + wait;
      if (!isFinal) timer = setTimeout(read, wait);
      setState(next);
    }

    function readWhenVisible() {
      if (document.visibilityState === "hidden" || isBusy || Date.now() < dueAt) return;
      clearTimeout(timer);
      read();
    }

    document.addEventListener("visibilitychange", readWhenVisible);
    read();
    return () => {
      controller.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", readWhenVisible);
    };
  }, [path, interval, round]);

  const current = state.path === path ? state : NOTHING;
  return { ...current, refresh: () => setRound((old) => old + 1) };
}
