// The example of a publisher on a WebSocket, and what its subscribers receive from it.

const assert = require("node:assert/strict")
const { execFile } = require("node:child_process")
const path = require("node:path")
const { promisify } = require("node:util")
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
