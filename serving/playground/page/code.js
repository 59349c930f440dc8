// The request as others would write it: curl, Python, and the JSON that came back.

import { body } from "./ask.js";
import { fill, h } from "./dom.js";

export function drawCode(panel, model, answer) {
  const asked = { ...body(model), explain: true };
  const json = JSON.stringify(asked, null, 2);
  fill(
    panel,
    block("curl", `curl -s ${location.origin}/v1/recommendations \\\n  -H 'content-type: application/json' \\\n  -d '${json.replaceAll("'", "'\\''")}'`),
    block("Python", python(asked)),
    answer ? block("Answer", JSON.stringify(answer, null, 2)) : null,
  );
}

function block(title, text) {
  const copy = h("button.quiet", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Select it and copy"; // no permission, or no secure origin
    }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return h("section.code", { "aria-label": title }, h("div.code-head", {}, h("h3", {}, title), copy), h("pre", { tabIndex: 0 }, h("code", {}, text)));
}

function python(asked) {
  const words = [`    ${JSON.stringify(asked.history)},`, `    k=${asked.num_results},`];
  const say = (name, value) => words.push(`    ${name}=${value},`);
  if (asked.filter?.where) say("where", JSON.stringify(asked.filter.where));
  if (asked.filter?.exclude_seen === false) say("exclude_seen", "False");
  if (asked.filter?.max_per) say("max_per", JSON.stringify(asked.filter.max_per));
  if (asked.decoding?.beam) say("beam", asked.decoding.beam);
  if (asked.decoding?.normalize) say("normalize", JSON.stringify(asked.decoding.normalize));
  if (asked.decoding?.exact) say("exact", "True");
  return `import genrec\n\nrecommender = genrec.Recommender.load("path/to/bundle")\nanswer = recommender.recommend(\n${words.join("\n")}\n)\nfor item in answer.items:\n    print(item.rank, item.title, item.probability)`;
}
