// From a walk to frames: what the search knew at every moment, and what it had made of each prefix by then.
// Nothing here draws; a frame is a step and one of its phases.

import { count, many, share } from "./dom.js";

const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// The order in which states are drawn and listed.
export const STATES = ["certified", "finished", "live", "walked", "scored", "pruned", "filtered"];
export const STATE_WORDS = {
  certified: "proven", finished: "item", live: "in the beam", walked: "walked", scored: "scored", pruned: "left out", filtered: "filtered",
};

export class Walk {
  constructor(data) {
    this.data = data;
    this.prefixes = data.prefixes;
    this.levels = Math.max(1, ...data.prefixes.map((one) => one.level));
    this.children = data.prefixes.map(() => []);
    for (const one of data.prefixes) if (one.parent !== null) this.children[one.parent].push(one.id);
    this.expandedAt = new Map(); // prefix → the first step that scored its children
    this.endedAt = new Map(); // prefix → the step that found it to be an item after all
    data.steps.forEach((step, number) => {
      for (const id of step.expanded) if (!this.expandedAt.has(id)) this.expandedAt.set(id, number);
      for (const { id } of step.ended) this.endedAt.set(id, number);
    });
    this.frames = data.steps.flatMap((step, number) => [
      { step: number, phase: "score" },
      ...(step.counts.filtered ? [{ step: number, phase: "filter" }] : []),
      { step: number, phase: "choose" },
    ]);
  }

  // What a prefix is at a frame; null where it is not known yet.
  state(id, { step, phase }) {
    const one = this.prefixes[id];
    const isLate = one.fate === "pruned" && this.expandedAt.get(id) === one.step + 1 && this.expandedAt.get(one.parent) < one.step;
    if (one.step > step || (isLate && one.step === step && phase !== "choose")) return null;
    if (id === 0) return this.expandedAt.get(0) <= step && !(step === 0 && phase === "score") ? "walked" : "live";
    if (one.step === step && phase !== "choose" && !isLate) return phase === "filter" && one.fate === "filtered" ? "filtered" : "scored";
    if (one.fate === "filtered") return "filtered";
    const ended = this.endedAt.get(id);
    if (one.fate === "finished" || (ended !== undefined && (ended < step || (ended === step && phase === "choose")))) {
      return this.certified({ step, phase }).some((item) => one.examples.includes(item)) ? "certified" : "finished";
    }
    const expanded = this.expandedAt.get(id);
    if (expanded !== undefined && expanded <= step) return "walked";
    return one.fate === "live" || expanded === step + 1 ? "live" : "pruned";
  }

  // Ids of the items that are proven at a frame.
  certified(frame) {
    const at = frame.phase === "choose" ? frame.step : frame.step - 1;
    if (at < 0) return [];
    const { found, certified } = this.data.steps[at];
    return found.slice(0, certified).map((item) => item.item_id);
  }

  // Prefixes on the way to a proven item at a frame.
  leading(frame) {
    const proven = new Set(this.certified(frame));
    const ways = this.prefixes.filter((one) => one.examples.some((item) => proven.has(item)) && this.state(one.id, frame) === "certified");
    return new Set(ways.flatMap((one) => this.path(one.id)));
  }

  // The answer as it stands at a frame.
  found(frame) {
    const at = frame.phase === "choose" ? frame.step : frame.step - 1;
    return at < 0 ? { found: [], certified: 0, bound: 0 } : this.data.steps[at];
  }

  // By state, the prefixes of a level at a frame: those listed (best first) and what is only counted.
  level(level, frame) {
    const groups = Object.fromEntries(STATES.map((state) => [state, { listed: [], more: 0, items: 0, best: null }]));
    for (const one of this.prefixes) {
      if (one.level !== level) continue;
      const state = this.state(one.id, frame);
      if (state) groups[state].listed.push(one);
    }
    this.data.steps.slice(0, frame.step + 1).forEach((step, number) => {
      for (const rest of step.unlisted) {
        if (this.prefixes[rest.parent].level + 1 !== level) continue;
        const isNow = number === frame.step && frame.phase !== "choose";
        const state = isNow && !(frame.phase === "filter" && rest.fate === "filtered") ? "scored" : rest.fate;
        const group = groups[state];
        group.more += rest.count;
        group.items += rest.items;
        if (group.best === null || rest.best > group.best) group.best = rest.best;
      }
    });
    for (const group of Object.values(groups)) group.listed.sort((a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity));
    return groups;
  }

  // The prefixes from the root to one, itself included.
  path(id) {
    const way = [];
    for (let at = id; at !== null; at = this.prefixes[at].parent) way.unshift(at);
    return way;
  }

  below(id) {
    const all = [];
    const queue = [...this.children[id]];
    while (queue.length) {
      const next = queue.pop();
      all.push(next);
      queue.push(...this.children[next]);
    }
    return all;
  }

  caption(frame) {
    const step = this.data.steps[frame.step];
    const { counts } = step;
    if (frame.phase === "score") {
      const from = frame.step === 0 ? "the beginning" : many(step.expanded.length, "prefix", "prefixes");
      return `The model scores ${many(step.scored, "continuation")} of ${from}.`;
    }
    if (frame.phase === "filter") {
      return `${many(counts.filtered, "of them has", "of them have")} no allowed item below and ${counts.filtered === 1 ? "is" : "are"} never entered.`;
    }
    const next = this.data.steps[frame.step + 1]?.expanded.length ?? 0;
    const words = [];
    if (next) words.push(`the best ${many(next, "goes on", "go on")}`);
    if (counts.finished) words.push(`${many(counts.finished, "is an item", "are items")}`);
    if (counts.pruned) words.push(`${many(counts.pruned, "is left out", "are left out")}`);
    if (!next && !counts.pruned && counts.finished > 1) words[0] = `all ${many(counts.finished, "is an item", "are items")}`;
    const told = words.length ? `${words.join(", ")}.` : "";
    const bound = step.bound === null ? "nothing is left that could change the answer" : `whatever is not found yet is worth at most ${share(step.bound)}`;
    const proven = step.found.length ? `, so ${count(step.certified)} of ${many(step.found.length, "item")} ${step.certified === 1 ? "is" : "are"} proven` : "";
    return `${upper(told)} ${upper(bound)}${proven}.`.trim();
  }
}
