// The map: the catalog from left to right in the order of the trie. Every prefix is one stretch of it, so a level
// of the trie is a band, and a search narrows from the whole width to single items.

import { h, svg } from "./dom.js";

const WIDTH = 1000;
const BAND = 30;
const GAP = 7;
const LEAST = { certified: 4, finished: 3, live: 2.500, walked: 2, scored: 1.500, pruned: 0.700, filtered: 0.700 };
const ORDER = ["pruned", "filtered", "scored", "walked", "live", "finished", "certified"];

export function makeMap(walk, { pointed, chosen }) {
  const { items } = walk.data;
  const height = walk.levels * (BAND + GAP) - GAP;
  const x = (rank) => (WIDTH * rank) / items;
  const picture = svg("svg", { class: "map", viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(
    svg("defs", {}, svg("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { class: "hatch-ground", width: 5, height: 5 }), svg("rect", { class: "hatch-line", width: 2, height: 5 }))),
  );
  const y = (level) => (level - 1) * (BAND + GAP);
  for (let level = 1; level <= walk.levels; level += 1) {
    picture.append(svg("rect", { class: "band", x: 0, y: y(level), width: WIDTH, height: BAND, rx: 3 }));
  }
  // Behind the prefixes that are listed: all that was scored below each expanded one.
  const grounds = [...walk.expandedAt.keys()].map((id) => {
    const one = walk.prefixes[id];
    const node = svg("rect", { class: "ground", x: x(one.start), y: y(one.level + 1), width: Math.max(0.700, x(one.end) - x(one.start)), height: BAND });
    return { id, node };
  });
  const layers = Object.fromEntries(ORDER.map((state) => [state, svg("g")]));
  const rects = walk.prefixes.slice(1).map((one) => {
    const node = svg("rect", { x: x(one.start), y: y(one.level), width: 1, height: BAND, "data-id": one.id });
    return { one, node };
  });
  picture.append(svg("g", {}, ...grounds.map((ground) => ground.node)), ...Object.values(layers));

  const idAt = (event) => {
    const id = event.target.dataset?.id;
    return id === undefined ? null : Number(id);
  };
  picture.addEventListener("pointermove", (event) => pointed(idAt(event)));
  picture.addEventListener("pointerleave", () => pointed(null));
  picture.addEventListener("click", (event) => idAt(event) !== null && chosen(idAt(event)));

  const labels = Array.from({ length: walk.levels }, (_, at) => h("span", {}, `Level ${at + 1}`));
  const frameNode = h("figure.map-frame", {}, h("div.map-labels", { "aria-hidden": "true" }, labels), h("div.map-picture", {}, picture),
    h("figcaption", {}, h("span", {}, "first item of the trie"), h("span", {}, "the catalog in the order of its codes"), h("span", {}, "last item")));

  return {
    node: frameNode,
    draw(frame) {
      for (const { id, node } of grounds) {
        const at = walk.expandedAt.get(id);
        node.toggleAttribute("hidden", at > frame.step);
        node.setAttribute("class", at > frame.step ? "ground off" : "ground");
      }
      const leading = walk.leading(frame);
      for (const { one, node } of rects) {
        const state = walk.state(one.id, frame);
        if (!state) {
          node.remove();
          continue;
        }
        const leads = state === "walked" && leading.has(one.id);
        const wide = Math.max(LEAST[state], x(one.end) - x(one.start) - (one.end - one.start > 1 ? 0.600 : 0));
        node.setAttribute("width", wide.toFixed(2));
        node.setAttribute("class", `cell ${state}${leads ? " leads" : ""}`);
        layers[leads ? "live" : state].append(node);
      }
    },
    highlight(ids) {
      picture.classList.toggle("dimmed", ids !== null);
      for (const { one, node } of rects) node.classList.toggle("on", ids?.has(one.id) ?? false);
    },
  };
}
