// Support for the tests of linked channels: a client of every dialect, and the check that one signed
// publish reaches all of them in one order.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const fs = require("node:fs")
const path = require("node:path")
const { deserialize, serialize } = require("bson")
const { decode, encode } = require("@msgpack/msgpack")
const { EventSource } = require("eventsource")
const WebSocket = require("ws")
const { DEMO, app, next, within } = require("./support")

const EVENTS = 10000
const BATCH = 10
const MOST_MS = 60000
const CONFIG = `
[limits]
write_queue_bytes = "8MiB"
[[routes]]
when = [{ path = "/quotes/*" }]
endpoint = "channel"
stream = true
[[routes]]
endpoint = "apps"
${app()}
[[apps]]
id = "2"
key = "bt-key"
secret = "bt-secret"
dialect = "broadcastt"
[zenith]
topics = [{ controller = "Prices", kind = "*" }]
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [
    { app = "2", channel = "q-{symbol}" },
    { zenith = "Prices/Quote/{symbol}" },
    { path = "/quotes/{symbol}" },
]
`

/** A client that notes the numbers of the events that it receives, in their order. */
class Reader {
  constructor(name, close) {
    this.name = name
    this.close = close
    this.numbers = []
  }

  /** Fetches the numbers of a client that cannot add them itself. */
  async update() {}

  async all() {
    const whole = async () => {
      for (;;) {
        await this.update()
        if (this.numbers.length >= EVENTS) return
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
    try {
      await within(this.name, whole(), MOST_MS)
    } catch (error) {
      throw new Error(`${error.message}: ${this.numbers.length} of ${EVENTS} events`)
    }
    assert.equal(this.numbers.length, EVENTS, this.name)
    assert.ok(this.numbers.every((number, at) => number === at), `${this.name}: another order`)
  }
}

async function pusher(server) {
  const client = await server.connect()
  const channel = client.subscribe("quotes-ACME")
  await next(channel, "pusher:subscription_succeeded")
  const reader = new Reader("pusher-js", () => client.disconnect())
  channel.bind("tick", ({ number }) => reader.numbers.push(number))
  return reader
}

/** The package is an ES module without `"type": "module"`, so it is imported from a data URL. */
async function broadcastt(server) {
  Object.assign(globalThis, { WebSocket, document: { cookie: "" } })
  const main = path.dirname(require.resolve("broadcastt-js/package.json"))
  const text = fs.readFileSync(path.join(main, "dist/broadcastt.js"))
  const library = await import(`data:text/javascript;base64,${text.toString("base64")}`)
  const options = { host: server.host, port: server.port, encrypted: false }
  const client = new library.default("bt-key", options)
  const reader = new Reader("broadcastt-js", () => {
    client._options.maximumReconnects = 0
    clearTimeout(client._activityTimer)
    client.init = () => {}
    client._socket.terminate()
  })
  const channel = client.join("q-ACME")
  channel.bind("tick", ({ number }) => reader.numbers.push(number))
  await within("the subscription", new Promise((resolve) => {
    channel.bind("broadcastt:subscription_succeeded", resolve)
  }))
  return reader
}

/** A Zenith client in one format, which subscribes as its protocol says. */
async function zenith(server, format, pack, unpack) {
  const socket = new WebSocket(server.url("/Zenith"), [format])
  const reader = new Reader(format, () => socket.terminate())
  const message = { Controller: "Prices", Topic: "Quote/ACME", Action: "Sub", Confirm: true }
  socket.on("open", () => socket.send(pack(message)))
  await within("the subscription", new Promise((resolve) => {
    socket.on("message", (data) => {
      const { Action, Data } = unpack(data)
      if (Action === "Sub") return resolve()
      reader.numbers.push(Data.number)
    })
  }))
  return reader
}

async function plain(server) {
  const socket = new WebSocket(server.url("/quotes/ACME"))
  const reader = new Reader("ws", () => socket.terminate())
  socket.on("message", (data) => reader.numbers.push(JSON.parse(data).number))
  await within("the upgrade", new Promise((resolve) => socket.on("open", resolve)))
  return reader
}

const eventsUrl = (server) =>
  `http://${server.host}:${server.port}/app/${DEMO.key}/events?channels=quotes-ACME`

async function eventSource(server) {
  const source = new EventSource(eventsUrl(server))
  const reader = new Reader("EventSource", () => source.close())
  await within("the subscription", new Promise((resolve) => {
    source.onmessage = ({ data }) => {
      const { event, data: text } = JSON.parse(data)
      if (event !== "tick") return resolve()
      reader.numbers.push(JSON.parse(text).number)
    }
  }))
  return reader
}

async function curl(server) {
  const child = spawn("curl", ["-sN", eventsUrl(server)], { stdio: ["ignore", "pipe", "inherit"] })
  const reader = new Reader("curl", () => child.kill())
  let rest = ""
  await within("the subscription", new Promise((resolve) => {
    child.stdout.on("data", (chunk) => {
      const lines = (rest + chunk).split("\n")
      rest = lines.pop()
      for (const line of lines.filter((it) => it.startsWith("data: "))) {
        const { event, data } = JSON.parse(line.slice(6))
        if (event !== "tick") resolve()
        else reader.numbers.push(JSON.parse(data).number)
      }
    })
  }))
  return reader
}

/** The clients that need no browser: functions that connect one to a server. */
const READERS = [
  pusher,
  broadcastt,
  (server) => zenith(server, "ZenithJson", JSON.stringify, (data) => JSON.parse(data)),
  (server) => zenith(server, "ZenithMsgPack", encode, decode),
  (server) => zenith(server, "ZenithBson", serialize, (data) => deserialize(data)),
  plain,
  eventSource,
  curl,
]

/**
 * Connects the clients to a server with the configuration CONFIG, publishes events, and checks that
 * each client receives all of them once, in the order of the publishes.
 */
async function deliver(server, connects) {
  const readers = []
  try {
    for (const connect of connects) readers.push(await connect(server))
    const publisher = server.publisher()
    for (let first = 0; first < EVENTS; first += BATCH) {
      const batch = Array.from({ length: BATCH }, (_, at) => ({
        channel: "quotes-ACME", name: "tick", data: { number: first + at },
      }))
      const answer = await publisher.triggerBatch(batch)
      assert.equal(answer.status, 200)
    }
    await Promise.all(readers.map((reader) => reader.all()))
  } finally {
    for (const reader of readers) reader.close()
  }
}

module.exports = { CONFIG, MOST_MS, READERS, Reader, deliver, eventsUrl }
