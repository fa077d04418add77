"use strict";
// What the server tells: events each second, or answers to questions where a proxy keeps events.

const SILENCE_MS = 5000;
const POLL_MS = 2000;

/** @typedef {"connecting" | "live" | "polling" | "lost" | "refused"} Connection */

/** The state of the server's model that this page shows, kept up to date. */
class Stream {
  /**
   * @param {(state: PageState) => void} onState
   * @param {(connection: Connection) => void} onConnection
   */
  constructor(onState, onConnection) {
    this.onState = onState;
    this.onConnection = onConnection;
    this.query = "";
    /** @type {PageState | null} */
    this.state = null;
    /** @type {EventSource | null} */
    this.source = null;
    this.timer = 0;
    // A browser opens six connections to a host at most: hidden pages leave them to others.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        this.close();
      } else {
        this.open(this.query);
      }
    });
  }

  /**
   * Ask for something, from now on.
   * @param {string} query
   */
  open(query) {
    this.close();
    this.query = query;
    if (document.hidden) {
      return;
    }
    const source = new EventSource(`events?${query}`);
    this.source = source;
    source.onmessage = (event) => {
      this.take(JSON.parse(event.data));
      this.onConnection("live");
      this.wait(SILENCE_MS);
    };
    source.onerror = () => this.wait(0);
    this.wait(SILENCE_MS);
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  /**
   * Ask instead of listening if nothing comes for some time.
   * @param {number} timeMs
   */
  wait(timeMs) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), timeMs);
  }

  async poll() {
    const { query, source } = this;
    if (source?.readyState === EventSource.CLOSED) {
      // The server answered with an error, after which a browser does not try again.
      this.source = null;
    }
    /** @type {Connection} */
    let connection = "lost";
    try {
      const answer = await fetch(`state.json?${query}`, { cache: "no-store" });
      if (answer.ok) {
        const message = await answer.json();
        if (query === this.query) {
          this.take(message);
        }
        connection = "polling";
      } else if (answer.status === 401 || answer.status === 421) {
        connection = "refused";
      }
    } catch {
      // The server is not there; it may come back.
    }
    if (query !== this.query || document.hidden) {
      return;
    }
    this.onConnection(connection);
    if (this.source === null && connection === "polling") {
      this.open(query);
    }
    this.wait(POLL_MS);
  }

  /** @param {PageMessage} message */
  take(message) {
    const state = mergeMessage(this.state, message);
    if (state !== null) {
      this.state = state;
      this.onState(state);
    }
  }
}

/**
 * Return what a page knows after a message.
 * @param {PageState | null} known
 * @param {PageMessage} message
 * @returns {PageState | null} null if it cannot know it without what came before.
 */
function mergeMessage(known, message) {
  if (message.is_whole) {
    return /** @type {PageState} */ (/** @type {unknown} */ (message));
  }
  if (known === null) {
    return null;
  }
  const runs = new Map(known.shown.map((run) => [run.name, run]));
  const shown = message.shown?.map((run) => ({ ...runs.get(run.name), ...run }));
  const curves = new Map(known.curves.map((each) => [each.metric, each]));
  for (const tail of message.curves) {
    const before = curves.get(tail.metric);
    curves.set(tail.metric, tail.first && before ? joinCurves(before, tail) : tail);
  }
  return /** @type {PageState} */ ({
    ...known,
    ...message,
    shown: shown ?? known.shown,
    curves: [...curves.values()],
  });
}

/**
 * @param {Curves} before
 * @param {CurvesTail} tail
 * @returns {Curves}
 */
function joinCurves(before, tail) {
  const { first } = tail;
  /** @template T @param {T[]} one @param {T[]} other */
  const join = (one, other) => [...one.slice(0, first), ...other];
  return {
    ...tail,
    places: join(before.places, tail.places),
    lines: tail.lines.map((line, index) => ({
      ...line,
      mean: join(before.lines[index].mean, line.mean),
      least: join(before.lines[index].least, line.least),
      greatest: join(before.lines[index].greatest, line.greatest),
      nonfinite: [
        ...before.lines[index].nonfinite.filter(([at]) => at < first),
        ...line.nonfinite,
      ],
    })),
    bands: tail.bands.map((band, index) => ({
      ...band,
      least: join(before.bands[index].least, band.least),
      median: join(before.bands[index].median, band.median),
      greatest: join(before.bands[index].greatest, band.greatest),
    })),
  };
}
