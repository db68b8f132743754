// HTTP streams in place of WebSockets: the request body and the response body are sent at the same
// time, one message a line, with Node's HTTP client.

const assert = require("node:assert/strict")
const http = require("node:http")
const { createInterface } = require("node:readline")
const { test } = require("node:test")
const WebSocket = require("ws")
const { Server, app, within, withServer } = require("./support")

const CONFIG = `
[[routes]]
when = [{ path = "/echo" }]
endpoint = "echo"
stream = true
[[routes]]
when = [{ path = "/group" }]
endpoint = "reflect"
stream = true
[[routes]]
endpoint = "apps"
${app()}`

const proxy = (port) => `
[[routes]]
endpoint = "proxy"
stream = true
proxy.upstreams = ["ws://127.0.0.1:${port}/feed"]
`

/**
 * Opens a stream of lines at `path`: `request` is written to, `line` reads the next line of the
 * response `answer`, and `ended` resolves at the end of the response.
 */
async function open(server, path) {
  const url = server.url(path).replace(/^ws/, "http")
  const request = http.request(url, {
    method: "POST",
    headers: { "Content-Type": "application/x-ndjson" },
  })
  request.flushHeaders()
  const answer = await within("the answer's head", new Promise((resolve, reject) => {
    request.on("response", resolve)
    request.on("error", reject)
  }))
  assert.equal(answer.statusCode, 200)
  assert.equal(answer.headers["content-type"], "application/x-ndjson")
  const ended = new Promise((resolve) => answer.on("end", resolve))
  const lines = createInterface({ input: answer })[Symbol.asyncIterator]()
  const line = async () => (await within("a line", lines.next())).value
  return { request, answer, ended, line }
}

withServer("a line comes back before the next one is written", { config: CONFIG }, async (server) => {
  const stream = await open(server, "/echo")
  for (let number = 0; number < 50; number += 1) {
    const text = JSON.stringify({ number, text: "\u00e9".repeat(number * 100) })
    stream.request.write(`${text}\n`)
    assert.equal(await stream.line(), text)
  }
  stream.request.end('"last"')
  assert.equal(await stream.line(), '"last"')
  await within("the end", stream.ended)
  assert.deepEqual(stream.answer.trailers, {})
})

withServer("a WebSocket and a stream hear each other", { config: CONFIG, threads: 2 },
  async (server) => {
    const stream = await open(server, "/group")
    stream.request.write("0\n")
    assert.equal(await stream.line(), "0")
    const socket = new WebSocket(server.url("/group"))
    await within("the opening", new Promise((resolve) => socket.on("open", resolve)))
    const heard = []
    socket.on("message", (data) => heard.push(data.toString()))
    for (let number = 1; number < 50; number += 1) {
      socket.send(`{"socket":${number}}`)
      assert.equal(await stream.line(), `{"socket":${number}}`)
      stream.request.write(`{"stream":${number}}\n`)
      assert.equal(await stream.line(), `{"stream":${number}}`)
    }
    socket.close()
    await within("the close", new Promise((resolve) => socket.on("close", resolve)))
    assert.equal(heard.length, 98)
    stream.request.destroy()
  })

withServer("why the server ends is in the trailer", { config: CONFIG }, async (server) => {
  const stream = await open(server, "/echo")
  stream.request.write(Buffer.from([0xff, 0x0a]))
  stream.answer.resume()
  await within("the end", stream.ended)
  assert.equal(stream.answer.trailers["polycast-close"], "1007 text is not UTF-8")
})

/**
 * Runs `run` with an upstream server of the `ws` library, which answers each message by two: one
 * with the request's path before it, one without. `"end"` makes it close with 4000.
 */
async function withUpstream(run) {
  const upstream = new WebSocket.WebSocketServer({ port: 0, host: "127.0.0.1" })
  await within("the upstream", new Promise((resolve) => upstream.on("listening", resolve)))
  const closes = []
  upstream.on("connection", (socket, request) => {
    socket.on("message", (data, isBinary) => {
      assert.equal(isBinary, false)
      socket.send(`${request.url} ${data}`)
      socket.send(data.toString())
      socket.ping("there?")
      if (data.toString() === '"end"') socket.close(4000, "enough")
    })
    socket.on("pong", (data) => assert.equal(data.toString(), "there?"))
    socket.on("close", (code) => closes.push(code))
  })
  try {
    await run(upstream.address().port, closes)
  } finally {
    upstream.clients.forEach((socket) => socket.terminate())
    await new Promise((resolve) => upstream.close(resolve))
  }
}

test("a stream is a WebSocket to the server behind a proxy", { timeout: 60000 }, () =>
  withUpstream(async (port, closes) => {
    const server = await Server.start({ config: proxy(port), threads: 2 })
    try {
      const stream = await open(server, "/feed")
      for (let number = 0; number < 50; number += 1) {
        const text = JSON.stringify({ number, text: "\u00e9".repeat(number * 100) })
        stream.request.write(`${text}\n`)
        assert.equal(await stream.line(), `/feed ${text}`)
        assert.equal(await stream.line(), text)
      }
      stream.request.end('"end"')
      assert.equal(await stream.line(), '/feed "end"')
      assert.equal(await stream.line(), '"end"')
      await within("the end", stream.ended)
      assert.equal(stream.answer.trailers["polycast-close"], "4000 enough")
      await within("the upstream's close", (async () => {
        while (closes.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
      })())
      assert.deepEqual(closes, [4000])
    } finally {
      await server.stop()
    }
  }))
