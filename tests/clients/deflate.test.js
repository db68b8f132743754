// permessage-deflate with the `ws` client of Node: routes without compression, with shared
// compression (no context takeover), and with dedicated compression (context takeover).

const assert = require("node:assert/strict")
const { randomBytes } = require("node:crypto")
const { test } = require("node:test")
const WebSocket = require("ws")
const { COMPRESSING, Server, within, withServer } = require("./support")

const LENGTHS = [0, 1, 127, 128, 129, 4096, 65535, 65536, 1 << 20]
const NOT_KEPT = { server_no_context_takeover: true, client_no_context_takeover: true }
const OURS_NOT_KEPT = { server_no_context_takeover: true }

/** The route, the client's options, and the expected parameters; undefined is not checked. */
const CASES = [
  ["off", { perMessageDeflate: true }, undefined],
  ["off", { perMessageDeflate: false }, undefined],
  ["shared", { perMessageDeflate: false }, undefined],
  ["dedicated", { perMessageDeflate: false }, undefined],
  ["shared", { perMessageDeflate: { threshold: 0 } }, NOT_KEPT],
  ["dedicated", { perMessageDeflate: { threshold: 0 } }, {}],
  ["dedicated", { perMessageDeflate: { threshold: 1024 } }, {}],
  ["dedicated", { perMessageDeflate: { threshold: 0, serverNoContextTakeover: true } }, OURS_NOT_KEPT],
  ["dedicated", { perMessageDeflate: { threshold: 0, clientNoContextTakeover: true } }],
  ["dedicated", { perMessageDeflate: { threshold: 0, serverMaxWindowBits: 9 } }],
]

async function open(server, where, options) {
  const socket = new WebSocket(server.url(where), options)
  await within("the opening", new Promise((resolve, reject) => {
    socket.on("open", resolve)
    socket.on("error", reject)
  }))
  return socket
}

function closed(socket) {
  return within("the close", new Promise((resolve) => socket.on("close", (code) => resolve(code))))
}

async function check(socket, data) {
  const echoed = new Promise((resolve) => {
    socket.once("message", (back, isBinary) => resolve([back, isBinary]))
  })
  socket.send(data)
  const [back, isBinary] = await within("an echo", echoed)
  assert.equal(isBinary, typeof data !== "string")
  assert.ok(back.equals(Buffer.from(data)), `${data.length} units came back changed`)
}

async function checkFragments(socket) {
  const parts = ["one ", "", "tw\u00f6 ".repeat(1000), "three"]
  const echoed = new Promise((resolve) => socket.once("message", (back) => resolve(back)))
  for (const [n, part] of parts.entries()) {
    socket.send(part, { fin: n === parts.length - 1, binary: false })
    if (n === 1) socket.ping("between")
  }
  assert.equal((await within("an echo", echoed)).toString(), parts.join(""))
}

for (const [compression, options, agreed] of CASES) {
  const title = `${compression}, client ${JSON.stringify(options.perMessageDeflate)}`
  withServer(`echo with compression ${title}`, { config: COMPRESSING }, async (server) => {
    const socket = await open(server, `/${compression}`, options)
    const deflate = options.perMessageDeflate && compression !== "off"
    assert.equal(socket.extensions, deflate ? "permessage-deflate" : "")
    if (agreed) {
      const parameters = socket._extensions["permessage-deflate"].params
      assert.deepEqual({ ...parameters }, agreed)
    }
    for (const length of LENGTHS) {
      await check(socket, "t".repeat(length))
      await check(socket, randomBytes(length))
      await check(socket, Buffer.alloc(length))
    }
    await check(socket, "\u00e9\u4e2d\u{1f600}\u0000".repeat(1000))
    // Similar messages, which compress well with context takeover.
    for (let n = 0; n < 50; n++) await check(socket, `{"number":${n},"text":"${"again ".repeat(50)}"}`)
    await checkFragments(socket)
    const ended = closed(socket)
    socket.close(4999, "d\u00f6ne")
    assert.equal(await ended, 4999)
  })
}

withServer("a compressed and a plain subscriber hear the same", { config: COMPRESSING }, async (server) => {
  const sockets = []
  for (const perMessageDeflate of [true, false, { serverNoContextTakeover: true }]) {
    const socket = await open(server, "/app/app-key?protocol=7", { perMessageDeflate })
    socket.heard = []
    const ready = new Promise((resolve) => {
      socket.on("message", (data) => {
        const message = JSON.parse(data)
        socket.heard.push(message)
        if (message.event === "pusher_internal:subscription_succeeded") resolve()
      })
    })
    socket.send('{"event":"pusher:subscribe","data":{"channel":"news"}}')
    await within("the subscription", ready)
    sockets.push(socket)
  }
  const values = ["short", "long ".repeat(2000), randomBytes(3000).toString("hex"), "\u{1f600}".repeat(100)]
  for (const value of values) await server.publisher().trigger("news", "tick", { value })
  await server.publisher().trigger("news", "end", {})
  for (const socket of sockets) {
    const end = Date.now() + 10000
    while (socket.heard.at(-1).event !== "end") {
      assert.ok(Date.now() < end, "the last event did not come")
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    const ticks = socket.heard.filter(({ event }) => event === "tick")
    assert.deepEqual(ticks.map(({ data }) => JSON.parse(data).value), values)
    socket.close()
  }
})

// The server echoes the client's close code, and closes with the right code after a violation.
test("close codes, both ways", { timeout: 60000 }, async () => {
  const limits = "[limits]\nframe_bytes = 65536\nmessage_bytes = 65536\n"
  const server = await Server.start({ config: COMPRESSING + limits })
  try {
    for (const where of ["/off", "/shared", "/dedicated"]) {
      for (const code of [1000, 1001, 1003, 1007, 1011, 3000, 4000, 4999]) {
        const socket = await open(server, where, {})
        const ended = closed(socket)
        socket.close(code, "bye")
        assert.equal(await ended, code)
      }
      const broken = [
        [1009, (socket) => socket.send(Buffer.alloc(65537))],
        [1009, (socket) => socket.send(randomBytes(65537))],
        [1007, (socket) => socket.send(Buffer.from([0x61, 0xff]), { binary: false })],
        // A reserved opcode, a continuation without a message, a frame without a mask.
        [1002, (socket) => socket._socket.write(Buffer.from([0x83, 0x80, 0, 0, 0, 0]))],
        [1002, (socket) => socket._socket.write(Buffer.from([0x80, 0x80, 0, 0, 0, 0]))],
        [1002, (socket) => socket._socket.write(Buffer.from([0x81, 0x01, 0x61]))],
      ]
      for (const [code, breakIt] of broken) {
        const socket = await open(server, where, { perMessageDeflate: { threshold: 1 << 30 } })
        const ended = closed(socket)
        breakIt(socket)
        assert.equal(await ended, code, where)
      }
    }
  } finally {
    await server.stop()
  }
})
