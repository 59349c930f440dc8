// The recommendations: what, how likely, why, and how much of it is proven.

import { append } from "./history.js";
import { ask, change } from "./ask.js";
import { count, fill, h, many, ms, nats, share, sign } from "./dom.js";
import { showExact } from "./wishes.js";

const LONGEST = 64; // letters of a field that still stands in the line below the title

export function drawResults(panel, answer, wall) {
  const { items } = answer;
  if (!items.length) return fill(panel, summary(answer, wall), nothing(answer));
  const best = items[0].score;
  const rows = items.map((item) => row(item, answer, best));
  if (answer.mode !== "query" && answer.certified && answer.certified < items.length) rows.splice(answer.certified, 0, cut(answer));
  return fill(panel, ask.history.length ? null : welcome(), summary(answer, wall), queries(answer), notes(answer), h("ol.results", {}, rows));
}

export function drawLoading(panel) {
  const bar = (width) => h("span.ghost-bar", { dataset: { width } });
  fill(panel, h("div.ghosts", { "aria-hidden": "true" }, Array.from({ length: 6 }, () => h("div.ghost", {}, bar("s"), bar("l"), bar("m")))));
}

function welcome() {
  return h(
    "div.welcome",
    {},
    h("h2", {}, "Start with a few items somebody liked"),
    h("p", {}, "Find them by title, or take one from below: this is what the model recommends to a user it knows nothing about."),
  );
}

function nothing(answer) {
  return h(
    "div.empty",
    {},
    sign("filtered"),
    h("h2", {}, "No item is allowed"),
    h("p", {}, answer.notes[0] ?? "The filter leaves nothing of this catalog."),
    ask.where ? h("button.primary", { type: "button", onclick: () => clearFilter() }, "Clear the filter") : null,
  );
}

function clearFilter() {
  document.getElementById("where").value = "";
  change({ where: "" });
}

function summary(answer, wall) {
  const { usage, timings_ms: times, certified, items } = answer;
  const all = certified === items.length && certified > 0;
  const fact = (value, name, title) => h("span.fact", { title }, h("b", {}, value), ` ${name}`);
  const seal = answer.mode !== "query" // what queries find is not proven to be anything
    ? h(
        `span.seal-line.${all ? "all" : "some"}`,
        {},
        sign(all ? "certified" : "live"),
        all ? `All ${count(certified)} proven to be in their place` : `${count(certified)} of ${count(items.length)} proven to be in their place`,
      )
    : null;
  return h(
    "div.summary",
    {},
    seal,
    h(
      "span.facts",
      {},
      fact(ms(times.total), "in the server", `queue ${ms(times.queue)}, search ${ms(times.search)}, whole request ${ms(wall)} as the browser sees it`),
      fact(count(usage.expansions), usage.expansions === 1 ? "prefix expanded" : "prefixes expanded", "Beam " + usage.beam),
      fact(count(usage.model_calls), usage.model_calls === 1 ? "model call" : "model calls"),
    ),
  );
}

// The queries that the model wrote, with what each has found.
function queries(answer) {
  if (!answer.queries?.length) return null;
  return h("ul.queries", { "aria-label": "Queries written" }, answer.queries.map((query) =>
    h("li", { title: `log-probability ${nats(query.score)}` }, h("b", {}, `“${query.text}”`), h("span.hint", {}, many(query.found, "item")))));
}

function notes(answer) {
  const words = answer.notes.filter((note) => ask.history.length || !note.startsWith("empty history"));
  if (answer.missing_ids.length) words.push(`Not in the catalog and not used: ${answer.missing_ids.slice(0, 5).join(", ")}`);
  return words.length ? h("ul.notes", {}, words.map((word) => h("li", {}, word.charAt(0).toUpperCase() + word.slice(1)))) : null;
}

// The line behind the last proven item: what stands below it may still be beaten.
function cut(answer) {
  const rest = answer.items.length - answer.certified;
  return h(
    "li.cut",
    {},
    h("span", {}, `${many(rest, "item")} below ${rest === 1 ? "is" : "are"} likely, not proven: something the beam left out could still belong here.`),
    ask.exact
      ? null
      : h("button.link", {
          type: "button", textContent: "Prove all",
          onclick: () => {
            change({ exact: true });
            showExact();
          },
        }),
  );
}

function row(item, answer, best) {
  const { explanation: why } = item;
  const isShare = item.probability !== null;
  const isFound = item.source === "retrieved"; // by BM25, whose scores are no logarithms
  const bar = h("span.share-bar", {}, h("i"));
  bar.firstChild.style.width = `${Math.max(1, 100 * (isFound ? item.score / best : Math.exp(item.score - best)))}%`;
  const more = details(item, answer);
  more.hidden = true;
  const title = h("button.title", { type: "button", "aria-expanded": "false" }, item.title);
  title.addEventListener("click", () => {
    more.hidden = !more.hidden;
    title.setAttribute("aria-expanded", String(!more.hidden));
  });
  return h(
    `li.result${why?.proven ? ".proven" : ""}`,
    { dataset: { id: item.item_id } },
    h("span.place", {}, String(item.rank)),
    h("div.what", {}, title, facts(item), isFound ? match(item) : reason(why), more),
    h(
      "div.share",
      { title: `${isFound ? "BM25 score" : "log-probability"} ${nats(item.score)}` },
      h("span.share-number", {}, isShare ? share(item.score) : nats(item.score)),
      bar,
    ),
    h("span.seal", { title: why?.proven ? "Proven: no allowed item can stand above it" : "Not proven" }, why?.proven ? sign("certified") : null, why?.proven ? h("span.sr", {}, "proven") : null),
    h("button.add", { type: "button", title: "Add to the history", "aria-label": `Add ${item.title} to the history`, onclick: () => append({ id: item.item_id, title: item.title }) }, sign("plus")),
  );
}

const written = (value) => (Array.isArray(value) ? value.join(", ") : String(value));

function facts(item) {
  const words = Object.values(item.fields)
    .filter((value) => value !== null && value !== "" && !(Array.isArray(value) && !value.length))
    .map(written)
    .filter((text) => text.length <= LONGEST && text !== item.item_id);
  return words.length ? h("div.item-facts", {}, words.slice(0, 5).map((word) => h("span", {}, word))) : null;
}

function match(item) {
  const words = item.matched_terms.map((one) => one.term);
  return h("div.reason", {}, "Found by ", h("b", {}, `“${item.generated}”`), words.length ? h("span.codes", { title: "words in common" }, words.map((word) => h("b", {}, word))) : null);
}

function reason(why) {
  if (!why?.similar_in_history.length) return null;
  const [first] = why.similar_in_history;
  const known = ask.history.find((one) => one.id === first.item_id);
  const others = why.similar_in_history.length - 1;
  return h(
    "div.reason",
    {},
    "Coded like ", h("b", {}, known?.title ?? first.item_id),
    others ? ` and ${others} more` : "",
    h("span.codes", { title: `${first.shared_levels} of ${why.semantic_id.length} codes in common` }, why.semantic_id.map((code, at) => h(at < first.shared_levels ? "b" : "span", {}, String(code)))),
  );
}

function details(item, answer) {
  const rows = [["id", item.item_id], ["score", item.source === "retrieved" ? `${nats(item.score)} (BM25)` : `${nats(item.score)} (log-probability, ${answer.normalize})`]];
  if (item.explanation) rows.push(["codes", item.explanation.semantic_id.join(" · ")]);
  for (const [name, value] of Object.entries(item.fields)) if (value !== null) rows.push([name, written(value)]);
  return h("dl.details", {}, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
