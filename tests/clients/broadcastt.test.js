// The published client broadcastt-js 0.2.3: subscriptions, presence, client events, heartbeat,
// close codes and reconnects.

const assert = require("node:assert/strict")
const crypto = require("node:crypto")
const fs = require("node:fs")
const path = require("node:path")
const { test } = require("node:test")
const WebSocket = require("ws")
const { Server, until, within } = require("./support")

const KEY = "bt-key"
const SECRET = "bt-secret"
const CONFIG = `
[[apps]]
id = "111"
key = "${KEY}"
secret = "${SECRET}"
dialect = "broadcastt"
client_events = true
`
/** Values of the client's `status`, from its `BroadcasttStatus`. */
const CONNECTED = 2
const ERROR = 3
const TEST_MS = 60000

const hmac = (text) => crypto.createHmac("sha256", SECRET).update(text).digest("hex")

/** The package is an ES module without `"type": "module"`, so it is imported from a data URL. */
const library = (() => {
  const main = path.dirname(require.resolve("broadcastt-js/package.json"))
  const text = fs.readFileSync(path.join(main, "dist/broadcastt.js"))
  return import(`data:text/javascript;base64,${text.toString("base64")}`)
})()

/**
 * Shared by all sockets that clients open. `sockets` is their number, `frames` has the received
 * messages and `closes` the close codes with reasons. `autoPong` is whether they answer ping
 * frames; with `loses` they drop received `broadcastt:pong` messages.
 */
const wire = {}

class Socket extends WebSocket {
  constructor(url) {
    super(url, { autoPong: wire.autoPong })
    wire.sockets += 1
    this.on("message", (text) => wire.frames.push(JSON.parse(text)))
    this.on("close", (code, reason) => wire.closes.push([code, reason.toString()]))
  }

  emit(event, ...all) {
    if (wire.loses && event === "message" && String(all[0]).includes("broadcastt:pong")) return true
    return super.emit(event, ...all)
  }
}

/**
 * The simulated authorization endpoint of the application. `user` returns the member for presence
 * channels, or null for none; `asked` lists the channels of all requests.
 */
const endpoint = { user: () => null, asked: [] }

class Request {
  open() {}
  setRequestHeader() {}
  send(body) {
    const { socket_id, channel_name } = JSON.parse(body)
    endpoint.asked.push(channel_name)
    setImmediate(() => {
      if (channel_name === "private-forbidden") {
        this.status = 403
        this.responseText = ""
      } else {
        const user = channel_name.startsWith("presence-") ? endpoint.user() : null
        const channel_data = user && JSON.stringify(user)
        const text = [socket_id, channel_name, channel_data].filter(Boolean).join(":")
        const signature = channel_name === "private-forged" ? "0".repeat(64) : hmac(text)
        this.status = 200
        this.responseText = JSON.stringify({ auth: `${KEY}:${signature}`, ...(user && { channel_data }) })
      }
      this.onload()
    })
  }
}

Object.assign(globalThis, { WebSocket: Socket, XMLHttpRequest: Request, document: { cookie: "" } })

async function connect(server, options = {}, key = KEY) {
  const { default: Broadcastt } = await library
  const client = new Broadcastt(key, {
    host: server.host,
    port: server.port,
    encrypted: false,
    reconnectInterval: 50,
    ...options,
  })
  server.clients.push(client)
  return client
}

async function connected(server, options) {
  const client = await connect(server, options)
  await until("the connection", () => client.status === CONNECTED && client.socketId)
  return client
}

/** Joins a channel and waits until the server has confirmed it; returns channel and event. */
async function join(client, name) {
  const channel = client.join(name)
  const [event] = await heard(channel, "broadcastt:subscription_succeeded")
  return [channel, event]
}

/**
 * Waits for the next event `name` of a channel and returns its arguments. The client calls only the
 * first listener of an event.
 */
function heard(channel, name) {
  return within(`event ${name}`, new Promise((resolve) => channel.bind(name, (...all) => resolve(all))))
}

/** Sends a signed HTTP request, as the vendor's library does; returns status and parsed body. */
async function request(server, method, where, body) {
  const text = body === undefined ? "" : JSON.stringify(body)
  const query = { auth_key: KEY, auth_timestamp: Math.floor(Date.now() / 1000), auth_version: "1.0" }
  if (text) query.body_md5 = crypto.createHash("md5").update(text).digest("hex")
  const pairs = Object.keys(query).sort().map((name) => `${name}=${query[name]}`).join("&")
  const signature = hmac(`${method}\n${where}\n${pairs}`)
  const url = `http://${server.host}:${server.port}${where}?${pairs}&auth_signature=${signature}`
  const answer = await fetch(url, { method, body: text || undefined })
  return [answer.status, await answer.json()]
}

const publish = (server, channels, name, data, socket_id) =>
  request(server, "POST", "/apps/111/event", { name, data, channels, socket_id })

function scene(name, config, body, { alone = false, threads = 1 } = {}) {
  test(`broadcastt: ${name}`, { timeout: TEST_MS }, async () => {
    const server = await Server.start({ config: CONFIG + config, threads, alone })
    server.clients = []
    Object.assign(wire, { sockets: 0, frames: [], closes: [], autoPong: true, loses: false })
    Object.assign(endpoint, { user: () => null, asked: [] })
    try {
      await body(server)
    } finally {
      for (const client of server.clients) {
        client._options.maximumReconnects = 0
        clearTimeout(client._activityTimer)
        client.init = () => {}
        client._socket.terminate()
        client._socket.on("close", () => clearTimeout(client._activityTimer))
      }
      await server.stop()
    }
  })
}

const errors = () => wire.frames.filter(({ event }) => event === "broadcastt:error")
const settle = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

scene("a client connects, joins, receives, leaves and joins again", "", async (server) => {
  const client = await connect(server)
  // The client holds joins back until the connection is established.
  const news = client.join("news")
  await heard(news, "broadcastt:subscription_succeeded")
  assert.match(client.socketId, /^\d+\.\d+$/)
  assert.equal(client.join("news"), news)
  const seen = []
  news.bind("hello", (data) => seen.push(data))
  assert.deepEqual(await publish(server, ["news", "other"], "hello", '{"a":1}'), [200, {}])
  assert.deepEqual(await publish(server, ["news"], "hello", "plain"), [200, {}])
  assert.deepEqual(await publish(server, ["news"], "hello", { a: [2] }), [200, {}])
  assert.deepEqual(await publish(server, ["news"], "hello", "1", client.socketId), [200, {}])
  await until("three events", () => seen.length === 3)
  assert.deepEqual(seen, [{ a: 1 }, "plain", { a: [2] }])
  client.leave("news")
  const [later] = await join(client, "later")
  const told = heard(later, "tick")
  await publish(server, ["news", "later"], "tick", "1")
  assert.deepEqual(await told, [1])
  client.join("news")
  const again = new Promise((resolve) => news.bind("again", resolve))
  await until("a subscription", () => wire.frames.filter(({ channel }) => channel === "news").length >= 5)
  await publish(server, ["news"], "again", "2")
  assert.equal(await within("the event", again), 2)
  assert.deepEqual(errors(), [])
})

scene("a private channel, one without leave and one with a bad token", "", async (server) => {
  const client = await connected(server)
  await join(client, "private-room")
  client.private("forbidden")
  const forged = client.private("forged")
  const [refusal] = await heard(forged, "broadcastt:subscription_error")
  assert.deepEqual(refusal, { type: "AuthError", error: "Invalid signature for private-forged", status: 401 })
  assert.deepEqual(endpoint.asked, ["private-room", "private-forbidden", "private-forged"])
  // The connection stays open.
  assert.equal(client.status, CONNECTED)
  await join(client, "after")
})

scene("members of a presence channel come and go", "", async (server) => {
  endpoint.user = () => ({ user_id: "u1", user_info: { name: "Ann" } })
  const ann = await connected(server)
  const [lobby, members] = await join(ann, "presence-lobby")
  const { auth, channel_data } = members.me
  assert.ok(auth.startsWith(`${KEY}:`) && channel_data)
  assert.deepEqual([members.count, members.ids, members.hash], [1, ["u1"], { u1: { name: "Ann" } }])
  endpoint.user = () => ({ user_id: 42, user_info: { name: "Bob" } })
  const coming = heard(lobby, "broadcastt:member_added")
  const bob = await connected(server)
  const [, both] = await join(bob, "presence-lobby")
  assert.deepEqual([both.count, both.ids], [2, ["u1", 42]])
  assert.deepEqual((await coming)[0], { user_id: 42, user_info: { name: "Bob" } })
  const users = await request(server, "GET", "/apps/111/channels/presence-lobby/users")
  assert.deepEqual(users, [200, { users: [{ id: "u1" }, { id: "42" }] }])
  const going = heard(lobby, "broadcastt:member_removed")
  bob.leave("presence-lobby")
  assert.deepEqual((await going)[0], { user_id: 42 })
  assert.deepEqual(lobby.members.ids, ["u1"])
  assert.deepEqual(errors(), [])
})

async function twice(server) {
  const client = await connected(server)
  const names = Array.from({ length: 16 }, (_, at) => `presence-${at}`)
  const channel_data = JSON.stringify({ user_id: "u1" })
  for (const channel of [...names, ...names]) {
    const auth = `${KEY}:${hmac(`${client.socketId}:${channel}:${channel_data}`)}`
    client.send("broadcastt:subscribe", { auth, channel_data, channel })
  }
  const told = () => wire.frames.filter(({ channel }) => channel)
  await until("two answers for each", () => told().length === 32)
  for (const { event, data } of told()) {
    assert.equal(event, "broadcastt_internal:subscription_succeeded")
    assert.deepEqual(JSON.parse(data).presence, { count: 1, ids: ["u1"], hash: { u1: null } })
  }
}
// With two cores, about half of the channels have their home, which has the members, on the other
// core.
scene("a second subscription gets the members, whichever core has them", "", twice, { threads: 2 })

scene("an event of a client goes nowhere, since it names no channel", "", async (server) => {
  const [one, two] = [await connected(server), await connected(server)]
  const [room] = await join(one, "private-room")
  const [other] = await join(two, "private-room")
  const seen = []
  other.bind("client-typing", (data) => seen.push(data))
  room.send("client-typing", { who: "ann" })
  await join(one, "behind")
  await settle(100)
  assert.deepEqual([seen, errors(), one.status], [[], [], CONNECTED])
})

const INFER = "[broadcastt]\ninfer_channel = true\n"
scene("an event of a client finds its channel, where that is asked for", INFER, async (server) => {
  const [one, two] = [await connected(server), await connected(server)]
  const [room] = await join(one, "private-room")
  const [other] = await join(two, "private-room")
  const told = heard(other, "client-typing")
  room.send("client-typing", { who: "ann" })
  assert.deepEqual(await told, [{ who: "ann" }])
})

const SHORT = "[broadcastt]\nactivity_timeout_s = 1\npong_timeout_s = 1\n"
scene("a client asks every activity timeout, and is answered", SHORT, async (server) => {
  const client = await connected(server)
  const pongs = () => wire.frames.filter(({ event }) => event === "broadcastt:pong").length
  await until("three pongs", () => pongs() >= 3)
  assert.deepEqual([wire.sockets, client.status], [1, CONNECTED])
})

scene("a client whose ping is not answered closes and comes back", SHORT, async (server) => {
  const client = await connected(server, { pongTimeout: 1 })
  await join(client, "news")
  wire.loses = true
  await until("the close", () => wire.closes.length === 1)
  assert.deepEqual([wire.closes, errors()], [[[1005, ""]], []])
  wire.loses = false
  await until("another connection", () => client.status === CONNECTED && wire.sockets === 2)
  await until("the subscription", () => wire.frames.filter(({ channel }) => channel).length === 2)
  const told = heard(client.get("news"), "tick")
  await publish(server, ["news"], "tick", "1")
  assert.deepEqual(await told, [1])
})

scene("a client that is silent is given up with 4201, and comes back", SHORT, async (server) => {
  wire.autoPong = false
  const client = await connected(server)
  client.send = () => {}
  await until("the close", () => wire.closes.length === 1)
  assert.equal(wire.closes[0][0], 4201)
  assert.equal(JSON.parse(errors()[0].data).code, 4201)
  await until("another connection", () => wire.sockets === 2)
})

scene("4000 to 4099: an unknown key is reported, and the client stays away", "", async (server) => {
  const client = await connect(server, {}, "no-such-key")
  await until("the close", () => wire.closes.length === 1)
  assert.deepEqual(wire.closes, [[4001, "Application does not exist"]])
  await settle(400)
  assert.deepEqual([wire.sockets, client.status, client._errorCode], [1, ERROR, 4001])
})

scene("4000 to 4099: nonsense is let pass ten times, and then is the end", "", async (server) => {
  const client = await connected(server)
  for (let at = 0; at < 10; at += 1) client._socket.send("nonsense")
  await join(client, "news")
  assert.deepEqual(errors(), [])
  for (let at = 0; at < 11; at += 1) client._socket.send("nonsense")
  await until("the close", () => wire.closes.length === 1)
  assert.equal(wire.closes[0][0], 4008)
  await settle(400)
  assert.deepEqual([wire.sockets, client.status, client._errorCode], [1, ERROR, 4008])
})

const NARROW = "[limits]\nwrite_queue_bytes = 65536\n"
scene("4100 to 4199: a client that does not read is closed, and comes back", NARROW, async (server) => {
  const client = await connected(server)
  await join(client, "news")
  client._socket.pause()
  const data = JSON.stringify("x".repeat(10000))
  const event = { name: "much", channel: "news", data }
  const batch = Array.from({ length: 90 }, () => event)
  const closed = async () => {
    const metrics = await fetch(`http://${server.host}:${server.port}/metrics`)
    return /polycast_slow_consumer_closed_total 1\n/.test(await metrics.text())
  }
  for (let at = 0; at < 60 && !(await closed()); at += 1) {
    assert.deepEqual(await request(server, "POST", "/apps/111/events", batch), [200, {}])
  }
  client._socket.resume()
  await until("the close", () => wire.closes.length === 1)
  assert.equal(wire.closes[0][0], 4100)
  assert.equal(JSON.parse(errors()[0].data).code, 4100)
  await until("another connection", () => wire.sockets === 2 && client.status === CONNECTED)
})

scene("4200 to 4299: a server that ends is left, and joined again when it is back", "", async (server) => {
  const client = await connected(server)
  await join(client, "kept")
  await join(client, "left")
  client.leave("left")
  const { port } = server
  server.child.kill("SIGTERM")
  await until("the close", () => wire.closes.length >= 1)
  assert.equal(wire.closes[0][0], 4200)
  assert.equal(JSON.parse(errors()[0].data).code, 4200)
  const [code] = await within("the server's end", server.exited)
  assert.equal(code, 0)
  wire.frames.length = 0
  const next = await Server.start({ config: CONFIG, port, alone: true })
  try {
    await until("another connection", () => client.status === CONNECTED)
    await until("the subscription", () => wire.frames.some(({ channel }) => channel === "kept"))
    await settle(100)
    assert.ok(!wire.frames.some(({ channel }) => channel === "left"))
  } finally {
    client.init = () => {}
    client._socket.terminate()
    await next.stop()
  }
}, { alone: true })

scene("a connection that breaks is made again", "", async (server) => {
  const client = await connected(server)
  await join(client, "news")
  client._socket._socket.destroy()
  await until("another connection", () => wire.sockets === 2 && client.status === CONNECTED)
  await until("the subscription", () => wire.frames.filter(({ channel }) => channel === "news").length === 2)
  assert.deepEqual(errors(), [])
})
