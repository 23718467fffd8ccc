// Updates a page every two seconds. Everything else works without this script, and a link replaces the updates.
"use strict";

(() => {
  const PAUSE = 2000;
  const button = document.getElementById("live");
  if (!button) return;

  // Updates a part of the page. Elements that stay are kept, so that the focus and the selection are not lost, and a
  // row does not change while somebody clicks it.
  function update(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    let place = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const same = next.id && [...old.children].find((child) => child.id === next.id);
      if (same) while (place !== same) place = drop(place);
      if (same || fits(place, next)) {
        update(place, next);
        place = place.nextSibling;
      } else {
        old.insertBefore(document.importNode(next, true), place);
      }
    }
    while (place) place = drop(place);
  }

  function drop(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  function fits(old, fresh) {
    return old && old.nodeName === fresh.nodeName && !old.id && !fresh.id;
  }

  const lost = document.getElementById("lost");
  const news = document.getElementById("news");
  let isOn = true;

  async function poll() {
    let fresh;
    try {
      const response = await fetch(location.href);
      if (!response.ok) throw new Error(response.status);
      fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    } catch {
      lost.textContent = "The simulator does not respond. Retrying.";
      return;
    }
    lost.textContent = "";
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next) continue;
      // Screen readers announce only a new state, because progress changes with every update.
      if (next.dataset.news !== part.dataset.news) news.textContent = next.dataset.news;
      update(part, next);
    }
  }

  async function pollAndRepeat() {
    if (isOn && !document.hidden) await poll();
    if (document.querySelector("[data-live]")) setTimeout(pollAndRepeat, PAUSE);
    else button.hidden = true;
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isOn = !isOn;
    button.setAttribute("aria-pressed", isOn);
  });
  setTimeout(pollAndRepeat, PAUSE);
})();
