// What the page says when there is no answer: each kind of trouble with what to do about it.

import { $, fill, h, sign } from "./dom.js";

const TITLES = {
  auth: "This server asks for an API key",
  overload: "The server is busy",
  timeout: "No answer in time",
  gone: "The server cannot be reached",
  failed: "The server failed",
  refused: "This cannot be answered",
};
const SIGN = { auth: "key", overload: "clock", timeout: "clock", gone: "offline", failed: "alert", refused: "alert" };

let waiting = 0;

// Fields of the form that an error's `param` is about, and where its message stands then.
const PLACES = [
  { begins: "filter.where", input: "where", error: "where-error" },
  { begins: "decoding.beam", input: "beam", error: "search-error" },
  { begins: "filter.max_per", input: "cap", error: "search-error" },
  { begins: "num_results", input: "k", error: "search-error" },
  { begins: "decoding", input: "exact", error: "search-error" },
];

export function clearTrouble() {
  clearInterval(waiting);
  fill($("trouble"));
  for (const { input, error } of PLACES) {
    $(error).hidden = true;
    $(input).removeAttribute("aria-invalid");
  }
  $("panel-results").inert = $("panel-walk").inert = false;
  $("answer").classList.remove("stale");
}

// Says it, and offers what helps: `again()` asks once more, `askKey()` opens the dialog.
export function showTrouble(failure, { again, askKey }) {
  clearTrouble();
  $("answer").classList.add("stale");
  const place = PLACES.find(({ begins }) => failure.param?.startsWith(begins));
  if (place) {
    $(place.error).textContent = failure.message;
    $(place.error).hidden = false;
    $(place.input).setAttribute("aria-invalid", "true");
  }
  const button = (text, act, kind = "primary") => h(`button.${kind}`, { type: "button", onclick: act }, text);
  const acts = [];
  if (failure.kind === "auth") acts.push(button("Enter the key", askKey));
  else if (failure.kind !== "refused") acts.push(button("Try again", again));
  const countdown = h("span.countdown", { role: "timer" });
  if (failure.kind === "overload") acts.push(countdown);
  fill(
    $("trouble"),
    h(
      `div.trouble.trouble-${failure.kind}`,
      { role: "alert" },
      h("span.trouble-sign", {}, sign(SIGN[failure.kind])),
      h(
        "div.trouble-text",
        {},
        h("h2", {}, TITLES[failure.kind]),
        h("p", {}, detail(failure, place)),
        facts(failure),
        acts.length ? h("div.trouble-acts", {}, acts) : null,
      ),
    ),
  );
  if (failure.kind === "overload") count(countdown, Math.max(1, failure.retryAfter), again);
}

function detail(failure, place) {
  if (failure.kind === "auth" && failure.code === "missing_api_key") return "It is kept in this tab only, until you close it.";
  if (failure.kind === "auth") return "The key that was entered is not one of this server's.";
  if (failure.kind === "overload") return "Too many requests are waiting. Yours goes again by itself in a moment.";
  if (failure.kind === "timeout") return "Ask for less: a narrower beam, fewer items, or no exact search.";
  if (failure.kind === "gone") return "Is genrec serve still running? What you have entered is kept.";
  return place ? "Correct the field that is marked; the last answer stays until then." : failure.message;
}

function facts(failure) {
  const words = [
    failure.status ? `status ${failure.status}` : null,
    failure.code,
    failure.param ? `field ${failure.param}` : null,
    failure.requestId && failure.kind === "failed" ? `request ${failure.requestId}` : null,
  ].filter(Boolean);
  return words.length ? h("p.trouble-facts", {}, words.join("  ·  ")) : null;
}

function count(node, seconds, again) {
  let left = seconds;
  const say = () => (node.textContent = `again in ${left} s`);
  say();
  waiting = setInterval(() => {
    left -= 1;
    if (left > 0) return say();
    clearInterval(waiting);
    again();
  }, 1000);
}
