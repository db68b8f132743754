// The example of a publisher on a WebSocket, and what its subscribers receive from it.

const assert = require("node:assert/strict")
const { execFile } = require("node:child_process")
const path = require("node:path")
const test = require("node:test")
const { promisify } = require("node:util")
const { WebSocketServer } = require("ws")
const { DEMO, next, within, withServer } = require("./support")

const COUNT = 3000

/** Runs the example, which `tests/run` copies beside this file. */
async function example(...args) {
  const script = path.join(__dirname, "publish.mjs")
  const run = promisify(execFile)(process.execPath, [script, ...args])
  return within("the example's end", run)
}

withServer("publisher example publishes in order", { threads: 2 }, async (server) => {
  const client = await server.connect()
  const channel = client.subscribe("news")
  await next(channel, "pusher:subscription_succeeded")
  const seen = []
  const all = new Promise((resolve) => {
    channel.bind("tick", ({ n }) => {
      seen.push(n)
      if (seen.length === COUNT) resolve()
    })
  })
  const url = server.url(`/app/${DEMO.key}`)
  const { stdout } = await example(url, DEMO.secret, String(COUNT))
  assert.equal(stdout, `${COUNT} events were published\n`)
  await within("all events", all)
  assert.deepEqual(seen, [...Array(COUNT).keys()])
  client.disconnect()
})

withServer("publisher example reports a wrong secret", {}, async (server) => {
  const run = example(server.url(`/app/${DEMO.key}`), "another-secret", "1")
  await assert.rejects(run, /invalid publisher signature/)
})

test("publisher example fails for the events that a lost connection leaves open", async (t) => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
  t.after(() => server.close())
  server.on("connection", (socket) => {
    const send = (event, data) => socket.send(JSON.stringify({ event, data }))
    send("pusher:connection_established", JSON.stringify({ socket_id: "1.1" }))
    socket.on("message", (text) => {
      const { event, data } = JSON.parse(text)
      if (event === "polycast:authenticate") send("polycast:authenticated", { role: data.role })
      else if (data.id === 1) send("polycast:published", { id: 1 })
      else socket.terminate()
    })
  })
  await new Promise((resolve) => server.on("listening", resolve))
  const run = example(`ws://127.0.0.1:${server.address().port}/app/app-key`, "app-secret", "3")
  await assert.rejects(run, { code: 1, message: /the connection was closed with 1006/ })
})
