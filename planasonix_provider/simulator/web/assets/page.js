// Shows what is new on a page every other second. Without it all else works as well, and a link takes its place.
"use strict";

(() => {
  const PAUSE = 2000;
  const button = document.getElementById("live");
  if (!button) return;

  // Brings a part of the page up to date. What is still there stays the same element, so that neither the focus nor a
  // selection is lost, and no row becomes another one under somebody's finger.
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

  async function look() {
    let fresh;
    try {
      const answer = await fetch(location.href);
      if (!answer.ok) throw new Error(answer.status);
      fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      lost.textContent = "The simulator does not answer. Trying again.";
      return;
    }
    lost.textContent = "";
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next) continue;
      // Only a new state is said aloud; progress would never be silent.
      if (next.dataset.news !== part.dataset.news) news.textContent = next.dataset.news;
      update(part, next);
    }
  }

  async function goOn() {
    if (isOn && !document.hidden) await look();
    if (document.querySelector("[data-live]")) setTimeout(goOn, PAUSE);
    else button.hidden = true;
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isOn = !isOn;
    button.setAttribute("aria-pressed", isOn);
  });
  setTimeout(goOn, PAUSE);
})();
