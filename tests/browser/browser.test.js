// Tests in a real browser: the browser's WebSocket, and the vendor's client library in a page.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const net = require("node:net")
const path = require("node:path")
const { after, before, test } = require("node:test")
const { serve } = require("./chromium")
const links = require("../links")
const { COMPRESSING, DEMO, SECURE, Server } = require("../support")

const { Browser } = require(process.env.BROWSER === "firefox" ? "./firefox" : "./chromium")
const TEST_MS = 120000
const LIBRARY = path.join(path.dirname(require.resolve("pusher-js")), "../web/pusher.min.js")
const SHIM = [path.join(__dirname, "../examples"), path.join(__dirname, "../../examples")]
  .map((folder) => path.join(folder, "polycast-resume.js")).find((file) => fs.existsSync(file))
const PAGE = '<!doctype html><meta charset="utf-8"><title>test</title>'

let browser

before(async () => {
  browser = await Browser.start()
}, { timeout: TEST_MS })

after(async () => {
  await browser?.stop()
}, { timeout: TEST_MS })

/**
 * Defines a test with a new server and a new page. `config` is the text of a configuration, or a
 * function that makes it from the web server of the page; the server has `threads` cores.
 */
function withPage(name, config, body, threads = 1) {
  test(name, { timeout: TEST_MS }, async () => {
    let server
    const site = await serve({
      "/": PAGE,
      "/pusher": `${PAGE}<script src="/pusher.min.js"></script>`,
      "/pusher.min.js": fs.readFileSync(LIBRARY),
      "/polycast-resume.js": fs.readFileSync(SHIM),
      // The authorization endpoint of an application's back end.
      "/auth": (form) => JSON.stringify(server.publisher()
        .authorizeChannel(form.get("socket_id"), form.get("channel_name"))),
    })
    let page
    try {
      const text = typeof config === "function" ? config(site) : config
      server = await Server.start({ config: text, threads })
      page = await browser.open(`${site.origin}/pusher`)
      await page.run(helpers)
      await body(page, server, (other) => (server = other))
    } finally {
      site.stop()
      // The server is stopped even if closing the page fails.
      const [stopped] = await Promise.allSettled([server?.stop(), page?.close()])
      if (stopped.reason) throw stopped.reason
    }
  })
}

/** Runs in the page: defines the functions that the tests call there. */
function helpers() {
  window.opened = (url) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url)
    socket.binaryType = "arraybuffer"
    socket.onopen = () => resolve(socket)
    socket.onclose = ({ code, reason }) => reject(new Error(`was closed: ${code} ${reason}`))
  })
  window.ended = (socket) => new Promise((resolve) => {
    socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean })
  })
  window.echoed = (socket, data) => new Promise((resolve, reject) => {
    socket.onmessage = (event) => resolve(event.data)
    socket.onclose = ({ code, reason }) => reject(new Error(`was closed: ${code} ${reason}`))
    socket.send(data)
  })
  window.equal = (sent, back) => {
    if (typeof sent === "string") return sent === back
    if (!(back instanceof ArrayBuffer) || back.byteLength !== sent.length) return false
    const bytes = new Uint8Array(back)
    return sent.every((byte, n) => byte === bytes[n])
  }
  window.until = async (what, condition, ms = 15000) => {
    const end = Date.now() + ms
    while (!condition()) {
      if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
}

/**
 * Runs in the page: connects the vendor's client as `window.client`, records its connection states
 * in `window.states`, and returns its socket id.
 */
async function connect(key, host, port) {
  window.seen = []
  window.states = []
  window.client = new Pusher(key, {
    wsHost: host,
    wsPort: port,
    forceTLS: false,
    cluster: "",
    enabledTransports: ["ws"],
    channelAuthorization: { endpoint: "/auth", transport: "ajax" },
  })
  client.connection.bind("state_change", ({ current }) => states.push(current))
  await until("the connection", () => client.connection.state === "connected")
  return client.connection.socket_id
}

/** Runs in the page: subscribes `client` to a channel and records its events in `window.seen`. */
async function subscribe(name) {
  const channel = client.subscribe(name)
  channel.bind_global((event, data) => {
    if (!event.startsWith("pusher:")) seen.push([name, event, data])
  })
  await until(`the subscription to ${name}`, () => channel.subscribed)
}

/** The events that the page has recorded, as soon as there are at least `count`. */
function seen(page, count) {
  return page.run(async (count) => {
    await until(`${count} events`, () => seen.length >= count)
    return seen
  }, count)
}

for (const compression of ["off", "shared", "dedicated"]) {
  withPage(`the page's own socket echoes, compression ${compression}`, COMPRESSING, async (page, server) => {
    const result = await page.run(async (url) => {
      const socket = await opened(url)
      const random = (length) => {
        const bytes = new Uint8Array(length)
        for (let at = 0; at < length; at += 65536) {
          crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65536, length)))
        }
        return bytes
      }
      const messages = ["", new Uint8Array(0), "\u00e9\u4e2d\u{1f600}\u0000".repeat(1000)]
      for (const length of [1, 125, 126, 127, 128, 65535, 65536, 1 << 20]) {
        messages.push("t".repeat(length), random(length), new Uint8Array(length))
      }
      for (let n = 0; n < 50; n++) messages.push(`{"n":${n},"text":"${"again ".repeat(50)}"}`)
      const changed = []
      for (const [n, message] of messages.entries()) {
        if (!equal(message, await echoed(socket, message))) changed.push(n)
      }
      const blob = await echoed(socket, new Blob(["of a ", "blob"]))
      const back = []
      socket.onmessage = ({ data }) => back.push(data)
      for (let n = 0; n < 1000; n++) socket.send(`${n}`.repeat(n % 100 + 1))
      await until("all echoes", () => back.length >= 1000)
      const close = ended(socket)
      socket.close(4999, "d\u00f6ne")
      return {
        changed,
        blob: new TextDecoder().decode(blob),
        ordered: back.every((data, n) => data === `${n}`.repeat(n % 100 + 1)),
        extensions: socket.extensions,
        close: await close,
      }
    }, server.url(`/${compression}`))
    assert.deepEqual(result.changed, [])
    assert.equal(result.blob, "of a blob")
    assert.ok(result.ordered)
    if (compression === "off") assert.equal(result.extensions, "")
    else assert.match(result.extensions, /^permessage-deflate/)
    assert.equal(result.close.code, 4999)
    assert.equal(result.close.wasClean, true)
  })
}

const closes = `[limits]\nframe_bytes = 65536\nmessage_bytes = 65536\n${COMPRESSING}`

withPage("the page sees close codes and their reasons", closes, async (page, server) => {
  const refused = (where) => page.run(async (url) => ended(new WebSocket(url)), server.url(where))
  assert.deepEqual(await refused("/app/no-such-key?protocol=7"), {
    code: 4001, reason: "Application does not exist", wasClean: true,
  })
  assert.deepEqual(await refused("/elsewhere"), { code: 4005, reason: "Path not found", wasClean: true })
  for (const where of ["/off", "/shared", "/dedicated"]) {
    const tooLong = await page.run(async (url) => {
      const socket = await opened(url)
      const close = ended(socket)
      socket.send("x".repeat(65537))
      return close
    }, server.url(where))
    assert.equal(tooLong.code, 1009)
    for (const code of [1000, 3000, 4000]) {
      const own = await page.run(async (url, code) => {
        const socket = await opened(url)
        const close = ended(socket)
        socket.close(code, "bye")
        return close
      }, server.url(where), code)
      assert.equal(own.code, code)
      assert.equal(own.wasClean, true)
    }
  }
})

for (const compression of ["off", "shared", "dedicated"]) {
  const config = COMPRESSING.replace('"apps"\ncompression = "shared"', `"apps"\ncompression = "${compression}"`)
  withPage(`the vendor's library in a page, compression ${compression}`, config, async (page, server) => {
    const id = await page.run(connect, DEMO.key, server.host, server.port)
    assert.match(id, /^\d+\.\d+$/)
    await page.run(subscribe, "news")
    await page.run(subscribe, "private-orders")
    const publisher = server.publisher()
    const data = { text: "\u00e9 \u4e2d \u{1f600}", list: [1, null, "x".repeat(5000)] }
    await publisher.trigger("news", "greeting", { hello: "world" })
    await publisher.trigger(["news", "private-orders"], "paid", data)
    await publisher.trigger("news", "paid", "not for this socket", { socket_id: id })
    await publisher.trigger("private-orders", "end", "")
    assert.deepEqual(await seen(page, 4), [
      ["news", "greeting", { hello: "world" }],
      ["news", "paid", data],
      ["private-orders", "paid", data],
      ["private-orders", "end", ""],
    ])
    await page.run(() => client.disconnect())
  })
}

withPage("a page reconnects after a drain and is subscribed again", COMPRESSING, async (page, server, use) => {
  await page.run(connect, DEMO.key, server.host, server.port)
  await page.run(subscribe, "news")
  await page.run(async (url) => {
    window.plain = ended(await opened(url))
  }, server.url("/app/app-key?protocol=7"))
  await server.stop()
  const { code, reason } = await page.run(() => window.plain)
  assert.equal(code, 4200)
  assert.match(reason, /reconnect/)
  await page.run(() => until("another try", () => states.includes("connecting")))
  const next = await Server.start({ config: COMPRESSING, port: server.port })
  use(next)
  // The library waits up to 10 s between two tries, and longer on a busy machine.
  await page.run(() =>
    until("the connection", () => client.connection.state === "connected", 28000))
  await page.run(() => until("the subscription", () => client.channel("news").subscribed))
  await next.publisher().trigger("news", "again", { n: 1 })
  assert.deepEqual(await seen(page, 1), [["news", "again", { n: 1 }]])
  assert.ok(!(await page.run(() => states)).includes("disconnected"))
})

const history = `${COMPRESSING}[[apps.history]]\nchannels = ["private-chat-*"]\nevents = 5000\nbytes = "4MiB"\n`

withPage("a page loses nothing in 20 reconnects with the shim", history, async (page, server) => {
  await page.run(() => new Promise((resolve, reject) => {
    const script = document.createElement("script")
    Object.assign(script, { src: "/polycast-resume.js", onload: resolve, onerror: reject })
    document.head.append(script)
  }))
  await page.run(connect, DEMO.key, server.host, server.port)
  await page.run(subscribe, "private-chat-1")
  const publisher = server.publisher()
  let count = 0
  let isRunning = true
  const load = (async () => {
    while (isRunning) await publisher.trigger("private-chat-1", "number", ++count)
  })()
  load.catch(() => {})
  try {
    for (let n = 0; n < 20; n++) {
      await page.run(async () => {
        const channel = client.channel("private-chat-1")
        const again = new Promise((resolve) => {
          channel.bind("pusher:subscription_succeeded", function done() {
            channel.unbind("pusher:subscription_succeeded", done)
            resolve()
          })
        })
        // After this code the library reconnects at once.
        client.connection.connection.transport.socket.close(4200)
        await again
      })
    }
  } finally {
    isRunning = false
    await load
  }
  await publisher.trigger("private-chat-1", "last", 0)
  const events = await page.run(async () => {
    await until("the last event", () => seen.some(([, event]) => event === "last"))
    return seen
  })
  const of = (name) => events.filter(([, event]) => event === name).map(([, , data]) => data)
  assert.deepEqual(of("number"), Array.from({ length: count }, (_, n) => n + 1))
  assert.ok(count > 20, `${count} events`)
  assert.equal(of("polycast:recovered").length, 20)
  assert.equal(of("polycast:gap").length, 0)
  await page.run(() => client.disconnect())
})

const origins = (allowed) => COMPRESSING + `allowed_origins = ["${allowed}"]\n`

withPage("a page of an allowed origin connects", (site) => origins(site.origin), async (page, server) => {
  await page.run(connect, DEMO.key, server.host, server.port)
})

withPage("a page of another origin is refused", origins("https://example.com"), async (page, server) => {
  const url = server.url("/app/app-key?protocol=7")
  const { code, reason } = await page.run((url) => ended(new WebSocket(url)), url)
  assert.equal(code, 4009)
  assert.match(reason, /origin/)
})

withPage("an encrypted socket brings messages back", SECURE, async (page, server) => {
  const back = await page.run(async (url) => {
    const socket = await opened(url)
    const texts = []
    for (const length of [0, 1, 20000, 1 << 20]) {
      texts.push((await echoed(socket, "t".repeat(length))).length)
    }
    const end = ended(socket)
    socket.close(1000)
    return { texts, ...await end }
  }, server.secureUrl("/dedicated"))
  assert.deepEqual(back.texts, [0, 1, 20000, 1 << 20])
  assert.deepEqual([back.code, back.wasClean], [1000, true])
})

/**
 * Runs in the page: opens an EventSource, and records its messages in `window.heard` and its errors
 * in `window.errors`.
 */
async function listen(url, count) {
  window.heard = []
  window.errors = 0
  window.source = new EventSource(url)
  source.onmessage = ({ data, lastEventId }) => heard.push({ ...JSON.parse(data), id: lastEventId })
  source.onerror = () => errors++
  await until("the subscriptions", () => heard.length >= count || source.readyState === 2)
  return source.readyState
}

const eventsUrl = (server, query) =>
  server.url(`/app/${DEMO.key}/events?${new URLSearchParams(query)}`).replace(/^ws/, "http")

// The page's origin is that of another port.
withPage("a page of another origin receives server-sent events", (site) => origins(site.origin),
  async (page, server) => {
    const publisher = server.publisher()
    const { auth } = publisher.authorizeChannel("1.1", "private-orders")
    const query = { channels: "news,private-orders", socket_id: "1.1", auth }
    assert.equal(await page.run(listen, eventsUrl(server, query), 2), 1)
    const data = { text: "\u00e9 \u4e2d \u{1f600}\r\n", long: "x".repeat(5000) }
    await publisher.trigger("private-orders", "paid", data)
    await publisher.trigger("news", "end", "")
    const heard = await page.run(async () => {
      await until("two events", () => heard.length === 4)
      source.close()
      return heard.slice(2)
    })
    assert.deepEqual(heard.map(({ event, channel }) => [event, channel]).sort(),
      [["end", "news"], ["paid", "private-orders"]])
    const paid = heard.find(({ event }) => event === "paid")
    assert.deepEqual(JSON.parse(paid.data), data)
    assert.equal(await page.run(() => errors), 0)
  })

withPage("a page of an origin that is not allowed receives nothing", origins("https://example.com"),
  async (page, server) => {
    assert.equal(await page.run(listen, eventsUrl(server, { channels: "news" }), 1), 2)
    assert.deepEqual(await page.run(() => [heard, errors]), [[], 1])
  })

withPage("a page connects again to server-sent events after a drain", COMPRESSING,
  async (page, server, use) => {
    await page.run(listen, eventsUrl(server, { channels: "news" }), 1)
    await server.stop()
    const [{ event, data }] = await page.run(async () => {
      await until("the reason", () => heard.length >= 2)
      return heard.splice(0).slice(1)
    })
    assert.deepEqual([event, data.code], ["pusher:error", 4200])
    const next = await Server.start({ config: COMPRESSING, port: server.port })
    use(next)
    await page.run(() => until("the subscription", () => heard.length >= 1, 28000))
    await next.publisher().trigger("news", "again", { n: 1 })
    const again = await page.run(async () => {
      await until("the event", () => heard.length >= 2)
      return heard[1]
    })
    assert.deepEqual([again.event, JSON.parse(again.data)], ["again", { n: 1 }])
  })

const remembering = `${COMPRESSING}[[apps.history]]\nchannels = ["chat-*"]\n`

withPage("a page resumes server-sent events after a broken connection", remembering,
  async (page, server) => {
    const sockets = new Set()
    const detour = net.createServer((client) => {
      const upstream = net.connect(server.port, server.host)
      for (const [one, other] of [[client, upstream], [upstream, client]]) {
        sockets.add(one)
        one.pipe(other)
        one.on("error", () => {})
        one.on("close", () => other.destroy())
      }
    })
    await new Promise((resolve) => detour.listen(0, "127.0.0.1", resolve))
    const url = eventsUrl(server, { channels: "chat-1" }).replace(server.port, detour.address().port)
    assert.equal(await page.run(listen, url, 1), 1)
    const publisher = server.publisher()
    const trigger = (number) => publisher.trigger("chat-1", "n", `${number}`)
    await trigger(0)
    await page.run(() => until("the first event", () => heard.length === 2))
    sockets.forEach((socket) => socket.destroy())
    await trigger(1)
    await trigger(2)
    await page.run(() => until("the missed events", () => heard.length === 5, 28000))
    await trigger(3)
    const heard = await page.run(async () => {
      await until("the live event", () => heard.length === 6)
      source.close()
      return heard
    })
    sockets.forEach((socket) => socket.destroy())
    detour.close()
    const [first, zero, again, ...rest] = heard
    assert.deepEqual([first.recovered, again.recovered], [false, true])
    assert.deepEqual([zero, ...rest].map(({ data }) => data), ["0", "1", "2", "3"])
    assert.match(heard.at(-1).id, /^[0-9a-f]{16}:4$/)
  })

/** The configuration of two applications that share the channels `quotes-*` for pages of `site`. */
const linked = (site) => `${origins(site.origin)}
[[apps]]
id = "2"
key = "view-key"
secret = "view-secret"
allowed_origins = ["${site.origin}"]
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [{ app = "2", channel = "private-q-{symbol}", publish = true }]
`

withPage("a page receives a linked channel as server-sent events, by each of its names", linked,
  async (page, server) => {
    const view = server.publisher({ appId: "2", key: "view-key", secret: "view-secret" })
    const { auth } = view.authorizeChannel("1.1", "private-q-ACME")
    const query = { channels: "private-q-ACME", socket_id: "1.1", auth }
    const urls = [
      eventsUrl(server, { channels: "quotes-ACME" }),
      eventsUrl(server, query).replace(`/app/${DEMO.key}/`, "/app/view-key/"),
    ]
    await page.run(async (urls) => {
      window.heard = urls.map(() => [])
      window.sources = urls.map((url, at) => {
        const source = new EventSource(url)
        source.onmessage = ({ data }) => heard[at].push(JSON.parse(data))
        return source
      })
      await until("the subscriptions", () => heard.every((messages) => messages.length > 0))
    }, urls)
    await server.publisher().trigger("quotes-ACME", "tick", { price: 7, text: "\u00e9\u{1f600}" })
    await page.run(() => until("the first event", () => heard.every((it) => it.length > 1)))
    // The same channel, published through the view.
    await view.trigger("private-q-ACME", "tock", "second")
    await server.publisher().trigger("quotes-OTHER", "tick", "of another channel")
    await server.publisher().trigger("quotes-ACME", "tick", "third")
    const heard = await page.run(async () => {
      await until("all events", () => heard.every((messages) => messages.length >= 4))
      sources.forEach((source) => source.close())
      return heard
    })
    for (const [at, name] of ["quotes-ACME", "private-q-ACME"].entries()) {
      const [begin, ...events] = heard[at]
      assert.equal(begin.event, "pusher_internal:subscription_succeeded")
      assert.deepEqual(events.map(({ event, channel }) => [event, channel]),
        [["tick", name], ["tock", name], ["tick", name]])
      assert.deepEqual(JSON.parse(events[0].data), { price: 7, text: "\u00e9\u{1f600}" })
      assert.deepEqual(events.slice(1).map(({ data }) => data), ["second", "third"])
    }
  })

/** Connects an EventSource of the page to the linked channel, and returns its reader. */
async function linkedReader(page, server) {
  await page.run(async (url) => {
    window.numbers = []
    window.source = new EventSource(url)
    await new Promise((resolve) => {
      source.onmessage = ({ data }) => {
        const { event, data: text } = JSON.parse(data)
        if (event !== "tick") return resolve()
        numbers.push(JSON.parse(text).number)
      }
    })
  }, links.eventsUrl(server))
  const reader = new links.Reader("the browser's EventSource", () => {})
  reader.update = async () => {
    reader.numbers.push(...await page.run(() => numbers.splice(0)))
  }
  return reader
}

withPage("one publish reaches a page's EventSource and every dialect in one order", links.CONFIG,
  (page, server) => links.deliver(server,
    [...links.READERS, (server) => linkedReader(page, server)]), 2)
