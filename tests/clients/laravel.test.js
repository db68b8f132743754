// Laravel Echo on the vendor's client library, as the pages of a Laravel application use it.

const assert = require("node:assert/strict")
const { DEMO, app, authenticator, authorizer, collect, next, settled, until, within, withServer } =
  require("./support")

const CHATTY = app("client_events = true")
const KEY = { encryptionMasterKeyBase64: Buffer.from("0123456789abcdef0123456789abcdef").toString("base64") }

/**
 * Makes an Echo with a connected client of `server`. `data` is its `channel_data` on presence
 * channels, `user` the user that it may sign in as.
 */
async function echo(server, { broadcaster = "pusher", data, user } = {}) {
  const publisher = server.publisher(KEY)
  const options = {
    channelAuthorization: authorizer(publisher, data),
    ...(user && { userAuthentication: authenticator(publisher, user) }),
  }
  const client = await server.connect(options)
  // The package's CommonJS file cannot be loaded by `require`: its package type is `module`.
  const { default: Echo } = await import("laravel-echo")
  return new Echo({ broadcaster, key: DEMO.key, client })
}

/** Resolves when Echo's `channel` is subscribed. */
function subscribed(channel) {
  const { subscription } = channel
  if (subscription.subscribed) return Promise.resolve()
  return next(subscription, "pusher:subscription_succeeded")
}

/** Calls `listen` with a listener and returns the first argument of the listener's next call. */
function heard(what, listen) {
  return within(what, new Promise((resolve) => listen((...args) => resolve(args[0]))))
}

for (const broadcaster of ["pusher", "reverb"]) {
  withServer(`public and private channels, as ${broadcaster}`, { threads: 2 }, async (server) => {
    const publisher = server.publisher()
    const page = await echo(server, { broadcaster })
    assert.equal(page.connectionStatus(), "connected")
    const cases = [[page.channel("orders"), "orders"], [page.private("orders"), "private-orders"]]
    for (const [channel, name] of cases) {
      await subscribed(channel)
      const paid = heard("an event of the namespace", (take) => channel.listen("OrderPaid", take))
      const named = heard("an event with a name", (take) => channel.listen(".order.sent", take))
      const all = []
      channel.listenToAll((event, data) => all.push([event, data]))
      await publisher.trigger(name, "App\\Events\\OrderPaid", { id: 7 })
      await publisher.trigger(name, "order.sent", { id: 8 })
      assert.deepEqual([await paid, await named], [{ id: 7 }, { id: 8 }])
      assert.deepEqual(all, [["OrderPaid", { id: 7 }], [".order.sent", { id: 8 }]])
    }
    // `broadcast(...)->toOthers()` excludes the page's socket.
    const own = []
    page.channel("orders").listen("Own", (data) => own.push(data))
    await publisher.trigger("orders", "App\\Events\\Own", {}, { socket_id: page.socketId() })
    page.leave("orders")
    await settled(page.connector.pusher)
    assert.deepEqual(own, [])
    // The home of the channel may be the other core, which learns a moment later that it is left. A
    // node of a cluster states after three seconds that it has no subscriber any more.
    let channels
    for (let n = 0; n < 500 && Object.keys(channels ?? { "": {} }).length > 0; n++) {
      if (n > 0) await new Promise((resolve) => setTimeout(resolve, 20))
      channels = (await (await publisher.get({ path: "/channels" })).json()).channels
    }
    assert.deepEqual(channels, {})
  })
}

withServer("a presence channel: here, joining, leaving, whisper", { threads: 2, config: CHATTY }, async (server) => {
  const ada = await echo(server, { data: { user_id: 1, user_info: { name: "Ada" } } })
  const room = ada.join("room")
  assert.deepEqual(await heard("who is here", (take) => room.here(take)), [{ name: "Ada" }])
  const joins = heard("one who joins", (take) => room.joining(take))
  const leaves = heard("one who leaves", (take) => room.leaving(take))
  const whisper = heard("a whisper", (take) => room.listenForWhisper("typing", take))
  const bob = await echo(server, { data: { user_id: 2, user_info: { name: "Bob" } } })
  const theirs = bob.join("room")
  const here = await heard("who is here", (take) => theirs.here(take))
  assert.deepEqual(here.sort(), [{ name: "Ada" }, { name: "Bob" }])
  assert.deepEqual(await joins, { name: "Bob" })
  theirs.whisper("typing", { on: true })
  assert.deepEqual(await whisper, { on: true })
  bob.leave("room")
  assert.deepEqual(await leaves, { name: "Bob" })
})

withServer("a private channel whispers, and a wrong signature is an error", { config: CHATTY }, async (server) => {
  const [one, other] = [await echo(server), await echo(server)]
  const [from, to] = [one.private("chat"), other.private("chat")]
  await Promise.all([subscribed(from), subscribed(to)])
  const whisper = heard("a whisper", (take) => to.listenForWhisper("typing", take))
  from.whisper("typing", { on: true })
  assert.deepEqual(await whisper, { on: true })
  const client = await server.connect({
    channelAuthorization: authorizer(server.publisher({ secret: "not-the-secret" })),
  })
  const { default: Echo } = await import("laravel-echo")
  const channel = new Echo({ broadcaster: "reverb", key: DEMO.key, client }).private("chat")
  assert.equal((await heard("a refusal", (take) => channel.error(take))).status, 401)
})

withServer("an encrypted private channel", {}, async (server) => {
  const page = await echo(server)
  const channel = page.encryptedPrivate("orders")
  await subscribed(channel)
  const paid = heard("an event", (take) => channel.listen("OrderPaid", take))
  await server.publisher(KEY).trigger("private-encrypted-orders", "App\\Events\\OrderPaid", { id: 7 })
  assert.deepEqual(await paid, { id: 7 })
})

withServer("a page signs in, is sent something and is disconnected", {}, async (server) => {
  const publisher = server.publisher()
  const page = await echo(server, { user: { id: "1" } })
  const { pusher } = page.connector
  page.connector.signin()
  await within("a sign-in", pusher.user.signinDonePromise)
  const seen = collect(pusher.user, "hello")
  await publisher.sendToUser("1", "hello", { n: 1 })
  await until("the event", () => seen.length > 0)
  assert.deepEqual(seen, [{ n: 1 }])
  await publisher.terminateUserConnections("1")
  await until("the end", () => page.connectionStatus() === "disconnected")
})
