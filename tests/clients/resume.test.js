// The shim examples/polycast-resume.js below unmodified versions of pusher-js: reconnects under
// load, without a lost or repeated event.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const net = require("node:net")
const path = require("node:path")
const { once } = require("node:events")
const { app, authorizer, next, state, until, withServer } = require("./support")

const RECONNECTS = 20
const SHIM = [path.join(__dirname, "examples"), path.join(__dirname, "../../examples")]
  .map((folder) => path.join(folder, "polycast-resume.js")).find((file) => fs.existsSync(file))
const HISTORY = (more = "") => app(`
client_events = true
[[apps.history]]
channels = ["chat-*", "private-chat-*"]
events = 5000
bytes = "4MiB"
${more}`)
const LINKED = `
[[apps]]
id = "2"
key = "view-key"
secret = "view-secret"
[[links]]
source = { app = "1", channel = "chat-{n}" }
views = [{ app = "2", channel = "view-{n}" }]
`
const VERSIONS = { 7: "pusher-js-7", 8: "pusher-js" }

for (const name of Object.values(VERSIONS)) require(SHIM)(require(name))

/** The close frame of code 4200, after which pusher-js reconnects at once. */
const CLOSE = Buffer.from([0x88, 2, 0x10, 0x68])

/** The length of the first frame in bytes of the server, if it is complete. */
function frameLength(bytes) {
  if (bytes.length < 4) return bytes.length >= 2 && bytes[1] < 126 ? fits(2 + bytes[1]) : 0
  const length = { 126: () => 4 + bytes.readUInt16BE(2) }[bytes[1]]
  return fits(length ? length() : bytes[1] === 127 ? long() : 2 + bytes[1])

  function long() {
    return bytes.length < 10 ? Infinity : 10 + Number(bytes.readBigUInt64BE(2))
  }
  function fits(length) {
    return length <= bytes.length ? length : 0
  }
}

/** Passes connections on to the server, whole frames to the client, and ends them when asked to. */
class Relay {
  static async start(server) {
    const relay = new Relay()
    relay.clients = new Set()
    relay.isAway = false
    relay.server = net.createServer((client) => {
      if (relay.isAway) return client.destroy()
      const upstream = net.connect(server.port, server.host)
      relay.clients.add(client)
      for (const socket of [client, upstream]) {
        socket.on("error", () => {})
        socket.on("close", () => {
          relay.clients.delete(client)
          client.destroy()
          upstream.destroy()
        })
      }
      client.pipe(upstream)
      let waiting = Buffer.alloc(0)
      let isUpgraded = false
      upstream.on("data", (bytes) => {
        waiting = Buffer.concat([waiting, bytes])
        if (!isUpgraded) {
          const end = waiting.indexOf("\r\n\r\n")
          if (end < 0) return
          isUpgraded = true
          client.write(waiting.subarray(0, end + 4))
          waiting = waiting.subarray(end + 4)
        }
        for (let length; (length = frameLength(waiting)) && relay.clients.has(client);) {
          client.write(waiting.subarray(0, length))
          waiting = waiting.subarray(length)
        }
      })
    })
    relay.server.listen(0, "127.0.0.1")
    await once(relay.server, "listening")
    return relay
  }

  get port() {
    return this.server.address().port
  }

  /** Closes all connections with code 4200, between two frames. */
  close() {
    for (const client of this.clients) client.end(CLOSE)
    this.clients.clear()
  }

  /** Cuts all connections. */
  cut() {
    for (const client of this.clients) client.destroy()
    this.clients.clear()
  }

  stop() {
    this.cut()
    this.server.close()
  }
}

function client(library, port, { key = "app-key", ...options } = {}) {
  const Pusher = require(library)
  return new Pusher(key, {
    wsHost: "127.0.0.1", wsPort: port, forceTLS: false, enabledTransports: ["ws"],
    enableStats: false, cluster: "",
    // pusher-js gives up the WebSocket for good after two connections that have lived for less than
    // twice this time, in milliseconds.
    activityTimeout: 10,
    ...options,
  })
}

/**
 * Publishes numbers to a channel, one after the other, until `stop` is called: at most 1000 a
 * second, so that the history of 5000 events covers an absence of five seconds.
 */
function publishing(publisher, channel) {
  let published = 0
  let isRunning = true
  const done = (async () => {
    while (isRunning) {
      await publisher.trigger(channel, "number", published + 1)
      published += 1
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    return published
  })()
  done.catch(() => {}) // `stop` reports it
  return { count: () => published, stop: () => { isRunning = false; return done } }
}

/** Ends all connections again and again; waits each time until the channel is subscribed again. */
async function reconnect(relay, channel, times) {
  for (let n = 0; n < times; n++) {
    const again = next(channel, "pusher:subscription_succeeded")
    if (n % 4 === 3) relay.cut()
    else relay.close()
    await again
    await new Promise((resolve) => setTimeout(resolve, 40))
  }
}

for (const [version, library] of Object.entries(VERSIONS)) {
  for (const name of ["chat-1", "private-chat-1"]) {
    const title = `pusher-js ${version} loses nothing on ${name} in ${RECONNECTS} reconnects`
    withServer(title, { config: HISTORY(), threads: 2 }, async (server) => {
      const relay = await Relay.start(server)
      const publisher = server.publisher()
      const pusher = client(library, relay.port, { channelAuthorization: authorizer(publisher) })
      // A second client of the same page, which reconnects at the same time.
      const other = client(library, relay.port, { channelAuthorization: authorizer(publisher) })
      const events = { recovered: 0, gap: 0 }
      const received = [[], []]
      const load = publishing(publisher, name)
      try {
        const channels = [pusher, other].map((it) => it.subscribe(name))
        channels.forEach((channel, n) => {
          channel.bind("number", (data) => received[n].push(data))
          channel.bind("polycast:recovered", () => (events.recovered += 1))
          channel.bind("polycast:gap", () => (events.gap += 1))
        })
        await Promise.all(channels.map((it) => next(it, "pusher:subscription_succeeded")))
        await reconnect(relay, channels[0], RECONNECTS)
        await state(other, "connected")
        const count = await load.stop()
        await until("all events", () => received.every((it) => it.at(-1) === count))
        // The first subscription began under load.
        for (const numbers of received) {
          const expected = Array.from(numbers, (_, n) => numbers[0] + n)
          assert.deepEqual(numbers, expected)
          assert.ok(numbers.length > RECONNECTS, `${numbers.length} events`)
        }
        assert.ok(events.recovered >= RECONNECTS, `${events.recovered} recovered`)
        assert.equal(events.gap, 0)
      } finally {
        await load.stop().catch(() => {})
        pusher.disconnect()
        other.disconnect()
        relay.stop()
      }
    })
  }

  const linked = HISTORY() + LINKED
  withServer(`pusher-js ${version} loses nothing through a view`, { config: linked, threads: 2 },
    async (server) => {
      const relay = await Relay.start(server)
      const pusher = client(library, relay.port, { key: "view-key" })
      const received = []
      const events = { recovered: 0, gap: 0 }
      const load = publishing(server.publisher(), "chat-1")
      try {
        const channel = pusher.subscribe("view-1")
        channel.bind("number", (data) => received.push(data))
        channel.bind("polycast:recovered", () => (events.recovered += 1))
        channel.bind("polycast:gap", () => (events.gap += 1))
        await next(channel, "pusher:subscription_succeeded")
        await reconnect(relay, channel, RECONNECTS)
        const count = await load.stop()
        await until("all events", () => received.at(-1) === count)
        assert.deepEqual(received, Array.from(received, (_, n) => received[0] + n))
        assert.ok(received.length > RECONNECTS, `${received.length} events`)
        assert.deepEqual(events, { recovered: RECONNECTS, gap: 0 })
      } finally {
        await load.stop().catch(() => {})
        pusher.disconnect()
        relay.stop()
      }
    })

  const config = HISTORY().replace("events = 5000", "events = 3")
  // The serials of a server alone are consecutive.
  withServer(`pusher-js ${version} reports a gap`, { config, alone: true }, async (server) => {
    const relay = await Relay.start(server)
    const publisher = server.publisher()
    const pusher = client(library, relay.port)
    try {
      const channel = pusher.subscribe("chat-1")
      const plain = pusher.subscribe("news")
      await Promise.all([channel, plain].map((it) => next(it, "pusher:subscription_succeeded")))
      const received = []
      channel.bind("number", (data) => received.push(data))
      relay.isAway = true
      relay.cut()
      for (let n = 0; n < 5; n++) await publisher.trigger("chat-1", "number", n)
      relay.isAway = false
      // An event of "news", which has no history, is lost until its subscription is there again.
      const back = next(plain, "pusher:subscription_succeeded")
      const [{ from, to }] = await Promise.all([next(channel, "polycast:gap"), back])
      assert.equal(from.stream_id, to.stream_id)
      assert.deepEqual([from.serial, to.serial], [0, 5])
      const last = next(plain, "plain")
      await publisher.trigger("chat-1", "number", 7)
      await publisher.trigger("news", "plain", 2)
      await last
      assert.deepEqual(received, [7])
      // After an unsubscription the client begins again, without a gap.
      let gaps = 0
      channel.bind("polycast:gap", () => (gaps += 1))
      pusher.unsubscribe("chat-1")
      const again = pusher.subscribe("chat-1")
      await next(again, "pusher:subscription_succeeded")
      assert.equal(gaps, 0)
    } finally {
      pusher.disconnect()
      relay.stop()
    }
  })
}
