// The console page with linked channels and histories: the views, offsets, and a resume.

const assert = require("node:assert/strict")
const { after, before, test } = require("node:test")
const { Server, openBrowser, openPage, shot } = require("./support")

const TOKEN = "a-token-of-the-tests"
const CONFIG = `
[console]
token = "${TOKEN}"
[[routes]]
when = [{ path = "/" }, { path = "/console*" }]
endpoint = "console"
[[routes]]
when = [{ path = "/raw/*" }]
endpoint = "channel"
[[routes]]
endpoint = "apps"
[[apps]]
id = "shop"
key = "shop-key"
secret = "shop-secret"
[[apps.history]]
channels = ["quotes-*"]
events = 100
[[apps.history]]
channels = ["few-*"]
events = 2
[[apps]]
id = "bot"
key = "bot-key"
secret = "bot-secret"
[[links]]
source = { app = "shop", channel = "quotes-{symbol}" }
views = [
    { app = "bot", channel = "q-{symbol}", publish = true },
    { path = "/raw/{symbol}" },
]
`

let browser
let server
before(async () => {
  browser = await openBrowser()
  server = await Server.start(CONFIG)
})
after(async () => {
  await server?.stop()
  await browser?.close()
})

const withState = (page, state) => page.waitForSelector(`#state[data-state="${state}"]`)
const line = (page, name) => page.locator(`#channels > li:has(.name[title="${name}"])`)
const detail = (page, name, text) =>
  line(page, name).locator(".details dd", { hasText: text }).waitFor()

async function open(app) {
  const page = await openPage(browser, `${server.url}/?token=${TOKEN}`)
  await page.waitForFunction(() => document.querySelector("#key").value !== "")
  await page.selectOption("#apps", app)
  await page.fill("#secret", `${app}-secret`)
  await page.click("#connect")
  await withState(page, "connected")
  return page
}

async function subscribe(page, name) {
  await page.fill("#channel", name)
  await page.click("#subscribe button")
  await page.waitForSelector(`#channels > li[data-state="subscribed"]:has(.name[title="${name}"])`)
}

async function publish(page, channel, data) {
  await page.fill("#publish-channel", channel)
  await page.fill("#publish-event", "tick")
  await page.fill("#publish-data", data)
  await page.click("#publish button")
  await page.waitForFunction(() => document.querySelector("#published").textContent)
}

const texts = (page) => page.locator("#events > li pre").allTextContents()

test("the page shows a linked channel through each of its views, and resumes its offsets", async () => {
  const page = await open("shop")
  const other = await open("bot")
  await subscribe(page, "quotes-ACME")
  await subscribe(other, "q-ACME")
  await page.evaluate(async () => {
    window.raw = new WebSocket(`ws://${location.host}/raw/ACME`)
    await new Promise((resolve) => (raw.onopen = resolve))
  })
  await page.getByRole("button", { name: "Details of quotes-ACME" }).click()
  await detail(page, "quotes-ACME", "quotes-ACME (pusher, application shop): 1 subscriber")
  await detail(page, "quotes-ACME", "q-ACME (pusher, application bot, may publish): 1 subscriber")
  await detail(page, "quotes-ACME", "/raw/ACME (path): 1 subscriber")
  await detail(page, "quotes-ACME", "0 asked, 0 recovered, 0 not recovered")

  // Through the view, and on the source.
  await publish(other, "q-ACME", "one")
  await publish(page, "quotes-ACME", "two")
  await page.waitForFunction(() => document.querySelectorAll("#events > li").length === 2)
  assert.deepEqual(await texts(page), ["two", "one"])
  await line(page, "quotes-ACME").filter({ hasText: "#2" }).waitFor()
  await detail(page, "quotes-ACME", "2 events, ")
  await other.waitForFunction(() => document.querySelectorAll("#events > li").length === 2)
  await other.getByRole("button", { name: "Details of q-ACME" }).click()
  await detail(other, "q-ACME", "quotes-ACME (pusher, application shop): 1 subscriber")
  await detail(other, "q-ACME", "q-ACME (pusher, application bot, may publish): 1 subscriber")
  // The application of a view does not learn of the other views.
  assert.equal(await line(other, "q-ACME").locator(".details dd", { hasText: "/raw" }).count(), 0)

  // What is published while the connection is away arrives once, in its order, after the resume.
  await page.click("#drop")
  await withState(page, "waiting")
  await publish(other, "q-ACME", "three")
  await publish(other, "q-ACME", "four")
  await withState(page, "connected")
  await line(page, "quotes-ACME").locator(".resumed", { hasText: "recovered" }).waitFor()
  await page.waitForFunction(() => document.querySelectorAll("#events > li").length === 4)
  await publish(page, "quotes-ACME", "five")
  await page.waitForFunction(() => document.querySelectorAll("#events > li").length === 5)
  assert.deepEqual(await texts(page), ["five", "four", "three", "two", "one"])
  await line(page, "quotes-ACME").filter({ hasText: "#5" }).waitFor()
  await detail(page, "quotes-ACME", "5 events, ")
  await detail(page, "quotes-ACME", "1 asked, 1 recovered, 0 not recovered")
  await shot(page, "linked")

  // A channel without a link and without a history.
  await subscribe(page, "news")
  await page.getByRole("button", { name: "Details of news" }).click()
  await line(page, "news").locator(".details dd", { hasText: "none" }).nth(1).waitFor()
  await page.getByRole("button", { name: "Details of quotes-ACME" }).click()
  assert.equal(await line(page, "quotes-ACME").locator(".details").count(), 0)
  assert.deepEqual([page.wrong, other.wrong], [[], []])
  await page.close()
  await other.close()
})

test("the page shows that events after its offset are lost", async () => {
  const page = await open("shop")
  await subscribe(page, "few-A")
  await publish(page, "few-A", "one")
  await line(page, "few-A").filter({ hasText: "#1" }).waitFor()
  await page.click("#drop")
  await withState(page, "waiting")
  for (const data of ["two", "three", "four"]) await publish(page, "few-A", data)
  await withState(page, "connected")
  await line(page, "few-A").locator(".resumed.gap", { hasText: "gap" }).waitFor()
  await publish(page, "few-A", "five")
  await line(page, "few-A").filter({ hasText: "#5" }).waitFor()
  assert.deepEqual(await texts(page), ["five", "one"])
  await page.getByRole("button", { name: "Details of few-A" }).click()
  await detail(page, "few-A", "2 events, ")
  await detail(page, "few-A", "1 asked, 0 recovered, 1 not recovered")
  assert.deepEqual(page.wrong, [])
  await page.close()
})
