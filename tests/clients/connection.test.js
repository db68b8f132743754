// The life of a connection: opening, refusal, heartbeat, drain of the server.

const assert = require("node:assert/strict")
const WebSocket = require("ws")
const { collect, next, settled, state, subscribe, until, within, withServer } = require("./support")

withServer("a client connects and gets a socket id", {}, async (server) => {
  const client = await server.connect()
  assert.match(client.connection.socket_id, /^\d+\.\d+$/)
  await settled(client)
})

withServer("socket ids differ", {}, async (server) => {
  const clients = await Promise.all(Array.from({ length: 20 }, () => server.connect()))
  const ids = clients.map((client) => client.connection.socket_id)
  assert.equal(new Set(ids).size, clients.length)
})

withServer("an unknown key is refused with 4001 and not tried again", {}, async (server) => {
  const client = server.client({}, "no-such-key")
  const states = []
  client.connection.bind("state_change", (change) => states.push(change.current))
  const error = await next(client.connection, "error")
  assert.equal(error.error.data.code, 4001)
  await state(client, "disconnected")
  // A reconnect of the client would begin immediately.
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.equal(states.at(-1), "disconnected")
})

withServer("an unknown key closes a plain socket with 4001", {}, async (server) => {
  const socket = new WebSocket(server.url("/app/no-such-key?protocol=7"))
  const messages = []
  socket.on("message", (data) => messages.push(JSON.parse(data)))
  const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)))
  assert.equal(await within("the close", closed), 4001)
  assert.equal(messages.length, 1)
  assert.equal(messages[0].event, "pusher:error")
  assert.equal(messages[0].data.code, 4001)
})

withServer("a quiet connection lives by its pings", {}, async (server) => {
  const client = await server.connect({ activityTimeout: 50, pongTimeout: 2000 })
  const states = []
  client.connection.bind("state_change", (change) => states.push(change.current))
  let pongs = 0
  client.connection.bind("message", ({ event }) => (pongs += event === "pusher:pong"))
  await until("five answers to pings", () => pongs >= 5)
  assert.deepEqual(states, [])
  assert.equal(client.connection.state, "connected")
})

const IMPATIENT = `
[pusher]
activity_timeout_s = 1
pong_timeout_s = 1
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
`

withServer("a client that answers the server's pings stays", { config: IMPATIENT }, async (server) => {
  const client = await server.connect({ activityTimeout: 60000 })
  const states = []
  client.connection.bind("state_change", (change) => states.push(change.current))
  await new Promise((resolve) => setTimeout(resolve, 3500))
  await settled(client)
  assert.deepEqual(states, [])
})

withServer("a silent peer is closed with 4201", { config: IMPATIENT }, async (server) => {
  const socket = new WebSocket(server.url("/app/app-key?protocol=7"), { autoPong: false })
  const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)))
  assert.equal(await within("the close", closed), 4201)
})

withServer("a draining server closes with 4200, and the client tries again", { alone: true }, async (server) => {
  const client = await server.connect()
  const channel = await subscribe(client, "news")
  assert.ok(channel.subscribed)
  const states = []
  client.connection.bind("state_change", (change) => states.push(change.current))
  const socket = new WebSocket(server.url("/app/app-key?protocol=7"))
  await within("the first message", new Promise((resolve) => socket.on("message", resolve)))
  const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)))
  server.child.kill("SIGTERM")
  assert.equal(await within("the close", closed), 4200)
  await until("another try", () => states.includes("connecting"))
  assert.ok(!states.includes("disconnected"), states.join())
  const [code] = await within("the server's end", server.exited)
  assert.equal(code, 0)
})

withServer("a client leaves its channels when it disconnects", {}, async (server) => {
  const publisher = server.publisher()
  const stays = await server.connect()
  const seen = collect(await subscribe(stays, "news"), "tick")
  const leaves = await server.connect()
  const left = collect(await subscribe(leaves, "news"), "tick")
  leaves.disconnect()
  await state(leaves, "disconnected")
  assert.equal((await publisher.trigger("news", "tick", 1)).status, 200)
  await until("the event", () => seen.length === 1)
  assert.deepEqual(left, [])
})
