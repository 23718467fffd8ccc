// Values as people read them. Times are UTC, as in the logs of tasks.

const NUMBER = new Intl.NumberFormat("en-US");
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export const NONE = "–";

export function formatNumber(value) {
  return value === null || value === undefined ? NONE : NUMBER.format(value);
}

export function formatCompact(value) {
  return COMPACT.format(value);
}

/** Return "1 job" or "2 jobs". */
export function count(value, noun) {
  return `${formatNumber(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Return a length of time: "12 s", "3 min 5 s", "2 h 10 min", "4 d 3 h". */
export function formatDuration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return join(Math.floor(s / 60), "min", s % 60, "s");
  if (s < 86_400) return join(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return join(Math.floor(s / 86_400), "d", Math.floor((s % 86_400) / 3600), "h");
}

function join(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}

/**
 * Return "3 min ago" or "in 2 h": at most one unit, because it changes while people read it. The clocks of two machines
 * differ, so what has happened is never in the future.
 */
export function formatRelative(time, now, { mayBeFuture = false } = {}) {
  const exact = Math.round((now - Date.parse(time)) / 1000);
  const seconds = mayBeFuture ? exact : Math.max(exact, 0);
  const length = roughly(Math.abs(seconds));
  return seconds >= 0 ? `${length} ago` : `in ${length}`;
}

function roughly(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400 * 2) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** Return "2025-03-27 14:22:10 UTC". */
export function formatTime(time) {
  return time ? `${new Date(time).toISOString().slice(0, 19).replace("T", " ")} UTC` : NONE;
}

/** Return "2025-03-27", with the time of day if it is not midnight. */
export function formatDate(time) {
  const text = new Date(time).toISOString();
  return text.slice(11, 19) === "00:00:00" ? text.slice(0, 10) : `${text.slice(0, 10)} ${text.slice(11, 16)}`;
}

export function formatHour(time) {
  return new Date(time).toISOString().slice(11, 16);
}

export function formatDay(time) {
  const day = new Date(time);
  return `${day.getUTCDate()} ${MONTHS[day.getUTCMonth()]}`;
}

export function capitalize(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
