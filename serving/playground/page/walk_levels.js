// The levels as columns: what is in the beam, what is an item, what was left out and what was filtered, best first.
// Prefixes are buttons; arrows go along a column and, to left and right, along the trie.

import { count, fill, h, many, nats, share, sign } from "./dom.js";
import { STATE_WORDS } from "./frames.js";

const GROUPS = [
  { name: "Beam", states: ["live", "walked"], rows: 6, strip: true },
  { name: "Items", states: ["certified", "finished"], rows: 8, strip: false },
  { name: "Scored", states: ["scored"], rows: 14, strip: true },
  { name: "Left out", states: ["pruned"], rows: 3, strip: false },
  { name: "Filtered", states: ["filtered"], rows: 2, strip: false },
];

export function makeLevels(walk, { pointed, chosen }) {
  const node = h("div.levels", { role: "group", "aria-label": "Levels of the trie" });
  const opened = new Set(); // groups shown whole, by level and name
  let frame = null;
  let leading = new Set();

  const draw = (at) => {
    frame = at;
    leading = walk.leading(frame);
    const focused = document.activeElement?.closest?.(".levels [data-id]")?.dataset.id;
    fill(node, Array.from({ length: walk.levels }, (_, place) => column(place + 1)));
    const first = node.querySelector("[data-id]");
    if (first) first.tabIndex = 0;
    if (focused !== undefined) focus(Number(focused));
  };

  const column = (level) => {
    const groups = walk.level(level, frame);
    const parts = GROUPS.map((group) => section(level, group, groups)).filter(Boolean);
    return h("section.level", { "aria-label": `Level ${level}` }, head(level, groups), parts.length ? parts : h("p.level-empty", {}, "Not reached yet"));
  };

  const head = (level, groups) => {
    const totals = GROUPS.map((group) => [group, group.states.reduce((sum, state) => sum + groups[state].listed.length + groups[state].more, 0)]);
    const all = totals.reduce((sum, [, total]) => sum + total, 0);
    const bar = h("div.level-bar", { "aria-hidden": "true" }, totals.filter(([, total]) => total).map(([group, total]) => {
      const part = h(`i.${group.states.at(-1) === "walked" ? "live" : group.states[0] === "certified" ? "finished" : group.states[0]}`);
      part.style.flexGrow = String(total / all);
      return part;
    }));
    return h("header", {}, h("h3", {}, `Level ${level}`), all ? h("span.hint", {}, `${count(all)} scored`) : null, bar);
  };

  const section = (level, group, groups) => {
    const listed = group.states.flatMap((state) => groups[state].listed.map((one) => ({ one, state })));
    listed.sort((a, b) => (b.one.score ?? -Infinity) - (a.one.score ?? -Infinity));
    const more = group.states.reduce((sum, state) => sum + groups[state].more, 0);
    if (!listed.length && !more) return null;
    const key = `${level} ${group.name}`;
    const rows = opened.has(key) ? listed : listed.slice(0, group.rows);
    const rest = listed.slice(rows.length);
    const best = listed[0]?.one.score ?? 0;
    const isOpen = opened.has(key);
    const words = rest.length || more ? counted(rest, more, group, groups) : null;
    const toggle = rest.length || isOpen
      ? h("button.link.more", { type: "button", "aria-expanded": String(isOpen), onclick: () => (isOpen ? opened.delete(key) : opened.add(key), draw(frame)) }, isOpen ? "Show fewer" : words)
      : null;
    return h(
      `div.group.group-${group.states[0]}`,
      { role: "group", "aria-label": `${group.name}: ${count(listed.length + more)}` },
      h("div.group-head", {}, sign(group.states[0] === "certified" ? "finished" : group.states[0]), h("span", {}, group.name), h("b", {}, count(listed.length + more))),
      h("div.prefixes", {}, rows.map(({ one, state }) => row(one, state, best))),
      group.strip && rest.length ? strip(rest, best) : null,
      words && (isOpen || !rest.length) ? h("p.counted", {}, words) : null,
      toggle,
    );
  };

  const counted = (rest, more, group, groups) => {
    const best = Math.max(...rest.map(({ one }) => one.score ?? -Infinity), ...group.states.map((state) => groups[state].best ?? -Infinity));
    return `${count(rest.length + more)} more, at most ${share(Number.isFinite(best) ? best : null)}`;
  };

  const row = (one, state, best) => {
    const bar = h("i.mass");
    bar.style.width = `${Math.max(1.500, 100 * Math.exp((one.score ?? -Infinity) - best))}%`;
    return button(one, state, h("span.prefix-top", {}, sign(state), h("span.prefix-label", {}, label(one, state)), h("span.prefix-share", {}, share(one.score))), bar);
  };

  const label = (one, state) => {
    const title = one.examples.length ? walk.data.titles[one.examples[0]] : "";
    const isItem = state === "finished" || state === "certified";
    if (isItem) return [h("span", {}, title)];
    const size = one.end - one.start;
    return [h("b", {}, one.label.replaceAll(" · ", "·") || "·"), h("span.dim", {}, ` ${title}${size > 1 ? ` +${count(size - 1)}` : ""}`)];
  };

  // The rest of a beam, a sliver each: its height is its score.
  const strip = (rest, best) =>
    h("div.strip", {}, rest.map(({ one, state }) => {
      const sliver = h("i");
      sliver.style.height = `${Math.max(8, 100 * (1 - (best - (one.score ?? -50)) / 12))}%`;
      return button(one, state, sliver);
    }));

  const button = (one, state, ...children) => {
    const size = one.end - one.start;
    return h("button.prefix", {
      type: "button", tabIndex: -1, dataset: { id: one.id, state, ...(state === "walked" && leading.has(one.id) ? { leads: "" } : {}) },
      "aria-label": `${path(one)}, ${STATE_WORDS[state]}${state === "walked" && leading.has(one.id) ? ", leads to a proven item" : ""}, ${share(one.score)}, ${many(size, "item")}`,
      onpointerenter: () => pointed(one.id), onpointerleave: () => pointed(null),
      onfocus: () => chosen(one.id), onclick: () => chosen(one.id),
    }, ...children);
  };

  const path = (one) => walk.path(one.id).slice(1).map((id) => walk.prefixes[id].label).join(" · ") || "beginning";

  const focus = (id) => {
    const target = node.querySelector(`[data-id="${id}"]`);
    if (!target) return false;
    for (const one of node.querySelectorAll("[data-id][tabindex='0']")) one.tabIndex = -1;
    target.tabIndex = 0;
    target.focus({ preventScroll: false });
    return true;
  };

  node.addEventListener("keydown", (event) => {
    const at = event.target.closest("[data-id]");
    if (!at || event.altKey || event.ctrlKey || event.metaKey) return;
    const here = [...at.closest(".level").querySelectorAll("[data-id]")];
    const place = here.indexOf(at);
    const id = Number(at.dataset.id);
    const shown = (one) => node.querySelector(`[data-id="${one}"]`) !== null;
    const goTo = {
      ArrowDown: () => here[place + 1]?.dataset.id,
      ArrowUp: () => here[place - 1]?.dataset.id,
      Home: () => here[0].dataset.id,
      End: () => here.at(-1).dataset.id,
      ArrowLeft: () => walk.prefixes[id].parent,
      ArrowRight: () => walk.children[id].filter(shown).sort((a, b) => walk.prefixes[b].score - walk.prefixes[a].score)[0],
    }[event.key]?.();
    if (goTo === undefined || goTo === null) return;
    event.preventDefault();
    focus(Number(goTo));
  });

  return {
    node,
    draw,
    highlight(ids) {
      node.classList.toggle("dimmed", ids !== null);
      for (const one of node.querySelectorAll("[data-id]")) one.classList.toggle("on", ids?.has(Number(one.dataset.id)) ?? false);
    },
    title: (one) => `${path(one)} · ${nats(one.score)}`,
  };
}
