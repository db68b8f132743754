// Webhooks of the server, verified by the vendor's server library.

const assert = require("node:assert/strict")
const { app, authorizer, next, settled, subscribe, until, withServer } = require("./support")

const CHATTY = app("client_events = true")

withServer("every kind of webhook is valid for the library", { config: CHATTY, hooks: "" }, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect({ channelAuthorization: authorizer(publisher, { user_id: "ada" }) })
  const { socket_id } = client.connection
  await subscribe(client, "presence-a")
  await next(client.subscribe("cache-a"), "pusher:cache_miss")
  client.channel("presence-a").trigger("client-typing", { on: true })
  await settled(client)
  client.disconnect()
  const expected = [
    { name: "channel_occupied", channel: "presence-a" },
    { name: "member_added", channel: "presence-a", user_id: "ada" },
    { name: "channel_occupied", channel: "cache-a" },
    { name: "cache_miss", channel: "cache-a" },
    { name: "client_event", channel: "presence-a", event: "client-typing", data: '{"on":true}', socket_id, user_id: "ada" },
    { name: "member_removed", channel: "presence-a", user_id: "ada" },
    { name: "channel_vacated", channel: "presence-a" },
    { name: "channel_vacated", channel: "cache-a" },
  ]
  await until("all events", () => server.endpoint.requests.length >= expected.length)
  const text = (list) => list.map((event) => JSON.stringify(Object.entries(event).sort())).sort()
  assert.deepEqual(text(server.endpoint.events(publisher)), text(expected))
  for (const request of server.endpoint.requests) {
    const stranger = server.publisher({ secret: "not-the-secret" })
    assert.equal(stranger.webhook(request).isValid(), false)
    assert.equal(publisher.webhook({ ...request, rawBody: `${request.rawBody} ` }).isValid(), false)
  }
})

withServer("a batch of webhooks is valid, too", {
  hooks: 'batch = true\nbatch_ms = 300\nevent_types = ["channel_occupied", "subscription_count"]',
}, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect()
  for (const name of ["a", "b", "c"]) await subscribe(client, name)
  await until("all events", () => server.endpoint.events(publisher).length >= 6)
  const events = server.endpoint.events(publisher)
  const of = (name) => events.filter((event) => event.name === name).map(({ channel }) => channel).sort()
  assert.deepEqual(of("channel_occupied"), ["a", "b", "c"])
  assert.deepEqual(of("subscription_count"), ["a", "b", "c"])
  assert.ok(server.endpoint.requests.length < 6, String(server.endpoint.requests.length))
})
