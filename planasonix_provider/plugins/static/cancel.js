// The button Cancel, its confirmation, and what came of it.

import { post } from "./api.js";
import { Fragment, h, useEffect, useId, useRef, useState } from "./elements.js";
import { Id, Notice } from "./widgets.js";

/** onCancelled gets the server's message. */
export function CancelButton({ connId, work, onCancelled }) {
  const [isOpen, setIsOpen] = useState(false);
  if (!work.can_cancel) return null;
  const open = () => setIsOpen(true);
  return h(
    Fragment,
    null,
    h(
      "button",
      { type: "button", className: "danger", onClick: open, "aria-label": `Cancel ${work.kind} ${work.id}` },
      "Cancel",
    ),
    isOpen && h(CancelDialog, { connId, work, onCancelled, onClose: () => setIsOpen(false) }),
  );
}

function effectOn({ task_id, dag_id, state }, kind) {
  const name = `Task ${task_id} of DAG ${dag_id}`;
  return ["running", "deferred"].includes(state)
    ? `${name} waits for it: its try fails, and Airflow may start another one.`
    : `${name} has started it, and does not wait for it now: no task fails because of this ${kind}.`;
}

/** A modal dialog of the browser: it keeps the focus inside, closes with Escape, and gives the focus back. */
function CancelDialog({ connId, work, onCancelled, onClose }) {
  const dialog = useRef(null);
  const titleId = useId();
  const textId = useId();
  const [error, setError] = useState(null);
  const [isSending, setIsSending] = useState(false);

  useEffect(() => {
    const opener = document.activeElement;
    dialog.current.showModal();
    return () => opener?.isConnected && opener.focus();
  }, []);

  async function cancel() {
    setError(null);
    setIsSending(true);
    try {
      const { message } = await post(
        `${work.kind}s/${encodeURIComponent(connId)}/${encodeURIComponent(work.id)}/cancel`,
      );
      onCancelled(message);
      onClose();
    } catch (failure) {
      setError(failure.message);
      setIsSending(false);
    }
  }

  return h(
    "dialog",
    { ref: dialog, className: "dialog", "aria-labelledby": titleId, "aria-describedby": textId, onClose },
    h("h2", { id: titleId }, `Cancel this ${work.kind}?`),
    h(
      "div",
      { id: textId },
      h(
        "p",
        null,
        "Planasonix stops ",
        work.kind === "backfill" ? "all jobs of backfill " : "job ",
        h(Id, { value: work.id }),
        " on connection ",
        h(Id, { value: work.connection_id }),
        ".",
      ),
      work.task && h("p", null, effectOn(work.task, work.kind)),
    ),
    error && h(Notice, { title: "It was not cancelled." }, error),
    h(
      "div",
      { className: "buttons" },
      h(
        "button",
        { type: "button", autoFocus: true, onClick: () => dialog.current.close() },
        error ? "Close" : "Keep it running",
      ),
      h(
        "button",
        { type: "button", className: "danger solid", onClick: cancel, disabled: isSending },
        isSending ? "Cancelling…" : `Cancel the ${work.kind}`,
      ),
    ),
  );
}
