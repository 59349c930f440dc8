// The controls of a search: how many, how wide, which scores, which mode, and which items are allowed.

import { ask, change, usual } from "./ask.js";
import { $, debounced, fill, h } from "./dom.js";

const OPERATORS = {
  integer: [">=", "<=", "==", "!=", ">", "<"],
  number: [">=", "<=", "==", "!=", ">", "<"],
  string: ["==", "!="],
  boolean: ["==", "!="],
  "list of strings": ["contains"],
};
const WORDS = { ">=": "≥", "<=": "≤", "==": "is", "!=": "is not", ">": ">", "<": "<", contains: "has" };
const MODES = { semantic_id: "Item codes", title: "Titles", query: "Queries" };

export function makeWishes(model) {
  number("k", "k-range", model.limits.num_results, () => ask.k, (k) => change({ k }));
  const showBeam = number("beam", "beam-range", model.limits.beam, () => ask.beam ?? usual(model).beam, (beam) => change({ beam }));
  const drawNorms = segments("norms", [["catalog", "Catalog"], ["vocabulary", "Vocabulary"]], () => ask.normalize ?? usual(model).normalize, (normalize) => change({ normalize }));
  $("mode-row").hidden = model.modes.length < 2;
  segments("modes", model.modes.map((mode) => [mode, MODES[mode] ?? mode]), () => ask.mode ?? model.modes[0], (mode) => {
    change({ mode, beam: null, normalize: null }); // every mode has its own
    showBeam();
    drawNorms();
  });
  toggle("exact", "exact");
  toggle("exclude-seen", "excludeSeen");
  filter(model);
  caps(model);
}

// A number beside a slider: the slider is for the hand, the number is exact and goes as far as the server allows.
function number(id, rangeId, limit, get, set) {
  const box = $(id);
  const range = $(rangeId);
  const top = Math.min(Number(range.max), limit);
  box.max = limit;
  range.max = top;
  const show = (value) => {
    box.value = value;
    range.value = Math.min(value, top);
    range.style.setProperty("--at", `${(100 * (range.value - 1)) / Math.max(1, top - 1)}%`);
  };
  const later = debounced(set, 180);
  range.addEventListener("input", () => {
    show(Number(range.value));
    later(Number(range.value));
  });
  box.addEventListener("change", () => {
    const value = Math.round(Number(box.value));
    const inside = Math.min(limit, Math.max(1, Number.isFinite(value) && value ? value : get()));
    show(inside);
    set(inside);
  });
  show(get());
  return () => show(get());
}

function segments(id, choices, get, set) {
  const group = $(id);
  const draw = (focus) => {
    fill(
      group,
      choices.map(([value, text]) =>
        h("button.segment", {
          type: "button", role: "radio", "aria-checked": String(get() === value), tabIndex: get() === value ? 0 : -1, textContent: text,
          onclick: () => choose(value),
        }),
      ),
    );
    if (focus) group.querySelector("[aria-checked=true]")?.focus();
  };
  const choose = (value) => {
    set(value);
    draw(true);
  };
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = choices.findIndex(([value]) => value === get());
    choose(choices[(at + step + choices.length) % choices.length][0]);
  });
  draw(false);
  return () => draw(false);
}

function toggle(id, name) {
  $(id).checked = ask[name];
  $(id).addEventListener("change", () => change({ [name]: $(id).checked }));
}

export function showExact() {
  $("exact").checked = ask.exact;
}

function filter(model) {
  const where = $("where");
  where.value = ask.where;
  grow(where);
  where.addEventListener("input", () => grow(where));
  where.addEventListener("input", debounced(() => change({ where: where.value }), 350));
  where.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      change({ where: where.value });
    }
  });
  if (!model.fields.length) {
    $("picker").hidden = true;
    return;
  }
  const field = h("select", { "aria-label": "Field" }, model.fields.map((one) => h("option", { value: one.name }, one.name)));
  const operator = h("select", { "aria-label": "Comparison" });
  const value = h("input", { type: "text", "aria-label": "Value", placeholder: "value", spellcheck: false });
  const add = h("button.quiet", { type: "button" }, "Add");
  const typeOf = () => model.fields.find((one) => one.name === field.value).type;
  const adapt = () => {
    fill(operator, OPERATORS[typeOf()].map((one) => h("option", { value: one }, WORDS[one])));
    value.inputMode = ["integer", "number"].includes(typeOf()) ? "decimal" : "text";
    value.placeholder = typeOf() === "boolean" ? "true" : "value";
  };
  const put = () => {
    const written = literal(value.value.trim(), typeOf());
    value.classList.toggle("wrong", written === null);
    if (written === null) return value.focus();
    const name = /^[A-Za-z_]\w*$/.test(field.value) ? field.value : null;
    const part = condition(name ?? field.value, operator.value, written);
    where.value = where.value.trim() ? `${where.value.trim()} and ${part}` : part;
    value.value = "";
    grow(where);
    change({ where: where.value });
  };
  field.addEventListener("change", adapt);
  add.addEventListener("click", put);
  value.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    put();
  });
  adapt();
  fill($("picker"), field, operator, value, add);
}

const condition = (field, operator, value) => (operator === "contains" ? `${value} in ${field}` : `${field} ${operator} ${value}`);

// A value as the filter language writes it; null where it is none of its field's type.
function literal(text, type) {
  if (type === "boolean") return /^(true|false)$/i.test(text) ? (text.toLowerCase() === "true" ? "True" : "False") : null;
  if (type === "integer" || type === "number") return /^-?\d+(\.\d+)?$/.test(text) ? text : null;
  return text ? JSON.stringify(text) : null;
}

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(180, area.scrollHeight + 2)}px`;
}

function caps(model) {
  const fields = model.fields.filter((one) => one.type !== "number");
  $("cap-row").hidden = !fields.length;
  const field = $("cap-field");
  fill(field, fields.map((one) => h("option", { value: one.name }, one.name)));
  if (ask.cap && fields.some((one) => one.name === ask.cap.field)) {
    field.value = ask.cap.field;
    $("cap").value = ask.cap.most;
  }
  const set = () => {
    const most = Math.round(Number($("cap").value));
    change({ cap: most >= 1 ? { field: field.value, most } : null });
  };
  $("cap").addEventListener("change", set);
  field.addEventListener("change", () => $("cap").value && set());
}
