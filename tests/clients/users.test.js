// Signed-in users: events to users, watchlists, and termination of their connections.

const assert = require("node:assert/strict")
const { app, authenticator, collect, next, settled, signIn, state, until, withServer } =
  require("./support")

const WATCHFUL = app("watchlist = true")

function user(server, data, options) {
  return server.connect({ userAuthentication: authenticator(server.publisher(options), data) })
}

for (const threads of [1, 2]) {
  withServer(`what is sent to a user reaches all its connections, ${threads} reactors`, { threads }, async (server) => {
    const publisher = server.publisher()
    const clients = [
      await user(server, { id: "ada" }),
      await user(server, { id: "ada" }),
      await user(server, { id: "bob" }),
    ]
    const seen = []
    for (const client of clients) seen.push(collect(await signIn(client), "hello"))
    await publisher.sendToUser("ada", "hello", { n: 1 })
    // The path for user events of Vask's API.
    await publisher.post({ path: "/users/ada/events", body: { name: "hello", data: '{"n":2}' } })
    await until("the events", () => seen[0].length > 1 && seen[1].length > 1)
    for (const client of clients) await settled(client)
    assert.deepEqual(seen, [[{ n: 1 }, { n: 2 }], [{ n: 1 }, { n: 2 }], []])
  })
}

withServer("a terminated user is closed everywhere and not tried again", { threads: 2 }, async (server) => {
  const ada = [await user(server, { id: "ada" }), await user(server, { id: "ada" })]
  const bob = await user(server, { id: "bob" })
  for (const client of [...ada, bob]) await signIn(client)
  const response = await server.publisher().terminateUserConnections("ada")
  assert.deepEqual(await response.json(), {})
  for (const client of ada) await state(client, "disconnected")
  await settled(bob)
  assert.equal(bob.connection.state, "connected")
})

withServer("a user of a Vask application comes back after its termination", {
  config: app('profile = "vask"'),
}, async (server) => {
  const client = await user(server, { id: "ada" })
  await signIn(client)
  const before = client.connection.socket_id
  await server.publisher().terminateUserConnections("ada")
  await until("another connection", () => {
    const now = client.connection.socket_id
    return client.connection.state === "connected" && now !== before
  })
})

withServer("a wrong secret does not sign in", {}, async (server) => {
  const client = await user(server, { id: "ada" }, { secret: "not-the-secret" })
  const error = next(client.connection, "error")
  client.signin()
  assert.equal((await error).data.code, 4009)
  await state(client, "disconnected")
})

for (const threads of [1, 2]) {
  withServer(`a watchlist is told who comes and goes, ${threads} reactors`, { threads, config: WATCHFUL }, async (server) => {
    const bob = await user(server, { id: "bob" })
    await signIn(bob)
    const ada = await user(server, { id: "ada", watchlist: ["bob", "eve"] })
    const heard = []
    ada.user.watchlist.bind_global((name, { user_ids }) => heard.push([name, user_ids.sort()]))
    await signIn(ada)
    await until("who is there", () => heard.length > 1)
    assert.deepEqual(heard.splice(0).sort(), [["offline", ["eve"]], ["online", ["bob"]]])
    const eve = await user(server, { id: "eve" })
    await signIn(eve)
    await until("one who comes", () => heard.length > 0)
    // Opening a second connection of a user and closing one of two cause no event.
    const twin = await user(server, { id: "eve" })
    await signIn(twin)
    twin.disconnect()
    bob.disconnect()
    await until("one who goes", () => heard.length > 1)
    eve.disconnect()
    await until("the other who goes", () => heard.length > 2)
    await settled(ada)
    assert.deepEqual(heard, [["online", ["eve"]], ["offline", ["bob"]], ["offline", ["eve"]]])
  })
}

withServer("without the switch there is no watchlist", {}, async (server) => {
  const ada = await user(server, { id: "ada", watchlist: ["bob"] })
  const heard = []
  ada.user.watchlist.bind_global((name) => heard.push(name))
  await signIn(ada)
  await settled(ada)
  assert.deepEqual(heard, [])
})
