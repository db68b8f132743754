// The console page with Pusher channels in Chromium: connecting, subscribing, publishing, events.

const assert = require("node:assert/strict")
const { after, before, test } = require("node:test")
const { Server, openBrowser, openPage, shot } = require("./support")

const MARKUP = `<img src=x onerror="document.title='run'"><b>bold</b>`
const TOKEN = "a-token-of-the-tests"

let browser
before(async () => (browser = await openBrowser()))
after(() => browser?.close())

const withState = (page, state) => page.waitForSelector(`#state[data-state="${state}"]`)
const subscribed = (page, name) =>
  page.waitForSelector(`#channels > li[data-state="subscribed"]:has(.name[title="${name}"])`)
const event = (page, name) =>
  page.locator("#events > li").filter({ has: page.locator(".name", { hasText: name }) })

async function subscribe(page, name) {
  await page.fill("#channel", name)
  await page.click("#subscribe button")
  await subscribed(page, name)
}

async function publish(page, channel, name, data) {
  await page.fill("#publish-channel", channel)
  await page.fill("#publish-event", name)
  await page.fill("#publish-data", data)
  await page.click("#publish button")
}

/**
 * Starts a server with `config`, opens its page at `where`, and runs `body` with the page, a
 * function that opens another page, and the server. An error in a page fails the test.
 */
async function withPage(config, where, body) {
  const server = await Server.start(config)
  const pages = []
  const open = async (path) => {
    pages.push(await openPage(browser, server.url + path))
    return pages.at(-1)
  }
  try {
    await body(await open(where), open, server)
    for (const page of pages) assert.deepEqual(page.wrong, [])
  } finally {
    for (const page of pages) await page.close()
    await server.stop()
  }
}

test("the demo's page connects, subscribes, publishes and shows what comes", async () => {
  await withPage(undefined, "/", async (page, open) => {
    await withState(page, "connected")
    await subscribed(page, "news")
    await publish(page, "news", "greeting", '{"hello": "world", "text": "\u00e9\u{1f600}+&%"}')
    await event(page, "greeting").waitFor()
    const told = await event(page, "greeting").locator("pre").textContent()
    assert.deepEqual(JSON.parse(told), { hello: "world", text: "\u00e9\u{1f600}+&%" })
    await subscribe(page, "private-orders")
    await subscribe(page, "presence-lobby")
    await page.waitForSelector(".members .me")

    // A second page adds a member and a subscription.
    const other = await open("/console")
    await withState(other, "connected")
    await subscribe(other, "presence-lobby")
    await event(page, "pusher_internal:member_added").waitFor()
    assert.equal(await page.locator(".members li").count(), 2)
    const line = (name) => page.locator("#channels > li").filter({ hasText: name })
    await line("news").filter({ hasText: "2 subscriptions" }).waitFor()
    await line("presence-lobby").filter({ hasText: "2 users" }).waitFor()
    await line("private-orders").filter({ hasText: "1 subscription" }).waitFor()

    // Markup in an event is shown as text, not rendered.
    await publish(page, "private-orders", MARKUP, MARKUP)
    await event(page, "<b>bold</b>").waitFor()
    assert.equal(await page.locator("#events img, #events b, #channels img").count(), 0)
    assert.equal(await page.title(), "polycast")
    await shot(page, "wide")
    await page.emulateMedia({ colorScheme: "dark" })
    await shot(page, "wide-dark")
    await page.setViewportSize({ width: 820, height: 900 })
    await shot(page, "middle-dark")
    await page.setViewportSize({ width: 390, height: 844 })
    await shot(page, "narrow-dark")
    await page.emulateMedia({ colorScheme: "light" })
    const width = await page.evaluate(() => document.documentElement.scrollWidth)
    assert.ok(width <= 390, `the page is ${width} wide`)
    await shot(page, "narrow")

    await other.close()
    await event(page, "pusher_internal:member_removed").waitFor()
    await page.getByRole("button", { name: "Unsubscribe from news" }).click()
    await publish(page, "news", "unheard", "{}")
    await page.waitForFunction(() => document.querySelector("#published").textContent)
    await publish(page, "private-orders", "heard", "{}")
    await event(page, "heard").last().waitFor()
    assert.equal(await event(page, "unheard").count(), 0)
  })
})

test("the page is used by keyboard alone, and says what is wrong", async () => {
  await withPage(undefined, "/", async (page) => {
    await withState(page, "connected")
    await page.focus("#channel")
    await page.keyboard.press("Control+A")
    await page.keyboard.type("not a channel")
    await page.keyboard.press("Enter")
    await page.locator("#errors .error", { hasText: "not a channel" }).waitFor()
    await page.focus("#publish-event")
    await page.keyboard.press("Control+A")
    await page.keyboard.type("pusher:no")
    await page.keyboard.press("Enter")
    await page.locator("#errors .error", { hasText: "Publish" }).waitFor()
    await shot(page, "errors")
    page.wrong = page.wrong.filter((text) => !text.includes("400"))
    for (let left = 2; left > 0; left--) {
      await page.locator("#errors button").first().focus()
      await page.keyboard.press("Enter")
    }
    assert.equal(await page.locator("#errors .error").count(), 0)
    await page.focus("#connect")
    await page.keyboard.press("Enter")
    await withState(page, "disconnected")
    await page.keyboard.press("Enter")
    await withState(page, "connected")
    await subscribed(page, "news")
  })
})

test("the list of events is bounded, and can be stopped and cleared", async () => {
  await withPage(undefined, "/", async (page) => {
    await subscribed(page, "news")
    await subscribe(page, "private-many")
    await page.evaluate(async () => {
      const { signedQuery } = await import("/console/sign.js")
      const app = { key: "app-key", secret: "app-secret" }
      for (let n = 0; n < 210; n++) {
        const body = JSON.stringify({ name: "tick", channel: "news", data: String(n) })
        const query = await signedQuery(app, "POST", "/apps/1/events", {}, body)
        const answer = await fetch(`/apps/1/events?${query}`, { method: "POST", body })
        if (!answer.ok) throw new Error(await answer.text())
      }
    })
    await page.locator("#events-count", { hasText: "200 of 210" }).waitFor()
    assert.equal(await page.locator("#events > li").count(), 200)
    assert.equal(await page.locator("#events > li pre").first().textContent(), "209")
    await page.click("#pause")
    await publish(page, "news", "unseen", "1")
    await page.locator("#events-count", { hasText: "1 not shown" }).waitFor()
    await page.click("#clear")
    assert.equal(await page.locator("#events > li").count(), 0)
  })
})

test("MD5 and signatures are those of the vendor", async () => {
  const { createHash, createHmac } = require("node:crypto")
  await withPage(undefined, "/", async (page) => {
    const texts = ["", "a", "\u00e9\u{1f600}", "x".repeat(10000)]
    for (let length = 50; length < 70; length++) texts.push("y".repeat(length))
    const found = await page.evaluate(async (texts) => {
      const { channelAuth, md5 } = await import("/console/sign.js")
      const auth = await channelAuth({ key: "k", secret: "s" }, "1.2", "presence-a", "{}")
      return { sums: texts.map(md5), auth }
    }, texts)
    const wanted = texts.map((text) => createHash("md5").update(text).digest("hex"))
    assert.deepEqual(found.sums, wanted)
    const mac = createHmac("sha256", "s").update("1.2:presence-a:{}").digest("hex")
    assert.equal(found.auth, `k:${mac}`)
  })
})

test("elsewhere the page needs its token, and signs only with what its user types in", async () => {
  const config = `
    [console]
    token = "${TOKEN}"
    [[apps]]
    id = "shop"
    key = "shop-key"
    secret = "shop-secret"
    name = "Shop"
    [[apps]]
    id = "2"
    key = "other-key"
    secret = "other-secret"
  `
  await withPage(config, `/?token=${TOKEN}`, async (page, open, server) => {
    const stranger = await fetch(`${server.url}/`)
    assert.equal(stranger.status, 401)
    assert.equal((await fetch(`${server.url}/console/settings?token=wrong`)).status, 401)
    await page.waitForFunction(() => document.querySelector("#key").value === "shop-key")
    assert.ok(!(await page.content()).includes("shop-secret"))
    await page.click("#connect")
    await withState(page, "connected")
    await subscribe(page, "news")
    await page.fill("#channel", "private-orders")
    await page.click("#subscribe button")
    await page.locator("#errors .error", { hasText: "need the app's secret" }).waitFor()
    await page.click("#connect")
    await withState(page, "disconnected")
    await page.fill("#secret", "shop-secret")
    await page.click("#connect")
    await withState(page, "connected")
    await subscribe(page, "private-orders")
    await publish(page, "private-orders", "paid", "{}")
    await event(page, "paid").waitFor()
    await shot(page, "token")
  })
})
