(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const details = JSON.parse(document.getElementById("data").textContent);
  const status = document.getElementById("status");
  const hint = status.textContent;

  // A trial, or all of a group, stands out in every plot and table of its section.
  const parts = new Map();
  for (const part of all("[data-r]"))
    for (const run of part.dataset.r.split(" ")) parts.set(run, [...(parts.get(run) || []), part]);
  let lit = [];
  const show = (runs, text) => {
    for (const part of lit) part.classList.remove("on");
    all("section.hl").forEach((section) => section.classList.remove("hl"));
    lit = runs.flatMap((run) => parts.get(run) || []);
    for (const part of lit) part.classList.add("on");
    lit[0]?.closest("section")?.classList.add("hl");
    if (status.textContent !== text) status.textContent = text;
  };
  const showTrial = (mark) => show([mark.dataset.r], details[mark.dataset.r]);
  const rest = () => {
    const focused = document.activeElement;
    if (focused?.matches?.(".t[data-r]")) showTrial(focused);
    else show([], hint);
  };

  for (const plot of all("svg.plot")) {
    const marks = all(".t[data-r]", plot);
    if (!marks.length) continue;
    const nearest = (event) => {
      let found = null, least = 28 * 28;
      for (const mark of marks) {
        const box = mark.getBoundingClientRect();
        const far = (box.x + box.width / 2 - event.clientX) ** 2 + (box.y + box.height / 2 - event.clientY) ** 2;
        if (far < least) [found, least] = [mark, far];
      }
      return found;
    };
    const point = (event) => {
      const line = event.target.closest(".l[data-r]");
      const mark = nearest(event) || (line && marks.find((one) => one.dataset.r === line.dataset.r));
      if (mark) showTrial(mark); else rest();
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") rest(); });
  }

  // Focus is listened for above the pictures: a picture that listens itself would become a stop of the tabulator.
  const marksBeside = (mark) => all(".t[data-r]", mark.closest("svg"));
  const trialOf = (event) => (event.target.matches?.("svg.plot .t[data-r]") ? event.target : null);
  addEventListener("focusin", (event) => {
    const focused = trialOf(event);
    if (!focused) return;
    for (const mark of marksBeside(focused)) mark.setAttribute("tabindex", mark === focused ? 0 : -1);
    showTrial(focused);
  });
  addEventListener("focusout", (event) => { if (trialOf(event)) show([], hint); });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") show([], hint);
    const focused = trialOf(event);
    if (!focused) return;
    const marks = marksBeside(focused), place = marks.indexOf(focused), last = marks.length - 1;
    const to = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1,
                 Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    marks[Math.min(last, Math.max(0, to))].focus();
  });

  for (const row of all("tr[data-r]")) {
    row.addEventListener("pointerenter", () => show(row.dataset.r.split(" "), row.dataset.label));
    row.addEventListener("pointerleave", rest);
  }

  // Columns are sorted by buttons, best first; what has no value stays at the end.
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.v;
        const compare = (a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === "");
          const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
          return down ? -order : order;
        };
        table.tBodies[0].append(...all("tbody tr", table).sort(compare));
      });
    });
  }

  // Light or dark: as the system has it until the reader chooses; the choice is remembered.
  const root = document.documentElement, button = document.getElementById("mode");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.mode ? root.dataset.mode === "dark" : system.matches);
  const name = () => { button.textContent = isDark() ? "Light mode" : "Dark mode"; };
  button.addEventListener("click", () => {
    root.dataset.mode = isDark() ? "light" : "dark";
    try { localStorage.setItem("pmlm-mode", root.dataset.mode); } catch { /* then only for now */ }
    name();
  });
  system.addEventListener("change", name);
  name();
})();
