// The walk: one search, played step by step. Puts map, levels, detail and the player together.

import { fill, h, many, sign } from "./dom.js";
import { Walk } from "./frames.js";
import { drawDetail } from "./walk_detail.js";
import { makeLevels } from "./walk_levels.js";
import { makeMap } from "./walk_map.js";

const BEAT = 1300; // milliseconds a frame stands while it plays

// A mode that writes queries walks no trie.
export function drawNoWalk(panel) {
  fill(panel, h("div.empty", {}, sign("live"), h("h2", {}, "Nothing to walk in this mode"), h("p", {}, "The model writes search queries, and BM25 finds the items. Choose another mode to see a walk over the trie.")));
}

export function drawWalk(panel, data) {
  const walk = new Walk(data);
  const { frames } = walk;
  if (!frames.length || walk.prefixes.length < 2) {
    fill(panel, h("div.empty", {}, sign("filtered"), h("h2", {}, "Nothing to walk"), h("p", {}, "No item is allowed, so the search ends where it begins.")));
    return { stop: () => {} };
  }
  let at = frames.length - 1;
  let kept = null; // the prefix that was clicked or focused
  let timer = 0;

  const highlight = (id) => {
    const ids = id === null ? null : new Set([...walk.path(id), ...walk.below(id)]);
    map.highlight(ids);
    levels.highlight(ids);
    drawDetail(detail, walk, frames[at], id);
  };
  const pointed = (id) => highlight(id ?? kept);
  const chosen = (id) => {
    kept = id;
    highlight(id);
  };
  const map = makeMap(walk, { pointed, chosen });
  const levels = makeLevels(walk, { pointed, chosen });
  const detail = h("aside.detail", { "aria-label": "The prefix pointed at", "aria-live": "polite" });

  const tool = (name, label, act) => h("button.tool.big", { type: "button", "aria-label": label, title: label, onclick: act }, sign(name));
  const back = tool("back", "One frame back", () => go(at - 1));
  const next = tool("next", "One frame on", () => go(at + 1));
  const play = h("button.primary.play", { type: "button", onclick: () => (timer ? stop() : start()) });
  const scrub = h("input", { type: "range", min: 0, max: frames.length - 1, step: 1, "aria-label": "Frame of the walk" });
  scrub.addEventListener("input", () => go(Number(scrub.value)));
  const place = h("span.frame-place");
  const caption = h("p.caption", { role: "status" });
  const marks = h("div.marks", { "aria-hidden": "true" }, frames.map((frame, number) => h(`i${frame.phase === "score" ? ".first" : ""}`, { dataset: { number } })));

  const go = (number, byPlay = false) => {
    if (!byPlay) stop();
    at = Math.min(frames.length - 1, Math.max(0, number));
    const frame = frames[at];
    const words = walk.caption(frame);
    scrub.value = String(at);
    scrub.style.setProperty("--at", `${(100 * at) / Math.max(1, frames.length - 1)}%`);
    scrub.setAttribute("aria-valuetext", `Step ${frame.step + 1}, ${words}`);
    fill(place, `Step ${frame.step + 1} of ${data.steps.length}`, h("span.phase", {}, { score: "score", filter: "filter", choose: "choose" }[frame.phase]));
    caption.textContent = words;
    back.disabled = at === 0;
    next.disabled = at === frames.length - 1;
    for (const mark of marks.children) mark.classList.toggle("past", Number(mark.dataset.number) <= at);
    if (kept !== null && !walk.state(kept, frame)) kept = null;
    map.draw(frame);
    levels.draw(frame);
    highlight(kept);
  };

  const label = () => fill(play, sign(timer ? "pause" : "play"), timer ? "Pause" : "Play");
  function start() {
    if (at === frames.length - 1) go(0);
    timer = setInterval(() => {
      if (at >= frames.length - 1 || !panel.isConnected || panel.hidden) return stop();
      return go(at + 1, true);
    }, BEAT);
    label();
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    label();
  }

  fill(
    panel,
    h("div.player", { role: "group", "aria-label": "Player" }, h("div.player-tools", {}, back, play, next), h("div.scrub", {}, scrub, marks), place),
    caption,
    map.node,
    h("div.walk-body", {}, levels.node, detail),
    data.truncated ? h("p.notes", {}, `The search went on for longer than the ${many(data.steps.length, "step")} that are told here.`) : null,
  );
  panel.onkeydown = (event) => {
    if (event.key === "Escape" && kept !== null) {
      chosen(null);
      event.preventDefault();
    }
  };
  label();
  go(at);
  return { stop };
}
