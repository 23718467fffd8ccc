// The server's time, and texts that change with it. One timer serves all of them.

import { useSyncExternalStore } from "./elements.js";

const TOLERANCE_MS = 30_000;

let offset = 0;
let timer = null;
const listeners = new Set();

/** Take the server's time from a response, because the clock of this machine may be wrong. */
export function setServerTime(date) {
  const time = Date.parse(date);
  // A busy server writes old times into its responses: only a clock that is wrong by more is corrected.
  if (!Number.isNaN(time)) offset = Math.abs(time - Date.now()) < TOLERANCE_MS ? 0 : time - Date.now();
}

export function now() {
  return Date.now() + offset;
}

function subscribe(listener) {
  listeners.add(listener);
  timer ??= setInterval(() => document.visibilityState === "visible" && listeners.forEach((each) => each()), 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = null;
    }
  };
}

/** Return what a function returns, and render again when that changes with time. */
export function useClockText(read) {
  return useSyncExternalStore(subscribe, read);
}
