// Presence channels with the vendor's client library, and their users in the HTTP API.

const assert = require("node:assert/strict")
const { app, authenticator, authorizer, collect, next, settled, signIn, subscribe, until, withServer } =
  require("./support")

const ROOM = "presence-room"

function member(server, user_id, user_info) {
  const data = { user_id, ...(user_info && { user_info }) }
  return server.connect({ channelAuthorization: authorizer(server.publisher(), data) })
}

for (const threads of [1, 2]) {
  withServer(`members come and go, ${threads} reactors`, { threads }, async (server) => {
    const ada = await subscribe(await member(server, "ada", { name: "\u00c5da" }), ROOM)
    assert.deepEqual([ada.members.count, ada.members.me], [1, { id: "ada", info: { name: "\u00c5da" } }])
    const added = collect(ada, "pusher:member_added")
    const removed = collect(ada, "pusher:member_removed")
    const client = await member(server, "bob")
    const bob = await subscribe(client, ROOM)
    assert.deepEqual(bob.members.members, { ada: { name: "\u00c5da" }, bob: null })
    assert.deepEqual([bob.members.count, bob.members.myID], [2, "bob"])
    // A second connection of a user does not add a member.
    const second = await member(server, "bob", { name: "other" })
    const twin = await subscribe(second, ROOM)
    assert.equal(twin.members.count, 2)
    client.disconnect()
    await settled(second)
    second.unsubscribe(ROOM)
    await until("the last of them", () => removed.length > 0)
    assert.deepEqual(added, [{ id: "bob", info: null }])
    assert.deepEqual(removed.map(({ id }) => id), ["bob"])
    assert.equal(ada.members.count, 1)
  })
}

withServer("a number is the same member as its text", {}, async (server) => {
  const ten = await subscribe(await member(server, 10), ROOM)
  assert.deepEqual(ten.members.me, { id: 10, info: null })
  const client = await member(server, "10")
  const added = collect(ten, "pusher:member_added")
  const other = await subscribe(client, ROOM)
  assert.equal(other.members.count, 1)
  await settled(client)
  assert.deepEqual(added, [])
})

withServer("who has signed in needs no channel_data", {}, async (server) => {
  const publisher = server.publisher()
  const client = await server.connect({
    channelAuthorization: authorizer(publisher),
    userAuthentication: authenticator(publisher, { id: "ada", user_info: { name: "Ada" } }),
  })
  await signIn(client)
  const channel = await subscribe(client, ROOM)
  assert.deepEqual(channel.members.me, { id: "ada", info: { name: "Ada" } })
})

withServer("a presence cache channel has members and a last event", {}, async (server) => {
  const publisher = server.publisher()
  const ada = await member(server, "ada")
  const channel = ada.subscribe("presence-cache-room")
  await next(channel, "pusher:cache_miss")
  assert.equal(channel.members.count, 1)
  await publisher.trigger("presence-cache-room", "tick", { n: 1 })
  const bob = await member(server, "bob")
  assert.deepEqual(await next(bob.subscribe("presence-cache-room"), "tick"), { n: 1 })
})

withServer("a full room lets nobody in but who is there", {
  config: app("limits = { presence_members = 2 }"),
}, async (server) => {
  await subscribe(await member(server, "ada"), ROOM)
  await subscribe(await member(server, "bob"), ROOM)
  await subscribe(await member(server, "bob"), ROOM)
  const eve = await member(server, "eve")
  const error = await next(eve.subscribe(ROOM), "pusher:subscription_error")
  assert.deepEqual([error.type, error.status], ["LimitReached", 4100])
})

withServer("the API counts users and names them", { threads: 2 }, async (server) => {
  const publisher = server.publisher()
  const get = async (path, params) => (await publisher.get({ path, params })).json()
  for (const id of ["ada", "bob", "bob"]) await subscribe(await member(server, id), ROOM)
  const prefix = { filter_by_prefix: "presence-", info: "user_count" }
  assert.deepEqual(await get("/channels", prefix), { channels: { [ROOM]: { user_count: 2 } } })
  const one = await get(`/channels/${ROOM}`, { info: "user_count" })
  assert.deepEqual(one, { occupied: true, user_count: 2 })
  assert.deepEqual(await get(`/channels/${ROOM}/users`), { users: [{ id: "ada" }, { id: "bob" }] })
  assert.deepEqual(await get("/channels/presence-none/users"), { users: [] })
  const response = await publisher.trigger(ROOM, "tick", {}, { info: "user_count" })
  assert.deepEqual(await response.json(), { channels: { [ROOM]: { user_count: 2 } } })
  const inapplicable = [
    { path: "/channels/news/users" },
    { path: "/channels/news", params: { info: "user_count" } },
    { path: "/channels", params: { info: "user_count" } },
  ]
  for (const options of inapplicable) await assert.rejects(publisher.get(options), { status: 400 })
})
