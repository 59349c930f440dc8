// What is asked for: one object, its JSON body, and its place in the address (so that a link says it all).

export const ask = {
  history: [], // [{id, title}] oldest first
  k: 10,
  beam: null, // null: the model's own
  mode: null,
  normalize: null,
  where: "",
  excludeSeen: true,
  exact: false,
  cap: null, // {field, most}
};

const listeners = new Set();
export const onChange = (listener) => listeners.add(listener);

// Change something and tell everybody: `change({k: 5})`.
export function change(values) {
  Object.assign(ask, values);
  history.replaceState(null, "", address());
  for (const listener of listeners) listener();
}

export const usesIds = () => ask.history.map((item) => item.id);

// What the model does where nothing else is asked for, in the mode that is chosen.
export function usual(model) {
  const mode = ask.mode ?? model.modes[0];
  return model.defaults?.find((one) => one.mode === mode) ?? model;
}

// The body of POST /v1/recommendations; what is left at its default is left out.
export function body(model) {
  const filter = {};
  if (ask.where.trim()) filter.where = ask.where.trim();
  if (!ask.excludeSeen) filter.exclude_seen = false;
  if (ask.cap) filter.max_per = { [ask.cap.field]: ask.cap.most };
  const decoding = {};
  if (ask.beam !== null && ask.beam !== usual(model).beam) decoding.beam = ask.beam;
  if (ask.normalize !== null && ask.normalize !== usual(model).normalize) decoding.normalize = ask.normalize;
  if (ask.exact) decoding.exact = true;
  const made = { history: usesIds(), num_results: ask.k };
  if (ask.mode !== null && ask.mode !== model.modes[0]) made.mode = ask.mode;
  if (Object.keys(filter).length) made.filter = filter;
  if (Object.keys(decoding).length) made.decoding = decoding;
  return made;
}

function address() {
  const words = new URLSearchParams();
  for (const id of usesIds()) words.append("h", id);
  if (ask.k !== 10) words.set("k", ask.k);
  for (const name of ["beam", "mode", "normalize"]) if (ask[name] !== null) words.set(name, ask[name]);
  if (ask.where.trim()) words.set("where", ask.where.trim());
  if (!ask.excludeSeen) words.set("seen", "1");
  if (ask.exact) words.set("exact", "1");
  if (ask.cap) words.set("cap", `${ask.cap.most}:${ask.cap.field}`);
  const text = words.toString();
  return text ? `#${text}` : location.pathname;
}

// Reads the address; titles of the history are the caller's to find. Values that make no sense are left out.
export function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (/^[1-9]\d{0,5}$/.test(words.get(name) ?? "") ? Number(words.get(name)) : null);
  ask.history = words.getAll("h").filter(Boolean).map((id) => ({ id, title: null }));
  ask.k = number("k") ?? 10;
  ask.beam = number("beam");
  ask.mode = words.get("mode");
  ask.normalize = ["catalog", "vocabulary"].includes(words.get("normalize")) ? words.get("normalize") : null;
  ask.where = words.get("where") ?? "";
  ask.excludeSeen = words.get("seen") !== "1";
  ask.exact = words.get("exact") === "1";
  const cap = /^([1-9]\d{0,5}):(.+)$/.exec(words.get("cap") ?? "");
  ask.cap = cap ? { most: Number(cap[1]), field: cap[2] } : null;
}
