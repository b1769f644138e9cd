// Live updates: when the controller says that something changed, this page is asked for again, and of its parts (".part") those that differ take the
// place of the old ones. Without it the page is whole as well.
"use strict";
(() => {
  const first = 2000, longest = 60000, slow = 20000; // milliseconds
  let wait = first, timer = 0, asking = false, again = false, last = Date.now();

  const local = () => {
    for (const t of document.querySelectorAll("time[datetime]")) {
      const d = new Date(t.dateTime);
      if (!isNaN(d)) t.title = d.toLocaleString(undefined, {dateStyle: "medium", timeStyle: "long"}) + " (local)";
    }
  };

  const state = (live) => {
    const tag = document.getElementById("live");
    if (!tag) return;
    live &&= !document.querySelector("[data-stale]"); // the page came, and what it shows is old
    tag.hidden = false;
    tag.classList.toggle("old", !live);
    const text = live ? "live" : "not live";
    if (tag.textContent !== text) tag.textContent = text;
  };

  // same compares two trees without what belongs to the reader.
  const same = (a, b) => {
    const [x, y] = [a, b].map((e) => {
      const c = e.cloneNode(true);
      for (const t of c.querySelectorAll("time[title]")) t.removeAttribute("title");
      for (const t of c.querySelectorAll("#live")) t.remove();
      for (const t of c.querySelectorAll("details")) t.removeAttribute("open");
      return c;
    });
    return x.isEqualNode(y);
  };

  // path to a node from its part, to find it again in the new one.
  const pathOf = (part, node) => {
    const path = [];
    for (let n = node; n !== part; n = n.parentNode) path.unshift([...n.parentNode.children].indexOf(n));
    return path;
  };

  const replace = (old, fresh) => {
    const at = document.activeElement;
    const inside = at && at !== document.body && old.contains(at) ? {path: pathOf(old, at), href: at.getAttribute("href"), row: at.closest("tr[id]")?.id} : null;
    const open = [...old.querySelectorAll("details")].map((d) => [d.id, d.open]);
    const across = [...old.querySelectorAll(".scroll, pre")].map((s) => [s.scrollLeft, s.scrollTop]);
    const node = document.importNode(fresh, true);
    old.replaceWith(node);
    for (const [id, is] of open) {
      const d = id && node.querySelector("#" + CSS.escape(id));
      if (d) d.open = is;
    }
    node.querySelectorAll(".scroll, pre").forEach((s, i) => { if (across[i]) [s.scrollLeft, s.scrollTop] = across[i]; });
    if (inside) {
      let to = inside.row && document.getElementById(inside.row)?.querySelector(`a[href="${CSS.escape(inside.href || "")}"]`);
      to ||= inside.href && [...node.querySelectorAll("a")].find((a) => a.getAttribute("href") === inside.href);
      if (!to) {
        to = node;
        for (const i of inside.path) to = to?.children[i];
      }
      to?.focus({preventScroll: true});
    }
  };

  const apply = (doc) => {
    const main = document.getElementById("main"), fresh = doc.getElementById("main");
    if (!main || !fresh) return;
    const kept = [window.scrollX, window.scrollY];
    const ids = (root) => [...root.querySelectorAll(".part")].map((p) => p.id).join(" ");
    if (ids(main) !== ids(fresh)) {
      replace(main, fresh);
    } else {
      for (const part of fresh.querySelectorAll(".part")) {
        const old = document.getElementById(part.id);
        if (old && !same(old, part)) replace(old, part);
      }
    }
    if (window.scrollX !== kept[0] || window.scrollY !== kept[1]) window.scrollTo(...kept);
    local();
  };

  // refresh asks for this page again. The browser parses the answer into a document of its own: nothing in it runs.
  const refresh = () => {
    if (asking) { again = true; return; }
    asking = true;
    const ask = new XMLHttpRequest();
    ask.open("GET", location.pathname + location.search);
    ask.responseType = "document";
    ask.timeout = 30000;
    ask.onloadend = () => {
      asking = false;
      const ok = ask.status === 200 && ask.response;
      if (ok) { apply(ask.response); last = Date.now(); wait = first; }
      state(Boolean(ok));
      if (!ok) later();
      else if (again) { again = false; refresh(); }
    };
    ask.send();
  };

  // later asks again after a while, and longer each time, with some chance so that many pages do not come at once.
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { refresh(); listen(); }, wait * (0.75 + Math.random() / 2));
    wait = Math.min(longest, wait * 2);
  };

  let source = null;
  const listen = () => {
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource("/events");
    source.addEventListener("change", () => { if (!document.hidden) refresh(); else again = true; });
    source.onopen = () => { wait = first; state(true); };
    source.onerror = () => {
      state(false);
      if (source.readyState === EventSource.CLOSED) { wait = Math.max(wait, slow); later(); }
    };
  };

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && (again || Date.now() - last > slow)) { again = false; refresh(); }
  });
  local();
  listen();
})();
