// Server-sent events of channels, with an EventSource for Node and with Node's own fetch.

const assert = require("node:assert/strict")
const net = require("node:net")
const { test } = require("node:test")
const { EventSource } = require("eventsource")
const { DEMO, NODES, Server, app, within, withServer } = require("./support")

const CONFIG = `
[pusher]
activity_timeout_s = 1
${app()}
[[apps.history]]
channels = ["chat-*"]
`

const url = (server, query) =>
  `${server.url(`/app/${DEMO.key}/events`).replace(/^ws/, "http")}?${new URLSearchParams(query)}`

/**
 * Opens an EventSource that collects the events of channels in `heard`, and waits for the
 * acknowledgement of its subscriptions.
 */
async function listen(server, query, subscriptions = 1) {
  const source = new EventSource(url(server, query))
  const heard = []
  source.onmessage = ({ data }) => heard.push(JSON.parse(data))
  await until("the subscriptions", () => heard.length >= subscriptions)
  const names = heard.splice(0).map(({ event }) => event)
  assert.deepEqual(new Set(names), new Set(["pusher_internal:subscription_succeeded"]))
  return { source, heard }
}

function until(what, condition) {
  return within(what, (async () => {
    while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
  })(), 20000)
}

withServer("an EventSource receives public and private channels", { config: CONFIG, threads: 2 },
  async (server) => {
    const publisher = server.publisher()
    const { auth } = publisher.authorizeChannel("7.7", "private-orders")
    const query = { channels: "news,private-orders", socket_id: "7.7", auth }
    const { source, heard } = await listen(server, query, 2)
    const data = { text: "\u00e9 \u4e2d \u{1f600}\r\n\n", list: [1, null, "x".repeat(5000)] }
    await publisher.trigger(["news", "private-orders"], "paid", data)
    await until("two events", () => heard.length === 2)
    for (const { event, data: text } of heard) {
      assert.equal(event, "paid")
      assert.deepEqual(JSON.parse(text), data)
    }
    assert.deepEqual(heard.map(({ channel }) => channel).sort(), ["news", "private-orders"])
    // Heartbeats are comments, which are no events.
    await new Promise((resolve) => setTimeout(resolve, 2500))
    await publisher.trigger("news", "end", "")
    await until("the last event", () => heard.length === 3)
    assert.equal(source.readyState, EventSource.OPEN)
    source.close()
  })

withServer("an EventSource gives up after an error", { config: CONFIG }, async (server) => {
  for (const [query, code] of [
    [{ channels: "private-orders", socket_id: "1.1", auth: `${DEMO.key}:0` }, 401],
    [{ channels: "presence-room" }, 400],
    [{}, 400],
  ]) {
    const source = new EventSource(url(server, query))
    const error = await within("the error", new Promise((resolve) => (source.onerror = resolve)))
    assert.equal(error.code, code)
    assert.equal(source.readyState, EventSource.CLOSED)
    source.close()
  }
})

test("an EventSource connects again after a restart", { timeout: 60000 }, async () => {
  const server = await Server.start({ config: CONFIG })
  const { source, heard } = await listen(server, { channels: "news" })
  await server.stop()
  // The page learns why, and connects again by itself.
  assert.deepEqual(heard.splice(0).map(({ event, data }) => [event, data.code]), [["pusher:error", 4200]])
  const next = await Server.start({ config: CONFIG, port: server.port })
  try {
    await until("the subscription", () => heard.length === 1)
    await next.publisher().trigger("news", "again", { n: 1 })
    await until("the event", () => heard.length === 2)
    assert.deepEqual(JSON.parse(heard[1].data), { n: 1 })
  } finally {
    source.close()
    await next.stop()
  }
})

/** A port of its own that leads to the server. `cut` breaks its connections. */
async function detour(server) {
  const sockets = new Set()
  const listener = net.createServer((client) => {
    const upstream = net.connect(server.port, server.host)
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      sockets.add(one)
      one.pipe(other)
      one.on("error", () => {})
      one.on("close", () => {
        sockets.delete(one)
        other.destroy()
      })
    }
  })
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve))
  return {
    port: listener.address().port,
    cut: () => sockets.forEach((socket) => socket.destroy()),
    stop: () => listener.close(),
  }
}

withServer("an EventSource resumes after each of ten broken connections", { config: CONFIG, threads: 2 },
  async (server) => {
    const way = await detour(server)
    const heard = []
    const source = new EventSource(url(server, { channels: "chat-1" }).replace(server.port, way.port))
    source.onmessage = ({ data, lastEventId }) => heard.push({ ...JSON.parse(data), lastEventId })
    const succeeded = () => heard.filter(({ event }) => event.includes("subscription_succeeded"))
    const numbers = () => heard.filter(({ event }) => event === "n").map(({ data }) => Number(data))
    const publisher = server.publisher()
    let next = 0
    for (let round = 0; round < 10; round += 1) {
      await until("the subscription", () => succeeded().length === round + 1)
      for (const _ of [1, 2]) await publisher.trigger("chat-1", "n", `${next++}`)
      await until("the live events", () => numbers().length === next)
      way.cut()
      // It is published while nobody listens.
      for (const _ of [1, 2, 3]) await publisher.trigger("chat-1", "n", `${next++}`)
      await until("the missed events", () => numbers().length === next)
    }
    source.close()
    way.cut()
    way.stop()
    assert.deepEqual(numbers(), Array.from({ length: next }, (_, number) => number))
    assert.deepEqual(succeeded().map(({ recovered }) => recovered), [false, ...Array(10).fill(true)])
    // The positions of a server alone are consecutive.
    assert.match(heard.at(-1).lastEventId, NODES > 1 ? /^[0-9a-f]{16}:\d+$/ : /^[0-9a-f]{16}:50$/)
  })

withServer("an EventSource of three channels resumes after 20 broken connections under load",
  { config: CONFIG.replace('["chat-*"]', '["chat-*"]\nevents = 5000\nbytes = "4MiB"'), threads: 2 },
  async (server) => {
    const channels = ["chat-1", "chat-2", "chat-3"]
    const way = await detour(server)
    const heard = []
    const query = { channels: channels.join(",") }
    const source = new EventSource(url(server, query).replace(server.port, way.port))
    source.onmessage = ({ data }) => heard.push(JSON.parse(data))
    const succeeded = () => heard.filter(({ event }) => event.includes("subscription_succeeded"))
    const of = (name) => heard.filter(({ event, channel }) => event === "n" && channel === name)
    await until("the subscriptions", () => succeeded().length === 3)
    const publisher = server.publisher()
    let isRunning = true
    const load = channels.map(async (channel) => {
      let published = 0
      while (isRunning) await publisher.trigger(channel, "n", `${published++}`)
      return published
    })
    try {
      for (let round = 1; round <= 20; round += 1) {
        const before = succeeded().length
        way.cut()
        await until("the subscriptions", () => succeeded().length >= before + 3)
        await new Promise((resolve) => setTimeout(resolve, 30 + (round * 7) % 40))
      }
      isRunning = false
      const counts = await Promise.all(load)
      for (const [at, name] of channels.entries()) {
        await until(`the events of ${name}`, () => of(name).length >= counts[at])
        const numbers = of(name).map(({ data }) => Number(data))
        assert.deepEqual(numbers, Array.from({ length: counts[at] }, (_, number) => number), name)
        assert.ok(counts[at] > 20, `${counts[at]} events`)
      }
      const recovered = succeeded().map((it) => it.recovered)
      assert.deepEqual(recovered.slice(0, 3), [false, false, false])
      assert.ok(recovered.length >= 63 && recovered.slice(3).every((it) => it), `${recovered}`)
    } finally {
      isRunning = false
      source.close()
      way.cut()
      way.stop()
      await Promise.allSettled(load)
    }
  })

withServer("fetch reads the bytes of a stream", { config: CONFIG }, async (server) => {
  const response = await fetch(url(server, { channels: "news" }))
  assert.equal(response.headers.get("content-type"), "text/event-stream")
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ""
  const read = async (end) => {
    while (!text.endsWith(end)) text += (await within("bytes", reader.read())).value
  }
  await read('"data":"{}"}\n\n')
  await server.publisher().trigger("news", "e", "1")
  await read('"data":"1"}\n\n')
  await read(": ping\n\n")
  assert.equal(text, ": events\nretry: 1000\n\n" +
    'data: {"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}\n\n' +
    'data: {"event":"e","channel":"news","data":"1"}\n\n: ping\n\n')
  await reader.cancel()
})
