// The HTTP API with the vendor's server library: signatures, timestamps, limits.

const assert = require("node:assert/strict")
const { DEMO, collect, next, settled, subscribe, until, withServer } = require("./support")

/** Awaits the refusal of a publish; returns its HTTP status and error message. */
async function refusal(publish) {
  const outcome = await publish.then(
    (response) => assert.fail(`not refused: ${response.status}`),
    (error) => error,
  )
  assert.ok(outcome.status, outcome)
  const body = JSON.parse(outcome.body)
  assert.equal(body.code, outcome.status)
  assert.equal(typeof body.error, "string")
  assert.ok(!outcome.body.includes(DEMO.secret))
  return { status: outcome.status, error: body.error }
}

/** Publishes with a signature whose timestamp is `now_ms`, in Unix milliseconds. */
function publishAt(publisher, now_ms) {
  const real = Date.now
  Date.now = () => now_ms
  try {
    // The library signs synchronously, before `Date.now` is restored.
    return publisher.trigger("news", "tick", {})
  } finally {
    Date.now = real
  }
}

withServer("a wrong secret, key or application is refused", {}, async (server) => {
  const channel = await subscribe(await server.connect(), "news")
  const seen = collect(channel, "tick")
  const publish = (options) => server.publisher(options).trigger("news", "tick", "refused")
  assert.equal((await refusal(publish({ secret: "not-the-secret" }))).status, 401)
  assert.equal((await refusal(publish({ key: "not-the-key" }))).status, 401)
  assert.equal((await refusal(publish({ appId: "999" }))).status, 404)
  await server.publisher().trigger("news", "tick", "accepted")
  await until("the event", () => seen.length > 0)
  assert.deepEqual(seen, ["accepted"])
})

withServer("a signature is good for 600 seconds, both ways", {}, async (server) => {
  const publisher = server.publisher()
  const now = Date.now()
  for (const offset_s of [-590, 0, 590]) {
    assert.equal((await publishAt(publisher, now + offset_s * 1000)).status, 200)
  }
  for (const offset_s of [-620, 620, -1e6]) {
    const { status, error } = await refusal(publishAt(publisher, now + offset_s * 1000))
    assert.equal(status, 401)
    assert.match(error, /timestamp/i)
  }
})

withServer("data of 10240 bytes passes, one more is 413", {}, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect()
  const channel = await subscribe(client, "news")
  const full = [
    "x".repeat(10240),
    "\u00e9".repeat(5120),
    "\u{1f600}".repeat(2560),
    '"'.repeat(10240),
    "\u0001".repeat(10240),
  ]
  for (const data of full) {
    assert.equal(Buffer.byteLength(data), 10240)
    const seen = next(channel, "tick")
    assert.equal((await publisher.trigger("news", "tick", data)).status, 200)
    assert.equal(await seen, data)
  }
  const seen = collect(channel, "tick")
  for (const data of full) {
    assert.equal((await refusal(publisher.trigger("news", "tick", `${data}x`))).status, 413)
  }
  await settled(client)
  assert.deepEqual(seen, [])
})

withServer("bounds on names and channels", {}, async (server) => {
  const publisher = server.publisher()
  const names = (count) => Array.from({ length: count }, (_, n) => `c${n}`)
  assert.equal((await publisher.trigger(names(100), "tick", {})).status, 200)
  assert.equal((await publisher.trigger("c".repeat(200), "e".repeat(200), {})).status, 200)
  // The library's `trigger` refuses these values itself; `post` sends them without a check.
  const post = (body) => publisher.post({ path: "/events", body: { data: "{}", ...body } })
  assert.equal((await refusal(post({ name: "tick", channels: names(101) }))).status, 400)
  assert.equal((await refusal(post({ name: "e".repeat(201), channels: ["c"] }))).status, 400)
  assert.equal((await refusal(post({ name: "tick", channels: ["c".repeat(201)] }))).status, 400)
  assert.equal((await refusal(post({ name: "tick", channels: ["a b"] }))).status, 400)
  assert.equal((await refusal(post({ name: "tick", channels: [] }))).status, 400)
  assert.equal((await refusal(post({ name: "pusher:error", channels: ["c"] }))).status, 400)
  assert.equal((await refusal(post({ channels: ["c"] }))).status, 400)
})

withServer("nothing of a publish to several channels happens when one is refused", {}, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect()
  const seen = collect(await subscribe(client, "good"), "tick")
  const body = { name: "tick", data: "{}", channels: ["good", "not good"] }
  assert.equal((await refusal(publisher.post({ path: "/events", body }))).status, 400)
  await settled(client)
  assert.deepEqual(seen, [])
})

withServer("requests share a connection", { threads: 2 }, async (server) => {
  const agent = new (require("node:http").Agent)({ keepAlive: true, maxSockets: 1 })
  const publisher = server.publisher({ agent })
  try {
    const client = await server.connect()
    const seen = collect(await subscribe(client, "news"), "tick")
    const expected = Array.from({ length: 100 }, (_, n) => n)
    for (const n of expected) {
      const response = await publisher.trigger("news", "tick", n)
      await response.text()
    }
    await until("all events", () => seen.length >= expected.length)
    assert.deepEqual(seen, expected)
  } finally {
    agent.destroy()
  }
})
