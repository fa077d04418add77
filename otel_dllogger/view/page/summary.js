"use strict";
// What is known of each run in words: its state, where it is, what is wrong, its parameters.

/**
 * Show runs: their states, and all that the alert rules would say.
 * @param {HTMLElement} element
 * @param {RunInfo[]} runs
 */
function showRuns(element, runs) {
  while (element.children.length > runs.length) {
    element.lastElementChild?.remove();
  }
  runs.forEach((run, index) => {
    let card = /** @type {HTMLElement | null} */ (element.children[index] ?? null);
    if (card === null) {
      const head = make("div", "run-head", make("h2"), make("span", "state"), make("span", "words"));
      card = make("article", "run", head, make("dl", "facts"), make("ul", "findings"));
      element.append(card);
    }
    const [head, facts, findings] = card.children;
    const [name, state, words] = head.children;
    setText(name, run.name);
    showState(/** @type {HTMLElement} */ (state), run.state);
    setText(words, run.state === "training" ? "" : run.state_words);
    showFacts(facts, run);
    showFindings(findings, run);
  });
}

/**
 * @param {Element} list
 * @param {RunInfo} run
 */
function showFacts(list, run) {
  const ranks =
    run.world_size > run.rows.length
      ? `${run.rows.length} of ${run.world_size}`
      : String(run.rows.length);
  const lastS = run.last_log_s;
  /** @type {[string, string][]} */
  const facts = [["ranks", ranks]];
  if (run.epoch !== null) {
    facts.push(["epoch", formatNumber(run.epoch)]);
  }
  if (run.iteration !== null) {
    facts.push(["iteration", formatNumber(run.iteration)]);
  }
  if (run.step_s !== null) {
    facts.push(["step", writeDuration(run.step_s)]);
  }
  if (run.begin_s !== null) {
    facts.push(["began", formatPlace("wall", run.begin_s)]);
    if (lastS !== null) {
      facts.push(["for", formatSeconds(Math.round(lastS - run.begin_s))]);
    }
  }
  const restarts = new Set(run.starts.map((start) => start.attempt)).size;
  if (restarts) {
    facts.push(["restarts", String(restarts)]);
  }
  while (list.children.length > facts.length) {
    list.lastElementChild?.remove();
  }
  facts.forEach(([name, value], index) => {
    const pair = list.children[index] ?? list.appendChild(make("div", "", make("dt"), make("dd")));
    setText(pair.children[0], name);
    setText(pair.children[1], value);
  });
}

const SEVERITY_SIGNS = { critical: "▲", warning: "△", info: "i" };

/**
 * @param {Element} list
 * @param {RunInfo} run
 */
function showFindings(list, { findings }) {
  while (list.children.length > findings.length) {
    list.lastElementChild?.remove();
  }
  findings.forEach(({ severity, words, alert }, index) => {
    const item = /** @type {HTMLElement} */ (
      list.children[index] ??
        list.appendChild(make("li", "", make("span", "sign"), make("span", "words")))
    );
    item.dataset.severity = severity;
    item.title = alert;
    setText(item.children[0], SEVERITY_SIGNS[severity]);
    setText(item.children[1], words);
  });
}

/**
 * Show the best value of each metric that has a goal.
 * @param {HTMLElement} section
 * @param {RunInfo[]} runs
 */
function showBest(section, runs) {
  const rows = runs.flatMap((run) =>
    run.best.map((best) => {
      const metric = run.metrics.find(({ id }) => id === best.metric);
      return [
        ...(runs.length > 1 ? [run.name] : []),
        metric ? [titleOf(metric), noteOf(metric)].filter(Boolean).join(" · ") : best.metric,
        best.goal === "minimize" ? "least" : "greatest",
        formatNumber(best.value, 6),
        `rank ${best.rank}, ${best.x === null ? "before its page was read" : formatPlace("step", best.x)}`,
      ];
    }),
  );
  const titles = [...(runs.length > 1 ? ["run"] : []), "metric", "goal", "value", "where"];
  showTable(section, titles, rows);
}

/**
 * Show the parameters of runs side by side, those that differ first.
 * @param {HTMLElement} section
 * @param {RunInfo[]} runs
 */
function showParameters(section, runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.parameters)))].sort();
  const rows = names.map((name) => [
    name,
    ...runs.map((run) => {
      const value = run.parameters[name];
      return value === undefined ? "–" : String(value);
    }),
  ]);
  /** @param {string[]} row */
  const differs = ([, ...values]) => new Set(values).size > 1;
  rows.sort((one, other) => Number(differs(other)) - Number(differs(one)));
  showTable(section, ["parameter", ...runs.map((run) => run.name)], rows, differs);
}

/**
 * Show a table in a section, which is hidden while there is nothing to show.
 * @param {HTMLElement} section
 * @param {string[]} titles
 * @param {string[][]} rows
 * @param {(row: string[]) => boolean} [isMarked]
 */
function showTable(section, titles, rows, isMarked = () => false) {
  section.hidden = rows.length === 0;
  const signature = JSON.stringify([titles, rows]);
  if (section.dataset.signature === signature) {
    return;
  }
  section.dataset.signature = signature;
  const head = make("tr", "", ...titles.map((title) => make("th", "", title)));
  const body = rows.map((row) =>
    make("tr", isMarked(row) ? "is-marked" : "", ...row.map((text) => make("td", "", text))),
  );
  const table = make("table", "", make("thead", "", head), make("tbody", "", ...body));
  const box = make("div", "scroll", table);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", section.querySelector("h2")?.textContent ?? "");
  section.querySelector(".scroll")?.remove();
  section.append(box);
}
