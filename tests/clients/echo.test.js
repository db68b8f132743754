// The echo endpoint with a plain WebSocket client.

const assert = require("node:assert/strict")
const { randomBytes } = require("node:crypto")
const WebSocket = require("ws")
const { within, withServer } = require("./support")

/** Runs `body` with a socket to the echo endpoint, and then closes the socket with 1000. */
async function withEcho(server, body, options = {}) {
  const socket = new WebSocket(server.url("/echo"), options)
  const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)))
  await within("the opening", new Promise((resolve, reject) => {
    socket.on("open", resolve)
    socket.on("error", reject)
  }))
  await body(socket)
  socket.close(1000, "done")
  assert.equal(await within("the close", closed), 1000)
}

function answer(socket) {
  const message = new Promise((resolve) => {
    socket.once("message", (data, isBinary) => resolve({ data, isBinary }))
  })
  return within("an echo", message)
}

async function check(socket, data) {
  const echoed = answer(socket)
  socket.send(data)
  const { data: back, isBinary } = await echoed
  assert.equal(isBinary, typeof data !== "string")
  assert.ok(back.equals(Buffer.from(data)), `${data.length} units came back changed`)
}

const LENGTHS = [0, 1, 125, 126, 4096, 65535, 65536, 1 << 20]

withServer("text comes back", {}, (server) =>
  withEcho(server, async (socket) => {
    for (const length of LENGTHS) await check(socket, "t".repeat(length))
    await check(socket, "\u00e9\u4e2d\u{1f600}\u0000".repeat(1000))
  }))

withServer("binary comes back", {}, (server) =>
  withEcho(server, async (socket) => {
    for (const length of LENGTHS) await check(socket, randomBytes(length))
  }))

withServer("fragments come back as one message", {}, (server) =>
  withEcho(server, async (socket) => {
    const echoed = answer(socket)
    for (const [part, fin] of [["one ", false], ["", false], ["two ", false], ["three", true]]) {
      socket.send(part, { fin, binary: false })
    }
    const { data, isBinary } = await echoed
    assert.equal(isBinary, false)
    assert.equal(data.toString(), "one two three")
  }))

withServer("many messages in flight come back in order", { threads: 2 }, (server) =>
  withEcho(server, async (socket) => {
    const sent = Array.from({ length: 1000 }, (_, n) => randomBytes(n * 7))
    const back = []
    const all = new Promise((resolve) => {
      socket.on("message", (data) => back.push(data) === sent.length && resolve())
    })
    sent.forEach((data) => socket.send(data))
    await within("all echoes", all)
    sent.forEach((data, n) => assert.ok(data.equals(back[n]), `message ${n}`))
  }))

withServer("a ping is answered with its payload", {}, (server) =>
  withEcho(server, async (socket) => {
    const pong = new Promise((resolve) => socket.once("pong", resolve))
    socket.ping("are you there")
    assert.equal((await within("the pong", pong)).toString(), "are you there")
  }))

withServer("a client without extensions is served too", {}, (server) =>
  withEcho(server, (socket) => check(socket, "plain"), { perMessageDeflate: false }))

withServer("text that is not UTF-8 closes with 1007", {}, async (server) => {
  const socket = new WebSocket(server.url("/echo"))
  const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)))
  socket.on("open", () => socket.send(Buffer.from([0x61, 0xff]), { binary: false }))
  assert.equal(await within("the close", closed), 1007)
})
