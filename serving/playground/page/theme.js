// Runs before the first paint, so that a chosen theme does not flash. Everything else is a module.
"use strict";
{
  const kept = localStorage.getItem("genrec.theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
}
