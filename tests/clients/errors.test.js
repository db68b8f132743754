// Errors that the vendor's client receives, and error texts that the vendor's test suites match.

const assert = require("node:assert/strict")
const { app, authorizer, collect, next, state, subscribe, until, withServer } = require("./support")

const VASK = app('profile = "vask"')
const LIMITED = app("client_events = true\nlimits = { event_name_length = 20 }")

/** A client whose subscriptions to private channels are signed with a wrong secret. */
function unsigned(server) {
  const publisher = server.publisher({ secret: "not-the-secret" })
  return server.connect({ channelAuthorization: authorizer(publisher) })
}

withServer("a channel gets the reason why its client event was refused", { config: LIMITED }, async (server) => {
  const client = await server.connect({ channelAuthorization: authorizer(server.publisher()) })
  const channel = await subscribe(client, "private-room")
  const other = await subscribe(client, "private-other")
  const elsewhere = collect(other, "pusher:error")
  const refused = next(channel, "pusher:error")
  channel.trigger(`client-${"x".repeat(14)}`, {})
  assert.deepEqual(await refused, { code: 4301, message: "Event name is too long" })
  assert.deepEqual(elsewhere, [])
  assert.equal(client.connection.state, "connected")
})

withServer("a bad signature costs the subscription and not the connection", {}, async (server) => {
  const client = await unsigned(server)
  const error = await next(client.subscribe("private-room"), "pusher:subscription_error")
  assert.deepEqual([error.type, error.status], ["AuthError", 401])
  await subscribe(client, "news")
})

withServer("a bad signature ends the client of a Vask application", { config: VASK }, async (server) => {
  const client = await unsigned(server)
  const errors = collect(client.connection, "error")
  const error = await next(client.subscribe("private-room"), "pusher:subscription_error")
  assert.deepEqual([error.type, error.status], ["AuthError", 401])
  await state(client, "disconnected")
  await until("the code", () => errors.length > 0)
  const codes = errors.map((error) => error.data?.code ?? error.error?.data?.code)
  assert.ok(codes.includes(4009), JSON.stringify(errors))
})

// Nodes of a cluster know numbers of subscribers only where the configuration asks for them.
withServer("presence channels have both counts", { alone: true }, async (server) => {
  const publisher = server.publisher()
  const member = { channelAuthorization: authorizer(publisher, { user_id: "u" }) }
  await subscribe(await server.connect(member), "presence-foobar")
  await subscribe(await server.connect(member), "presence-foobar")
  const info = "user_count,subscription_count"
  const counts = { user_count: 1, subscription_count: 2 }
  const get = async (path, params) => (await publisher.get({ path, params })).json()
  assert.deepEqual(await get("/channels/presence-foobar", { info }), { occupied: true, ...counts })
  const listed = await get("/channels", { filter_by_prefix: "presence-", info })
  assert.deepEqual(listed, { channels: { "presence-foobar": counts } })
  const triggered = await publisher.trigger("presence-foobar", "e", {}, { info })
  assert.deepEqual(await triggered.json(), { channels: { "presence-foobar": counts } })
  const batch = [{ channel: "presence-foobar", name: "e", data: {}, info }]
  assert.deepEqual(await (await publisher.triggerBatch(batch)).json(), { batch: [counts] })
})

withServer("refusals have the words that the vendor's suites match", {}, async (server) => {
  const publisher = server.publisher()
  const long = { name: "e", channel: "c", data: "a".repeat(11 * 1024) }
  const many = Array.from({ length: 11 }, () => ({ ...long, data: "{}" }))
  for (const [path, body, status, words] of [
    ["/events", long, 413, "content of this event"],
    ["/batch_events", { batch: [long] }, 413, "content of this event"],
    ["/batch_events", { batch: many }, 400, "Batch too large"],
  ]) {
    await assert.rejects(publisher.post({ path, body }), (error) => {
      assert.equal(error.status, status)
      assert.ok(error.body.includes(words), error.body)
      return true
    })
  }
})
