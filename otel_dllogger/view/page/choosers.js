"use strict";
// The choosers: runs, metrics, and how curves are drawn.

/** A list of boxes to tick, which is built anew only if its entries are different. */
class TickList {
  /**
   * @param {HTMLElement} element
   * @param {(id: string, isTicked: boolean) => void} onTick
   */
  constructor(element, onTick) {
    this.element = element;
    this.onTick = onTick;
    this.signature = "";
  }

  /**
   * @param {{id: string, group: string, words: string, more: string, state?: string}[]} entries
   * @param {Set<string>} ticked
   */
  update(entries, ticked) {
    const signature = JSON.stringify(entries.map(({ id, group, words }) => [id, group, words]));
    if (signature !== this.signature) {
      this.signature = signature;
      this.build(entries);
    }
    const items = this.element.querySelectorAll("label");
    entries.forEach(({ id, more, state }, index) => {
      const [input, , note] = items[index].children;
      const box = /** @type {HTMLInputElement} */ (input);
      box.checked = ticked.has(id);
      if (state === undefined) {
        setText(note, more);
      } else {
        showState(/** @type {HTMLElement} */ (note), state);
      }
    });
  }

  /** @param {{id: string, group: string, words: string}[]} entries */
  build(entries) {
    const parts = [];
    let last = "";
    for (const { id, group, words } of entries) {
      if (group !== last) {
        parts.push(make("h3", "", group));
        last = group;
      }
      const box = make("input");
      box.type = "checkbox";
      box.addEventListener("change", () => this.onTick(id, box.checked));
      const name = make("span", "name", words);
      name.title = words;
      parts.push(make("label", "", box, name, make("span", "note")));
    }
    this.element.replaceChildren(...parts);
  }

  /** @param {string} text Only entries with it are shown. */
  filter(text) {
    const wanted = text.trim().toLowerCase();
    for (const label of this.element.querySelectorAll("label")) {
      label.hidden = !label.textContent?.toLowerCase().includes(wanted);
    }
  }
}

/**
 * Return the entries of the chooser of metrics: those of all runs, by kind of step.
 * @param {RunInfo[]} runs
 */
function metricEntries(runs) {
  /** @type {Map<string, MetricInfo>} */
  const metrics = new Map();
  for (const run of runs) {
    run.metrics.forEach((metric) => metrics.set(metric.id, metrics.get(metric.id) ?? metric));
  }
  const entries = [...metrics.values()].map((metric) => ({
    id: metric.id,
    group: groupOf(metric),
    words: titleOf(metric),
    more: metric.unit,
  }));
  const withStages = entries.map((entry) => {
    const stage = metrics.get(entry.id)?.stage;
    return { ...entry, words: stage ? `${entry.words} (${stage})` : entry.words };
  });
  return entries
    .map((entry, index) => {
      // The shortest words that tell it apart from the others of its group.
      const short = isOnlyOne(entry, entries) ? entry : withStages[index];
      return short === entry || isOnlyOne(short, withStages) ? short : { ...entry, words: entry.id };
    })
    .sort((one, other) => GROUPS.indexOf(one.group) - GROUPS.indexOf(other.group));
}

/**
 * @param {{group: string, words: string}} entry
 * @param {{group: string, words: string}[]} all
 */
function isOnlyOne({ group, words }, all) {
  return all.filter((other) => other.group === group && other.words === words).length === 1;
}

const GROUPS = ["each iteration", "each epoch", "validation", "whole run", "other"];
const GROUP_OF = new Map([
  ["iteration", GROUPS[0]],
  ["epoch", GROUPS[1]],
  ["validation", GROUPS[2]],
  ["run", GROUPS[3]],
]);

/** @param {MetricInfo} metric */
function groupOf(metric) {
  return GROUP_OF.get(metric.granularity) ?? GROUPS[4];
}

/**
 * Return what tells a metric from others of its name.
 * @param {MetricInfo} metric
 */
function noteOf(metric) {
  const group = metric.granularity === "iteration" ? "" : groupOf(metric);
  const isInName = metric.metric.toLowerCase().startsWith(metric.stage);
  return [isInName ? "" : metric.stage, group, metric.unit].filter(Boolean).join(" · ");
}

/** @param {MetricInfo} metric */
function titleOf(metric) {
  return metric.metric || metric.name;
}
