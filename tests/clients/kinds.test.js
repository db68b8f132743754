// Encrypted channels, cache channels, client events, subscription counts, batches, and channel
// queries of the HTTP API.

const assert = require("node:assert/strict")
const { app, authorizer, collect, next, settled, subscribe, until, withServer } = require("./support")

const KEY = { encryptionMasterKeyBase64: Buffer.from("0123456789abcdef0123456789abcdef").toString("base64") }
const CHATTY = app("client_events = true")

withServer("an encrypted channel is opaque, and opens for its subscriber", { threads: 2 }, async (server) => {
  const publisher = server.publisher(KEY)
  const client = await server.connect({ channelAuthorization: authorizer(publisher) })
  const raw = []
  client.connection.bind("message", (message) => raw.push(JSON.stringify(message)))
  const channel = await subscribe(client, "private-encrypted-a")
  const seen = next(channel, "paid")
  await publisher.trigger("private-encrypted-a", "paid", { text: "nobody else reads" })
  assert.deepEqual(await seen, { text: "nobody else reads" })
  assert.ok(raw.some((text) => text.includes("ciphertext")))
  assert.ok(!raw.some((text) => text.includes("nobody else reads")))
  // A publish to several channels must not include an encrypted one.
  const body = { name: "paid", channels: ["a", "private-encrypted-a"], data: "{}" }
  await assert.rejects(publisher.post({ path: "/events", body }), { status: 400 })
})

withServer("an encrypted cache channel gives its last event, still encrypted", {}, async (server) => {
  const publisher = server.publisher(KEY)
  await publisher.trigger("private-encrypted-cache-a", "paid", { id: 1 })
  const client = await server.connect({ channelAuthorization: authorizer(publisher) })
  assert.deepEqual(await next(client.subscribe("private-encrypted-cache-a"), "paid"), { id: 1 })
})

// Nodes of a cluster know numbers of subscribers only where the configuration asks for them, and later.
const COUNTING = { threads: 2, alone: true }

for (const name of ["cache-a", "private-cache-a"]) {
  withServer(`${name} gives its last event`, COUNTING, async (server) => {
    const publisher = server.publisher()
    const connect = () => server.connect({ channelAuthorization: authorizer(publisher) })
    const first = (await connect()).subscribe(name)
    await next(first, "pusher:cache_miss")
    const seen = collect(first, "tick")
    for (const n of [1, 2]) await publisher.trigger(name, "tick", { n })
    await until("the live events", () => seen.length > 1)
    const second = (await connect()).subscribe(name)
    const missed = collect(second, "pusher:cache_miss")
    assert.deepEqual(await next(second, "tick"), { n: 2 })
    const read = await publisher.get({ path: `/channels/${name}`, params: { info: "cache,subscription_count" } })
    const { cache, ...rest } = await read.json()
    assert.deepEqual(rest, { occupied: true, subscription_count: 2 })
    assert.deepEqual([cache.event, cache.data], ["tick", '{"n":2}'])
    assert.ok(cache.ttl > 1790 && cache.ttl <= 1800, String(cache.ttl))
    assert.deepEqual(missed, [])
  })
}

for (const threads of [1, 2]) {
  withServer(`clients speak to each other, ${threads} reactors`, { threads, config: CHATTY }, async (server) => {
    const publisher = server.publisher()
    const connect = (user_id) => server.connect({ channelAuthorization: authorizer(publisher, { user_id }) })
    const [ada, bob] = [await connect("ada"), await connect("bob")]
    for (const name of ["private-a", "presence-a"]) {
      const [from, to] = [await subscribe(ada, name), await subscribe(bob, name)]
      const own = collect(from, "client-typing")
      const heard = []
      to.bind("client-typing", (data, metadata) => heard.push([data, metadata?.user_id]))
      from.trigger("client-typing", { on: true })
      from.trigger("client-typing", "text")
      await until("both", () => heard.length > 1)
      const sender = name === "presence-a" ? "ada" : undefined
      assert.deepEqual(heard, [[{ on: true }, sender], ["text", sender]])
      await settled(ada)
      assert.deepEqual(own, [])
    }
  })
}

withServer("clients that publish too much or where they may not get an error", { config: CHATTY }, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect({ channelAuthorization: authorizer(publisher) })
  const errors = []
  client.connection.bind("error", ({ data }) => errors.push(data?.code))
  const news = await subscribe(client, "news")
  news.trigger("client-typing", {})
  const channel = await subscribe(client, "private-a")
  for (let n = 0; n < 15; n++) channel.trigger("client-typing", { n })
  await until("a refusal", () => errors.includes(4301))
  await settled(client)
  assert.equal(errors[0], null)
  assert.equal(client.connection.state, "connected")
})

withServer("without the switch clients do not speak", { config: app() }, async (server) => {
  const client = await server.connect({ channelAuthorization: authorizer(server.publisher()) })
  const error = next(client.connection, "error")
  const channel = await subscribe(client, "private-a")
  channel.trigger("client-typing", {})
  assert.equal((await error).data.code, 4301)
})

withServer("subscribers get their number", {
  threads: 2,
  config: app("subscription_count = true"),
}, async (server) => {
  const first = await subscribe(await server.connect(), "news")
  await until("one", () => first.subscriptionCount === 1)
  const client = await server.connect()
  const second = await subscribe(client, "news")
  await until("two", () => first.subscriptionCount === 2 && second.subscriptionCount === 2)
  const seen = next(first, "pusher:subscription_count")
  client.unsubscribe("news")
  assert.deepEqual(await seen, { subscription_count: 1 })
})

withServer("a batch is published whole, with its counts", COUNTING, async (server) => {
  const publisher = server.publisher(KEY)
  const client = await server.connect({ channelAuthorization: authorizer(publisher, { user_id: "ada" }) })
  const seen = []
  for (const name of ["news", "presence-a", "private-encrypted-a"]) {
    const channel = await subscribe(client, name)
    channel.bind("tick", (data) => seen.push([name, data]))
  }
  const batch = [
    { name: "tick", channel: "news", data: { n: 1 }, info: "subscription_count" },
    { name: "tick", channel: "presence-a", data: "two", info: "user_count" },
    { name: "tick", channel: "private-encrypted-a", data: { n: 3 } },
    { name: "tick", channel: "news", data: 4, socket_id: client.connection.socket_id },
  ]
  const response = await publisher.triggerBatch(batch.map((event) => ({ ...event })))
  const counts = [{ subscription_count: 1 }, { user_count: 1 }, {}, {}]
  assert.deepEqual(await response.json(), { batch: counts })
  await until("three events", () => seen.length > 2)
  const expected = [["news", { n: 1 }], ["presence-a", "two"], ["private-encrypted-a", { n: 3 }]]
  assert.deepEqual(seen.sort(), expected.sort())
  const many = Array.from({ length: 11 }, () => ({ name: "tick", channel: "news", data: {} }))
  assert.deepEqual(await (await publisher.triggerBatch(many.slice(1))).json(), {})
  await assert.rejects(publisher.triggerBatch(many), { status: 400 })
})

withServer("channels are listed by prefix and read one by one", COUNTING, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect()
  for (const name of ["a-1", "a-2", "b", "c@d=e,f;g.h"]) await subscribe(client, name)
  const get = async (path, params) => (await publisher.get({ path, params })).json()
  const all = { "a-1": {}, "a-2": {}, b: {}, "c@d=e,f;g.h": {} }
  assert.deepEqual(await get("/channels"), { channels: all })
  const some = await get("/channels", { filter_by_prefix: "a-", info: "subscription_count" })
  assert.deepEqual(some, { channels: { "a-1": { subscription_count: 1 }, "a-2": { subscription_count: 1 } } })
  for (const name of ["c@d=e,f;g.h", encodeURIComponent("c@d=e,f;g.h")]) {
    assert.deepEqual(await get(`/channels/${name}`), { occupied: true })
  }
  assert.deepEqual(await get("/channels/none"), { occupied: false })
})
