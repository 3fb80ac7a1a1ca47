// Before anything is drawn: the mode that the reader chose, and that scripts run.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const mode = localStorage.getItem("pmlm-mode");
    if (mode === "dark" || mode === "light") root.dataset.mode = mode;
  } catch { /* a browser that keeps nothing */ }
})();
