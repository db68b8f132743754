// Unmodified clients of the vendor on three nodes of one cluster, one of which is killed.
// `tests/run nodes` runs it.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const path = require("node:path")
const { test } = require("node:test")
const {
  Cluster, NATS, app, authorizer, collect, next, settled, state, subscribe, until,
} = require("./support")

const NODES = 3
const CLIENTS = 9
const TEST_MS = 90000
const SHIM = [path.join(__dirname, "examples"), path.join(__dirname, "../../examples")]
  .map((folder) => path.join(folder, "polycast-resume.js")).find((file) => fs.existsSync(file))
const LIBRARIES = ["pusher-js-7", "pusher-js"]
const CONFIG = app(`
client_events = true
[[apps.history]]
channels = ["chat"]
events = 5000
bytes = "4MiB"
`)

for (const library of LIBRARIES) require(SHIM)(require(library))

/** Defines a test with a cluster of three nodes, which `nodes` in its body are. */
function withNodes(name, body) {
  const skip = !fs.existsSync(NATS) && `there is no ${NATS}`
  if (skip && process.env.CI === "true") throw new Error(skip)
  test(name, { timeout: TEST_MS, skip }, async () => {
    const cluster = await Cluster.start({ config: CONFIG, threads: 2, nodes: NODES })
    const clients = []
    try {
      await body(cluster, clients)
    } finally {
      clients.forEach((client) => client.disconnect())
      await cluster.stop()
    }
  })
}

/** Connected clients of both versions of the library, spread over the nodes; each is a user. */
async function connect(cluster, clients, publisher) {
  for (let n = 0; n < CLIENTS; n += 1) {
    const Pusher = require(LIBRARIES[n % LIBRARIES.length])
    clients.push(new Pusher("app-key", {
      wsHost: cluster.host, wsPort: cluster.port, forceTLS: false, enabledTransports: ["ws"],
      enableStats: false, cluster: "",
      // The library gives up WebSockets for good after two that have lived shorter than twice this
      // time, in milliseconds.
      activityTimeout: 10,
      channelAuthorization: authorizer(publisher, { user_id: `user-${n}` }),
    }))
  }
  await Promise.all(clients.map((client) => state(client, "connected")))
}

withNodes("publishes on three nodes at the same time have one order for everyone", async (cluster, clients) => {
  await connect(cluster, clients, cluster.publisher())
  const channels = await Promise.all(clients.map((client) => subscribe(client, "news")))
  const lists = channels.map((channel) => collect(channel, "tick"))
  await Promise.all(cluster.nodes.map(async (node, number) => {
    const publisher = node.publisher()
    for (let n = 0; n < 50; n += 1) await publisher.trigger("news", "tick", [number, n])
  }))
  await until("all events", () => lists.every((list) => list.length >= NODES * 50))
  await Promise.all(clients.map(settled))
  for (const list of lists) assert.deepEqual(list, lists[0])
  for (let number = 0; number < NODES; number += 1) {
    const own = lists[0].filter(([node]) => node === number).map(([, n]) => n)
    assert.deepEqual(own, Array.from({ length: 50 }, (_, n) => n))
  }
})

withNodes("clients of a killed node come back, lose nothing, and only who stays away has left", async (cluster, clients) => {
  const [first, , last] = cluster.nodes
  const publisher = first.publisher()
  await connect(cluster, clients, publisher)
  const rooms = await Promise.all(clients.map((client) => subscribe(client, "presence-room")))
  await until("all members", () => rooms.every((room) => room.members.count === CLIENTS))
  const left = rooms.map((room) => {
    const users = []
    room.bind("pusher:member_removed", ({ id }) => users.push(id))
    return users
  })
  const chats = await Promise.all(clients.map((client) => subscribe(client, "chat")))
  const lists = chats.map((channel) => collect(channel, "number"))
  const gaps = chats.map((channel) => collect(channel, "polycast:gap"))
  let published = 0
  let isRunning = true
  const load = (async () => {
    for (; isRunning; published += 1) await publisher.trigger("chat", "number", published)
  })()
  try {
    await until("some events", () => published > 100)
    // The connections of the node that is killed: the balancer gives them to the others. One client
    // of them never comes back.
    const port = last.port
    const lost = clients.map((client, n) => n).filter((n) => cluster.nodeOf(n) === port)
    assert.equal(lost.length, CLIENTS / NODES)
    const [gone, ...returning] = lost
    const stays = clients.map((_, n) => n).filter((n) => n !== gone)
    const again = returning.map((n) => next(rooms[n], "pusher:subscription_succeeded"))
    const killed = cluster.kill(last)
    clients[gone].disconnect()
    await killed
    await Promise.all(again)
    await until("the member that is gone", () => stays.every((n) => left[n].includes(`user-${gone}`)), 20000)
    isRunning = false
    await load
    await until("all events", () => stays.every((n) => lists[n].at(-1) === published - 1))
    for (const n of stays) {
      assert.deepEqual(lists[n], Array.from(lists[n], (_, at) => lists[n][0] + at), `client ${n}`)
      assert.deepEqual([gaps[n], left[n]], [[], [`user-${gone}`]], `client ${n}`)
      assert.equal(rooms[n].members.count, CLIENTS - 1)
    }
  } finally {
    isRunning = false
    await load.catch(() => {})
  }
})
