"use strict";
// Keeps a page of remask view up to date, and filters and sorts the list. Texts of runs reach the page
// only as HTML that the server has escaped; the policy of the page lets no script run that is in them.
(function () {
  const main = document.getElementById("content"), live = document.getElementById("live");
  const served = new Map(); // the last HTML of the server, by id of its element

  function parse(html, tag) {
    const frame = document.createElement("template");
    frame.innerHTML = html;
    if (tag === "TR") return frame.content.querySelector("tr");
    const box = document.createElement("div");
    box.append(frame.content);
    return box;
  }

  // A copy for the page, with what the script of the report adds to it.
  function copy(node) {
    const frame = document.createDocumentFragment();
    frame.append(document.importNode(node, true));
    if (window.setUpReport) window.setUpReport(frame);
    return frame;
  }

  // Changes in `shown` only what differs between two answers of the server: what the reader has
  // opened, chosen or selected elsewhere stays as it is.
  function patch(shown, before, after) {
    if (before.isEqualNode(after)) return;
    if (before.nodeName !== after.nodeName || shown.nodeName !== after.nodeName) {
      shown.replaceWith(copy(after));
      return;
    }
    if (after.nodeType !== Node.ELEMENT_NODE) {
      shown.data = after.data;
      return;
    }
    for (const { name } of Array.from(before.attributes)) if (!after.hasAttribute(name)) shown.removeAttribute(name);
    for (const { name, value } of Array.from(after.attributes)) {
      if (before.getAttribute(name) !== value) shown.setAttribute(name, value);
    }
    patchChildren(shown, before, after);
  }

  function patchChildren(shown, before, after) {
    const was = before.childNodes, is = after.childNodes, here = shown.childNodes;
    if (here.length !== was.length) { // a script has changed it
      shown.replaceChildren(...Array.from(is, copy));
      return;
    }
    let start = 0, end = 0; // what is the same at both ends, so that a new row changes no other
    while (start < was.length && start < is.length && was[start].isEqualNode(is[start])) start += 1;
    while (end < was.length - start && end < is.length - start
           && was[was.length - 1 - end].isEqualNode(is[is.length - 1 - end])) end += 1;
    const old = Array.from(was).slice(start, was.length - end), fresh = Array.from(is).slice(start, is.length - end);
    const place = Array.from(here).slice(start, here.length - end), next = here[here.length - end] || null;
    for (let i = 0; i < Math.max(old.length, fresh.length); i += 1) {
      if (i >= fresh.length) place[i].remove();
      else if (i >= old.length) shown.insertBefore(copy(fresh[i]), next);
      else patch(place[i], old[i], fresh[i]);
    }
  }

  function take(id, html) {
    const shown = document.getElementById(id);
    if (!shown) return;
    const tag = shown.tagName, after = parse(html, tag);
    const before = served.get(id);
    served.set(id, after);
    if (before && tag === "TR") patch(shown, before, after);
    else if (before) patchChildren(shown, before, after);
    else if (tag === "TR") { // the first answer for this row
      const chosen = shown.querySelector("input:checked");
      const row = document.importNode(after, true);
      if (chosen) row.querySelector("input").checked = true;
      shown.replaceWith(row);
    } else shown.replaceChildren(...Array.from(after.childNodes, copy));
  }

  function remember() { // what the page was served with
    for (const box of document.querySelectorAll("#problem, #status, #counts, .part, tr.run")) {
      const known = box.tagName === "TR" ? box.cloneNode(true) : document.createElement("div");
      if (box.tagName !== "TR") known.append(...box.cloneNode(true).childNodes);
      served.set(box.id, known);
    }
  }

  function takeAll(change) {
    const rows = document.getElementById("rows");
    if (rows) {
      const wanted = new Set(change.order);
      for (const row of Array.from(rows.children)) if (!wanted.has(row.id)) { row.remove(); served.delete(row.id); }
      for (const id of change.order) {
        if (!document.getElementById(id) && change.pieces[id]) rows.append(parse(change.pieces[id], "TR"));
      }
      document.getElementById("empty").hidden = change.order.length > 0;
    }
    for (const [id, html] of Object.entries(change.pieces)) take(id, html);
    if (rows) arrange();
    const now = performance.now();
    document.documentElement.dataset.updates = String(Number(document.documentElement.dataset.updates || 0) + 1);
    document.documentElement.dataset.updated = String(Math.round(now));
  }

  // -- the stream: only while the page can be seen, because a browser has few connections to a server

  let source = null, since = main ? main.dataset.since : "", retry = 0, pending = null;
  function say(words, on) {
    live.textContent = words;
    live.classList.toggle("on", on);
  }
  function close() {
    if (source) source.close();
    source = null;
    clearTimeout(retry);
  }
  function open() {
    close();
    source = new EventSource(main.dataset.stream + "?since=" + encodeURIComponent(since));
    source.onopen = () => say("live", true);
    source.onmessage = (message) => {
      since = message.lastEventId;
      const change = JSON.parse(message.data);
      if (pending) { // the last one waits to be drawn: draw both at once
        Object.assign(pending.pieces, change.pieces);
        pending.order = change.order;
        return;
      }
      pending = change;
      requestAnimationFrame(() => { const all = pending; pending = null; takeAll(all); });
    };
    source.onerror = () => {
      say("not connected: is remask view still running?", false);
      if (source && source.readyState === EventSource.CLOSED) { // refused, so the browser does not try again
        close();
        retry = setTimeout(open, 4000);
      }
    };
  }
  if (main && main.dataset.stream) {
    remember();
    const follow = () => { if (document.hidden) { close(); say("paused", false); } else open(); };
    document.addEventListener("visibilitychange", follow);
    window.addEventListener("pagehide", close);
    window.addEventListener("pageshow", (event) => { if (event.persisted) follow(); });
    follow();
  }

  // -- the list

  const filter = document.getElementById("filter"), state = document.getElementById("state");
  const sort = document.getElementById("sort"), rows = document.getElementById("rows");
  const number = (row, key) => (row.dataset[key] === "" ? -Infinity : Number(row.dataset[key]));
  const orders = {
    created: (a, b) => number(b, "created") - number(a, "created"),
    calls: (a, b) => number(b, "calls") - number(a, "calls"),
    gain: (a, b) => (number(a, "gain") === number(b, "gain") ? orders.created(a, b) : number(b, "gain") > number(a, "gain") ? 1 : -1),
    name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, "en", { numeric: true }),
    state: (a, b) => a.dataset.state.localeCompare(b.dataset.state) || orders.created(a, b),
  };
  function arrange() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = Array.from(rows.children), sorted = all.slice().sort(orders[sort.value]);
    if (sorted.some((row, i) => row !== all[i])) rows.append(...sorted);
    let shown = 0;
    for (const row of sorted) {
      row.hidden = (state.value && row.dataset.state !== state.value) || !words.every((w) => row.dataset.search.includes(w));
      shown += row.hidden ? 0 : 1;
    }
    const chosen = rows.querySelectorAll("input:checked").length, hint = document.getElementById("hint");
    const button = document.getElementById("compare");
    button.disabled = chosen < 1 || chosen > 6;
    button.textContent = chosen > 1 ? "Compare " + chosen + " runs" : chosen === 1 ? "Compare prompts" : "Compare";
    const said = chosen > 6 ? "At most six runs can be compared." : shown < all.length ? shown + " of " + all.length + " runs are shown." : "";
    if (hint.textContent !== said) hint.textContent = said;
  }
  if (rows) {
    for (const field of [filter, state, sort]) field.addEventListener("input", arrange);
    rows.addEventListener("change", arrange);
    filter.form.addEventListener("submit", (event) => { if (event.submitter === null) event.preventDefault(); });
    arrange();
  }
}());
