// Public and private channels with the vendor's client library (subscribing) and server library
// (publishing).

const assert = require("node:assert/strict")
const { DEMO, authorizer, collect, next, settled, subscribe, until, withServer } = require("./support")

withServer("an event reaches its subscriber with equal data", {}, async (server) => {
  const publisher = server.publisher()
  const channel = await subscribe(await server.connect(), "news")
  const values = [
    { id: 7, list: [1, 2.5, -3e9, null, true], deep: { a: { b: {} } } },
    [],
    {},
    0,
    null,
    false,
    "",
    "plain text",
    'quotes " and \\ and / and \u0000\b\f\n\r\t\u001f\u007f',
    "\u00e9 \u4e2d\u6587 \u0440\u0443\u0441 \u0627\u0644 \u{1f600}\u{1f468}\u200d\u{1f469} \u2028\u2029 \ufeff",
    { "k\u00e9y \u{1f511}": "v" },
  ]
  const seen = collect(channel, "order.paid")
  for (const value of values) {
    const response = await publisher.trigger("news", "order.paid", value)
    assert.equal(response.status, 200)
    assert.deepEqual(await response.json(), {})
  }
  await until("all events", () => seen.length >= values.length)
  assert.deepEqual(seen, values)
})

withServer("an event's name is any text", {}, async (server) => {
  const publisher = server.publisher()
  const channel = await subscribe(await server.connect(), "news")
  for (const name of ["a", "App\\Events\\Paid", "\u00e9v\u00e9nement \u{1f600}", 'a "b"', "x".repeat(200)]) {
    const seen = next(channel, name)
    await publisher.trigger("news", name, { name })
    assert.deepEqual(await seen, { name })
  }
})

withServer("one publish reaches several channels, and no other", {}, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect()
  const names = ["a", "b-_=@,.;1", "c"]
  const seen = []
  for (const name of [...names, "d"]) {
    const channel = await subscribe(client, name)
    channel.bind("tick", (data) => seen.push([name, data]))
  }
  await publisher.trigger(names, "tick", { n: 1 })
  await publisher.trigger("d", "end", {})
  await until("three events", () => seen.length >= names.length)
  await settled(client)
  assert.deepEqual(seen.sort(), names.map((name) => [name, { n: 1 }]))
})

for (const threads of [1, 2]) {
  withServer(`the excluded socket hears nothing, ${threads} reactors`, { threads }, async (server) => {
    const publisher = server.publisher()
    const clients = await Promise.all(Array.from({ length: 8 }, () => server.connect()))
    const seen = []
    for (const client of clients) seen.push(collect(await subscribe(client, "news"), "tick"))
    for (const [n, client] of clients.entries()) {
      await publisher.trigger("news", "tick", n, { socket_id: client.connection.socket_id })
    }
    await publisher.trigger("news", "tick", "end")
    await until("the last event", () => seen.every((list) => list.at(-1) === "end"))
    seen.forEach((list, me) => {
      const others = clients.map((_, n) => n).filter((n) => n !== me)
      assert.deepEqual(list, [...others, "end"])
    })
  })
}

withServer("after an unsubscribe nothing comes", {}, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect()
  await subscribe(client, "news")
  await subscribe(client, "other")
  const heard = []
  client.connection.bind("message", ({ channel, event }) => heard.push(`${channel} ${event}`))
  await publisher.trigger("news", "tick", 1)
  await until("the first event", () => heard.includes("news tick"))
  client.unsubscribe("news")
  await settled(client)
  heard.length = 0
  await publisher.trigger(["news", "other"], "tick", 2)
  await until("the other channel's event", () => heard.includes("other tick"))
  await settled(client)
  assert.ok(!heard.some((what) => what.startsWith("news")), heard.join())
  const again = await subscribe(client, "news")
  const seen = next(again, "tick")
  await publisher.trigger("news", "tick", 3)
  assert.equal(await seen, 3)
})

withServer("a private channel opens to a signature", {}, async (server) => {
  const publisher = server.publisher()
  for (const data of [undefined, { user_id: "ada", user_info: { name: "\u00c5da" } }]) {
    const client = await server.connect({ channelAuthorization: authorizer(publisher, data) })
    const channel = await subscribe(client, "private-orders")
    const seen = next(channel, "paid")
    await publisher.trigger("private-orders", "paid", { id: 1 })
    assert.deepEqual(await seen, { id: 1 })
  }
})

withServer("a private channel stays shut to a wrong secret", {}, async (server) => {
  const forger = server.publisher({ secret: "not-the-secret" })
  const client = await server.connect({ channelAuthorization: authorizer(forger) })
  const channel = client.subscribe("private-orders")
  const error = await next(channel, "pusher:subscription_error")
  assert.equal(error.status, 401)
  assert.equal(error.type, "AuthError")
  assert.equal(channel.subscribed, false)
  const heard = collect(channel, "paid")
  await server.publisher().trigger("private-orders", "paid", {})
  await settled(client)
  assert.deepEqual(heard, [])
  assert.doesNotMatch(JSON.stringify(error), new RegExp(DEMO.secret))
})

withServer("another socket's signature does not open a private channel", {}, async (server) => {
  const publisher = server.publisher()
  const other = await server.connect()
  const client = await server.connect({
    channelAuthorization: {
      customHandler: ({ channelName }, done) => {
        done(null, publisher.authorizeChannel(other.connection.socket_id, channelName))
      },
    },
  })
  const error = await next(client.subscribe("private-orders"), "pusher:subscription_error")
  assert.equal(error.status, 401)
})

withServer("200 events reach 24 clients on 2 reactors once and in order", { threads: 2 }, async (server) => {
  const publisher = server.publisher()
  const clients = await Promise.all(Array.from({ length: 24 }, () => server.connect()))
  const metrics = await (await fetch(`http://${server.host}:${server.port}/metrics`)).text()
  const cores = [...metrics.matchAll(/^polycast_core_connections\{core="\d+"\} (\d+)$/gm)]
  assert.equal(cores.length, 2)
  for (const [line, connections] of cores) assert.ok(Number(connections) > 0, line)
  const channels = await Promise.all(clients.map((client) => subscribe(client, "news")))
  const seen = channels.map((channel) => collect(channel, "tick"))
  const expected = Array.from({ length: 200 }, (_, n) => n)
  for (const n of expected) await publisher.trigger("news", "tick", n)
  await until("all events", () => seen.every((list) => list.length >= expected.length))
  await Promise.all(clients.map(settled))
  for (const list of seen) assert.deepEqual(list, expected)
})

withServer("publishes at the same time have one order for everyone", { threads: 2 }, async (server) => {
  const publishers = [0, 1, 2, 3].map(() => server.publisher())
  const clients = await Promise.all(Array.from({ length: 12 }, () => server.connect()))
  const channels = await Promise.all(clients.map((client) => subscribe(client, "news")))
  const seen = channels.map((channel) => collect(channel, "tick"))
  const each = 50
  const publishAll = async (publisher, who) => {
    for (let n = 0; n < each; n++) await publisher.trigger("news", "tick", { who, n })
  }
  await Promise.all(publishers.map(publishAll))
  await until("all events", () => seen.every((list) => list.length >= each * publishers.length))
  await Promise.all(clients.map(settled))
  for (const list of seen) assert.deepEqual(list, seen[0])
  for (const who of publishers.keys()) {
    const own = seen[0].filter((event) => event.who === who).map((event) => event.n)
    assert.deepEqual(own, Array.from({ length: each }, (_, n) => n))
  }
})
