// React as Airflow provides it to plugins, and a short name for createElement. Nothing here is compiled.

export const { Component, Fragment, useEffect, useId, useRef, useState, useSyncExternalStore } = globalThis.React;
export const { Link, useLocation, useNavigate, useSearchParams } = globalThis.ReactRouterDOM;

/** Create an element: h("p", { className: "quiet" }, "text"). */
export const h = globalThis.React.createElement;
