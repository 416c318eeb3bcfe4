// One event stream, which comes back by itself exactly where it was.
//
// The cursor of the last event is kept: after a break, or a pause, the stream goes on behind it.

export class Connection {
  // `last`: by topic, how many of the newest records to begin with.
  constructor(last, { onrecord, oncontrol, onstate }) {
    Object.assign(this, { last, onrecord, oncontrol, onstate });
    this.cursor = null;
    this.attempt = 0;
    this.source = null;
    this.timer = null;
  }

  // Goes on behind the cursor, or from the end of the topics.
  open(fromEnd = false) {
    this.stop();
    const topics = [...this.last.keys()];
    if (topics.length === 0) return this.onstate("live", "live");
    const query = new URLSearchParams({ topics: topics.join(","), wait: "true" });
    if (fromEnd) query.set("from", "end");
    else if (this.cursor) query.set("cursor", this.cursor);
    else query.set("last", [...this.last.values()].join(","));
    this.onstate("connecting", "connecting");
    const source = new EventSource(`/v1/events?${query}`);
    this.source = source;
    source.onopen = () => {
      this.attempt = 0;
      this.onstate("live", "live");
    };
    source.onmessage = (message) => {
      this.cursor = message.lastEventId;
      this.onrecord(JSON.parse(message.data));
    };
    source.addEventListener("control", (message) => {
      this.cursor = message.lastEventId;
      this.oncontrol(JSON.parse(message.data));
    });
    // The browser would come back by itself, but would not say when.
    source.onerror = () => this.again();
  }

  again() {
    this.stop();
    let left = Math.min(15, 2 ** this.attempt++);
    const tick = () => {
      if (left <= 0) return this.open();
      this.onstate("reconnecting", `reconnecting in ${left--} s`);
      this.timer = setTimeout(tick, 1000);
    };
    tick();
  }

  stop() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  // How far the topics have gone beyond the cursor.
  async behind() {
    if (!this.cursor) return 0;
    const { topics } = await (await fetch("/v1/topics")).json();
    const ends = new Map(topics.flatMap(({ name, partitions }) => partitions.map(({ partition, next }) => [`${name}:${partition}`, next])));
    let behind = 0;
    for (const part of this.cursor.split(";")) {
      const [named, places] = part.split(":");
      const [topic] = named.split("@");
      for (const place of places.split(",").filter(Boolean)) {
        const [partition, offset] = place.split("=");
        behind += Math.max(0, (ends.get(`${topic}:${partition}`) ?? 0) - Number(offset));
      }
    }
    return behind;
  }
}

// A record as the views take it: its row, its time, and where it lies.
export function asRow({ topic, partition, offset, time, key, value, text, base64 }) {
  const plain = value !== null && typeof value === "object" && !Array.isArray(value);
  const row = plain ? value : value !== undefined ? { value } : text !== undefined ? { text } : { base64 };
  return { topic, partition, offset, key, row, at: Date.parse(time), id: `${partition}-${offset}` };
}
