// What is known of one prefix, in words; and what the signs mean while none is pointed at.

import { count, fill, h, many, nats, share, sign } from "./dom.js";
import { STATE_WORDS, STATES } from "./frames.js";

const MEANING = {
  certified: "An item in its final place: nothing that is left could stand above it.",
  finished: "An item: its codes are unique from here on, so it is done.",
  live: "Goes on: its continuations are scored in the next step.",
  walked: "Was in the beam: its continuations have been scored.",
  scored: "Scored just now; what becomes of it is decided in this step.",
  pruned: "Left out: enough others are likelier. Its score bounds what was missed.",
  filtered: "Never entered: none of the items below is allowed.",
};

export function drawDetail(node, walk, frame, id) {
  node.classList.toggle("pointed", id !== null);
  if (id === null) return fill(node, legend(walk, frame));
  const one = walk.prefixes[id];
  const state = walk.state(id, frame);
  const size = one.end - one.start;
  const codes = walk.path(id).slice(1).map((at) => walk.prefixes[at]);
  const looksAhead = one.order !== null && one.score !== null && Math.abs(one.order - one.score) > 1e-6 && state !== "filtered";
  return fill(
    node,
    h("div.detail-head", {}, h(`span.chip.${state}`, {}, sign(state ?? "scored"), STATE_WORDS[state] ?? "not known yet"), h("span.hint", {}, `level ${one.level}, step ${one.step + 1}`)),
    h("p.detail-path", {}, codes.map((part, at) => [at ? h("i", { "aria-hidden": "true" }, "›") : null, h(at === codes.length - 1 ? "b" : "span", {}, part.label.replaceAll(" · ", "·"))])),
    h("p.detail-why", {}, MEANING[state] ?? "", state === "walked" && walk.leading(frame).has(id) ? " It leads to an item that is proven." : ""),
    h(
      "dl.detail-facts",
      {},
      pair("Probability", share(one.score)),
      pair("Score", nats(one.score)),
      looksAhead ? pair("Looking ahead", nats(one.order)) : null,
      pair("Allowed below", `${count(one.allowed)} of ${many(size, "item")}`),
    ),
    one.examples.length
      ? h("div.detail-items", {}, h("h4", {}, size <= one.examples.length ? "Below" : "Below, for example"), h("ul", {}, one.examples.map((item) => h("li", {}, walk.data.titles[item]))))
      : null,
  );
}

const pair = (name, value) => [h("dt", {}, name), h("dd", {}, value)];

function legend(walk, frame) {
  const { found, certified, bound } = walk.found(frame);
  return [
    h("h4", {}, "The answer so far"),
    found.length
      ? h("ol.so-far", {}, found.slice(0, 10).map((item, at) => h(`li${at < certified ? ".proven" : ""}`, {}, sign(at < certified ? "certified" : "finished"), h("span", {}, walk.data.titles[item.item_id]), h("span.hint", {}, share(item.score)))))
      : h("p.hint", {}, "No item is complete yet."),
    found.length ? h("p.hint", {}, bound === null ? "Nothing is left that could change it." : `Whatever is not found yet is worth at most ${share(bound)}.`) : null,
    h("h4", {}, "Signs"),
    h("ul.legend", {}, STATES.filter((state) => state !== "scored").map((state) => h("li", {}, h(`span.chip.${state}`, {}, sign(state), STATE_WORDS[state]))), h("li", {}, h("span.chip.leads", {}, sign("walked"), "leads to a proven item"))),
  ];
}
