// The console page on a server with Zenith, in each of Zenith's three formats.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const fs = require("node:fs")
const path = require("node:path")
const { after, before, test } = require("node:test")
const { Server, openBrowser, openPage, shot } = require("./support")

const SOURCES = process.env.SOURCES || path.join(__dirname, "../..")
const TICKER = process.env.ZENITH_TICKER || path.join(SOURCES, "target/debug/examples/zenith")
const EXAMPLE = fs.readFileSync(path.join(SOURCES, "examples/zenith/polycast.toml"), "utf8")
const CONSOLE = "/?token=console-of-the-example"
const FORMATS = ["ZenithJson", "ZenithBson", "ZenithMsgPack"]
const SECURITY = "Market/Security!ABC.XYZ"
const TRADES = "Market/Trades!ABC.XYZ"

let browser
before(async () => (browser = await openBrowser()))
after(() => browser?.close())

const withState = (page, state) => page.waitForSelector(`#state[data-state="${state}"]`)
const line = (page, topic) =>
  page.locator("#channels > li").filter({ has: page.locator(`.name[title="${topic}"]`) })
const event = (page, name, topic) =>
  page.locator("#events > li").filter({ hasText: name }).filter({ hasText: topic })

/**
 * Starts a server with `config` and runs `body` with the server and a function that opens its page
 * at `where`. An error in a page fails the test.
 */
async function withServer(config, where, body) {
  const server = await Server.start(config)
  const pages = []
  const open = async () => {
    pages.push(await openPage(browser, server.url + where))
    await pages.at(-1).waitForFunction(() => document.querySelector("#version").textContent)
    return pages.at(-1)
  }
  try {
    await body(open, server)
    for (const page of pages) assert.deepEqual(page.wrong, [])
  } finally {
    for (const page of pages) await page.close()
    await server.stop()
  }
}

async function connect(page, format, token) {
  await page.selectOption("#protocol", format)
  await page.fill("#token", token)
  await page.click("#connect")
  await withState(page, "connected")
}

async function subscribe(page, topic) {
  await page.fill("#channel", topic)
  await page.click("#subscribe button")
  await page.waitForSelector(`#channels > li[data-state="subscribed"]:has([title="${topic}"])`)
}

/** The picture that the page shows of a topic: names and values of a map, or one text. */
async function shown(page, topic) {
  const picture = line(page, topic).locator(".picture")
  const members = await picture.locator("dt, dd").allTextContents()
  return members.length > 0 ? members : [await picture.textContent()]
}

async function ingest(server, containers) {
  const headers = { Authorization: "Bearer ticker-secret" }
  const body = JSON.stringify(containers)
  const answer = await fetch(`${server.url}/Zenith/ingest`, { method: "POST", headers, body })
  assert.equal(answer.status, 200, await answer.text())
}

test("the example's topics tick, and look the same in each format", async () => {
  await withServer(EXAMPLE, CONSOLE, async (open, server) => {
    const { host } = new URL(server.url)
    const ticker = spawn(TICKER, [], {
      env: { ...process.env, ZENITH_ADDRESS: host },
      stdio: ["ignore", "ignore", "inherit"],
    })
    const ended = once(ticker, "exit")
    const pages = []
    try {
      for (const format of FORMATS) {
        const page = await open()
        pages.push(page)
        assert.equal(await page.inputValue("#protocol"), "ZenithJson", "chosen by itself")
        assert.equal(await page.locator("#protocol option").count(), 3, "there is no application")
        assert.equal(await page.locator("#publishing").isVisible(), false)
        await connect(page, format, "demo")
        assert.equal(await page.textContent("#state-detail"), `${format}, Ada`)
        for (const topic of [SECURITY, TRADES, "Market/Markets", "Zenith/Feeds"]) {
          await subscribe(page, topic)
        }
        await event(page, "picture", SECURITY).waitFor()
        await event(page, "update", SECURITY).first().waitFor()
        await event(page, "update", TRADES).first().waitFor()
      }
    } finally {
      ticker.kill()
      await ended
    }
    // The last updates have values whose encoding differs between the formats.
    const data = {
      Volume: 123456789012345, Last: 10.25, Small: -7, Big: 3e9, Text: "\u00e9\u{1f600}\"<b>",
      Nothing: null, Yes: true, List: [1, [2.5, {}], "x".repeat(40)], Map: { a: { b: -1e-9 } },
    }
    const trade = { O: "A", Trade: { ID: 4_000_000_000, Price: 10.25, Note: "last" } }
    await ingest(server, [
      { Controller: "Market", Topic: "Security!ABC.XYZ", Data: data },
      { Controller: "Market", Topic: "Trades!ABC.XYZ", Data: [trade] },
    ])
    const all = []
    for (const [at, page] of pages.entries()) {
      await line(page, TRADES).locator(".picture", { hasText: '"last"' }).waitFor()
      await line(page, SECURITY).locator("dd", { hasText: "123456789012345" }).waitFor()
      const topics = [SECURITY, "Market/Markets", "Zenith/Feeds"]
      all.push(await Promise.all(topics.map((topic) => shown(page, topic))))
      await shot(page, `zenith-${FORMATS[at]}`)
    }
    const [security] = all[0]
    const member = (name) => security[security.indexOf(name) + 1]
    assert.equal(member("Name"), "Abc Group", "of the first picture, which no update has")
    assert.deepEqual(JSON.parse(member("List")), data.List)
    assert.deepEqual(JSON.parse(member("Map")), data.Map)
    assert.equal(member("Text"), data.Text)
    assert.deepEqual(all[1], all[0], "BSON")
    assert.deepEqual(all[2], all[0], "MessagePack")
    // A later subscriber receives the same picture from the server.
    const late = await open()
    await connect(late, "ZenithMsgPack", "demo")
    await subscribe(late, SECURITY)
    assert.deepEqual(await shown(late, SECURITY), security)
    await late.emulateMedia({ colorScheme: "dark" })
    await late.setViewportSize({ width: 390, height: 844 })
    const width = await late.evaluate(() => document.documentElement.scrollWidth)
    assert.ok(width <= 390, `the page is ${width} wide`)
    await shot(late, "zenith-narrow-dark")
  })
})

test("another format takes the topics along, and what the server refuses is said", async () => {
  await withServer(EXAMPLE, CONSOLE, async (open, server) => {
    const page = await open()
    const failed = (text) => page.locator("#errors .error", { hasText: text }).waitFor()
    await page.fill("#token", "wrong")
    await page.click("#connect")
    await failed("does not accept the token")
    await withState(page, "disconnected")
    // An anonymous session may subscribe to topics that need no scope.
    await connect(page, "ZenithBson", "")
    await page.fill("#channel", "ServerInfo")
    await page.click("#subscribe button")
    await line(page, "Zenith/ServerInfo").locator("dd", { hasText: "example" }).waitFor()
    await page.fill("#channel", SECURITY)
    await page.click("#subscribe button")
    await failed("Authority")
    assert.equal(await line(page, SECURITY).count(), 0)
    await page.click("#connect")
    await withState(page, "disconnected")
    await connect(page, "ZenithMsgPack", "demo")
    await line(page, "Zenith/ServerInfo").locator("dd", { hasText: "example" }).waitFor()
    await subscribe(page, SECURITY)
    const topic = { Controller: "Market", Topic: "Security!ABC.XYZ" }
    await ingest(server, { ...topic, Data: { Last: 1 } })
    await event(page, "update", SECURITY).waitFor()
    // After an unsubscribe no update arrives; a topic that ends is removed from the list.
    await page.getByRole("button", { name: `Unsubscribe from ${SECURITY}` }).click()
    await ingest(server, { ...topic, Data: { Last: 2 } })
    await subscribe(page, SECURITY)
    await line(page, SECURITY).locator("dd", { hasText: "2" }).waitFor()
    assert.equal(await event(page, "update", SECURITY).count(), 1)
    await ingest(server, { ...topic, Action: "End", Error: "Symbol.NotFound" })
    await failed("Symbol.NotFound")
    assert.equal(await line(page, SECURITY).count(), 0)
    await shot(page, "zenith-errors")
    await ingest(server, { Action: "Kick", UserID: "ada" })
    await failed("ended the session")
    await withState(page, "disconnected")
  })
})

test("there is a choice only where Zenith is served", async () => {
  await withServer(undefined, "/", async (open) => {
    const page = await open()
    assert.equal(await page.locator("#protocol").count(), 0)
    assert.equal(await page.locator("#key").isVisible(), true)
  })
  const app = '[[apps]]\nid = "shop"\nkey = "shop-key"\nsecret = "shop-secret"\n'
  const both = EXAMPLE.replace(/^\[zenith\]$/m, `${app}\n[zenith]`)
  await withServer(both, CONSOLE, async (open) => {
    const page = await open()
    assert.equal(await page.locator("#protocol option").count(), 4)
    await connect(page, "ZenithJson", "demo")
    await subscribe(page, "Zenith/Feeds")
    await page.click("#connect")
    await page.selectOption("#protocol", "Pusher")
    assert.equal(await page.inputValue("#key"), "shop-key")
    await page.click("#connect")
    await withState(page, "connected")
    await page.click("#subscribe button")
    await page.waitForSelector('#channels > li[data-state="subscribed"]:has([title="news"])')
    assert.equal(await line(page, "Zenith/Feeds").count(), 0)
  })
})

test("BSON and MessagePack are those of the vendor's kind of encoders", async () => {
  const fixtures = fs.readFileSync(path.join(SOURCES, "src/codec/value/fixtures.txt"), "utf8")
  const all = fixtures.matchAll(/^  json (.*)\n  bson (.*)\n  msgpack (.*)$/gm)
  const lines = [...all].map((found) => found.slice(1, 4))
  await withServer(EXAMPLE, CONSOLE, async (open) => {
    const page = await open()
    const found = await page.evaluate(async (lines) => {
      const { FORMATS } = await import("/console/formats.js")
      const { merged } = await import("/console/zenith.js")
      const hex = (bytes) => [...bytes].map((it) => it.toString(16).padStart(2, "0")).join("")
      const bytes = (text) => Uint8Array.from(text.match(/../g) ?? [], (it) => parseInt(it, 16))
      const read = lines.map((line) => {
        const [json, bson, pack] = line
        const [b, p] = [FORMATS.ZenithBson, FORMATS.ZenithMsgPack]
        return {
          json: JSON.stringify(JSON.parse(json)),
          bson: JSON.stringify(b.decode(bytes(bson).buffer)),
          pack: JSON.stringify(p.decode(bytes(pack).buffer)),
          bsonAgain: JSON.stringify(b.decode(b.encode(JSON.parse(json)).slice().buffer)),
          packAgain: JSON.stringify(p.decode(p.encode(JSON.parse(json)).slice().buffer)),
        }
      })
      const throws = (act) => {
        try {
          return act() && false
        } catch {
          return true
        }
      }
      const value = { a: [1, "x", null, { b: -1.5 }], "__proto__x": true, n: 2 ** 40 }
      const cut = ["ZenithBson", "ZenithMsgPack"].flatMap((name) => {
        const { encode, decode } = FORMATS[name]
        const whole = encode(value)
        const cuts = [...whole.keys()].map((at) => throws(() => decode(whole.slice(0, at).buffer)))
        return [...cuts, throws(() => decode(new Uint8Array([...whole, 0]).buffer))]
      })
      const O = (O, n = 0) => ({ O, n })
      const lists = [
        merged([O("A", 1)], [O("U", 2)]), merged([O("A", 1)], [O("C"), O("A", 3)]),
        merged([1], [2]), merged({ a: 1, b: null }, { b: 2 }), merged({}, 7),
        merged([], Array.from({ length: 150 }, (_, n) => O("A", n))).length,
      ]
      return { read, cut, lists, ping: hex(FORMATS.ZenithMsgPack.encode({ Confirm: true })) }
    }, lines)
    assert.ok(found.read.length >= 3, `${found.read.length} fixtures`)
    for (const { json, ...others } of found.read) {
      for (const [name, text] of Object.entries(others)) assert.equal(text, json, name)
    }
    assert.ok(found.cut.every(Boolean), "what is cut, or has more behind it, is an error")
    assert.equal(found.ping, "81a7436f6e6669726dc3")
    assert.deepEqual(found.lists, [
      [{ O: "A", n: 1 }, { O: "U", n: 2 }], [{ O: "C", n: 0 }, { O: "A", n: 3 }],
      [2], { a: 1, b: 2 }, 7, 100,
    ])
  })
})
