// The page put together: what is asked for changes, the server is asked, and the view that is open is drawn.

import { Failure, call } from "./api.js";
import { ask, body, change, onChange, readAddress } from "./ask.js";
import { drawCode } from "./code.js";
import { makeCombobox } from "./combobox.js";
import { $, count, debounced, fill, h, many, sign } from "./dom.js";
import { append, drawHistory } from "./history.js";
import { makeKeyDialog } from "./keys.js";
import { drawLoading, drawResults } from "./results.js";
import { clearTrouble, showTrouble } from "./trouble.js";
import { drawNoWalk, drawWalk } from "./walk.js";
import { makeWishes } from "./wishes.js";

const VIEWS = ["results", "walk", "code"];
let model = null;
let running = null; // the request on its way
let answer = null; // the last recommendation
let walked = null; // the request whose walk is shown, as text
let player = { stop: () => {} };
let view = "results";

const askKey = makeKeyDialog(() => (model ? run() : begin()));
const trouble = (failure) => {
  $("key-button").hidden = $("key-button").hidden && failure.kind !== "auth";
  showTrouble(failure, { again: () => (model ? run() : begin()), askKey: () => askKey() });
  $("says").textContent = "";
};

async function begin() {
  clearTrouble();
  drawLoading($("panel-results"));
  busy(true);
  try {
    const { data } = await call("/v1/models");
    [model] = data.data;
  } catch (failure) {
    fill($("panel-results"));
    return trouble(failure);
  } finally {
    busy(false);
  }
  showModel();
  await nameHistory();
  makeWishes(model);
  drawHistory();
  return run();
}

function showModel() {
  fill($("model"), h("b", {}, model.id.split("@")[0]), h("span", {}, many(model.items, "item")), h("span.model-hash", { title: `model ${model.id}, catalog ${model.catalog}` }, model.id.split("@")[1] ?? ""));
}

// Titles of a history that came with the address.
async function nameHistory() {
  await Promise.all(
    ask.history.map(async (item) => {
      try {
        const { data } = await call(`/v1/items/${encodeURIComponent(item.id)}`);
        item.title = data.title;
      } catch (failure) {
        if (!(failure instanceof Failure) || failure.status !== 404) throw failure;
        item.unknown = true;
      }
    }),
  ).catch(trouble);
}

async function run() {
  if (!model) return;
  running?.abort();
  const mine = (running = new AbortController());
  const asked = { ...body(model), explain: true, return_fields: model.fields.map((field) => field.name).slice(0, 64) };
  const isWalk = view === "walk" && (ask.mode ?? model.modes[0]) !== "query";
  const path = isWalk ? "/v1/walk" : "/v1/recommendations";
  busy(true);
  try {
    const { data, ms } = await call(path, { body: asked, signal: mine.signal });
    if (mine !== running) return;
    clearTrouble();
    if (view === "walk") {
      player.stop();
      if (isWalk) player = drawWalk($("panel-walk"), data);
      else drawNoWalk($("panel-walk"));
      walked = JSON.stringify(asked);
    }
    answer = isWalk ? data.recommendation : data;
    drawResults($("panel-results"), answer, ms);
    drawCode($("panel-code"), model, answer);
    $("says").textContent = `${many(answer.items.length, "item")}, ${count(answer.certified)} proven. ${answer.items[0]?.title ?? "No item is allowed"}`;
  } catch (failure) {
    if (failure.name === "AbortError" || mine !== running) return;
    if (!(failure instanceof Failure)) throw failure;
    if (!answer) fill($("panel-results"));
    if (!walked) fill($("panel-walk"));
    trouble(failure);
  } finally {
    if (mine === running) busy(false);
  }
}

let busyTimer = 0;
function busy(is) {
  clearTimeout(busyTimer);
  $("answer").setAttribute("aria-busy", String(is));
  // What is done at once needs no sign of being done.
  busyTimer = setTimeout(() => $("progress").classList.toggle("on", is), is ? 150 : 0);
}

function open(name, focus = false) {
  view = name;
  for (const one of VIEWS) {
    const tab = $(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    $(`panel-${one}`).hidden = one !== name;
  }
  if (focus) $(`tab-${name}`).focus();
  if (name !== "walk") return player.stop();
  const asked = model && JSON.stringify({ ...body(model), explain: true, return_fields: model.fields.map((field) => field.name).slice(0, 64) });
  if (asked !== walked) {
    if (!walked) drawLoading($("panel-walk"));
    return run();
  }
  return undefined;
}

VIEWS.forEach((name, place) => {
  $(`tab-${name}`).addEventListener("click", () => open(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) open(VIEWS[(place + step + VIEWS.length) % VIEWS.length], true);
  });
});

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
function showTheme() {
  fill($("theme-button"), sign(isDark() ? "sun" : "moon"));
  $("theme-button").setAttribute("aria-pressed", String(isDark()));
}
$("theme-button").addEventListener("click", () => {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("genrec.theme", next);
  showTheme();
});
dark.addEventListener("change", showTheme);

$("clear").addEventListener("click", () => {
  change({ history: [] });
  $("search").focus();
});
$("ask").addEventListener("submit", (event) => event.preventDefault());
addEventListener("offline", () => trouble(new Failure("gone", "")));
addEventListener("online", () => (model ? run() : begin()));

// On a phone the wishes are folded away, and what they say stands on the button.
function showWishes() {
  const words = [`${ask.k} items`, ask.where.trim() || null, ask.exact ? "exact" : null].filter(Boolean);
  fill($("wishes-toggle"), h("span", {}, "Filter and search"), h("span.hint", {}, words.join(" · ")), sign("fold"));
}
$("wishes-toggle").addEventListener("click", () => {
  const is = $("wishes-toggle").getAttribute("aria-expanded") === "true";
  $("wishes-toggle").setAttribute("aria-expanded", String(!is));
});

makeCombobox({ taken: append, failed: trouble });
onChange(drawHistory);
onChange(showWishes);
onChange(debounced(run, 60));
showTheme();
readAddress();
drawHistory();
showWishes();
if (sessionStorage.getItem("genrec.key")) $("key-button").hidden = false;
begin();
