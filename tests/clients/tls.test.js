// TLS connections with a plain WebSocket client and with the vendor's libraries.

const assert = require("node:assert/strict")
const https = require("node:https")
const { randomBytes } = require("node:crypto")
const fs = require("node:fs")
const path = require("node:path")
const WebSocket = require("ws")
const { FIXTURES, SECURE, next, state, subscribe, within, withServer } = require("./support")

const ca = fs.readFileSync(path.join(FIXTURES, "ca.pem"))

function opened(socket) {
  return within("the opening", new Promise((resolve, reject) => {
    socket.on("open", resolve)
    socket.on("error", reject)
  }))
}

withServer("messages come back in both versions", { config: SECURE }, async (server) => {
  for (const version of ["TLSv1.2", "TLSv1.3"]) {
    const options = { ca, minVersion: version, maxVersion: version }
    const socket = new WebSocket(server.secureUrl("/dedicated"), options)
    await opened(socket)
    assert.equal(socket._socket.getProtocol(), version)
    for (const length of [0, 1, 16384, 65536, 1 << 20]) {
      const sent = randomBytes(length)
      const message = new Promise((resolve) => socket.once("message", resolve))
      socket.send(sent)
      assert.ok((await within("an echo", message)).equals(sent), `${length} bytes`)
    }
    const closed = new Promise((resolve) => socket.on("close", resolve))
    socket.close(1000)
    assert.equal(await within("the close", closed), 1000)
  }
})

withServer("a client that does not trust it goes away", { config: SECURE }, async (server) => {
  const other = fs.readFileSync(path.join(FIXTURES, "rsa.pem"))
  const socket = new WebSocket(server.secureUrl("/echo"), { ca: other })
  await assert.rejects(opened(socket), /certificate|issuer/)
})

// NODE_EXTRA_CA_CERTS is set by tests/run, since the vendor's client has no option for a CA.
withServer("the vendor's libraries speak through it", { config: SECURE }, async (server) => {
  assert.ok(process.env.NODE_EXTRA_CA_CERTS, "tests/run sets it")
  const enabledTransports = ["ws", "wss"]
  const client = server.client({ wssPort: server.port, forceTLS: true, enabledTransports })
  await state(client, "connected")
  const channel = await subscribe(client, "news")
  const event = next(channel, "greeting")
  const publisher = server.publisher({ useTLS: true, agent: new https.Agent({ ca }) })
  const response = await publisher.trigger("news", "greeting", { hello: "world" })
  assert.equal(response.status, 200)
  assert.deepEqual(await event, { hello: "world" })
})
