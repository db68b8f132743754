// A headless Firefox that is controlled by WebDriver BiDi, on a port that Firefox chooses.

const { spawn } = require("node:child_process")
const { once } = require("node:events")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const WebSocket = require("ws")
const { within } = require("../support")

const BROWSER = process.env.FIREFOX || "firefox-esr"
const START_MS = 90000
const COMMAND_MS = 40000
const STOP_MS = 15000
const LISTENS = /^WebDriver BiDi listening on (ws:\S+)$/m

const PREFERENCES = {
  // Only local addresses are reachable: requests to all others go to a proxy on port 9, where
  // nothing listens. Firefox does not use a proxy for local addresses.
  "network.proxy.type": 1,
  "network.proxy.http": "127.0.0.1",
  "network.proxy.http_port": 9,
  "network.proxy.ssl": "127.0.0.1",
  "network.proxy.ssl_port": 9,
  "app.normandy.enabled": false,
  "app.update.enabled": false,
  "browser.safebrowsing.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "http://127.0.0.1:9/",
  "toolkit.telemetry.enabled": false,
  // Reconnects after a failed WebSocket are not delayed, as in other browsers.
  "network.websocket.delay-failed-reconnects": false,
}

class Browser {
  static async start() {
    const browser = new Browser()
    browser.folder = fs.mkdtempSync(path.join(os.tmpdir(), "polycast-browser-"))
    const lines = Object.entries(PREFERENCES)
      .map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`)
    fs.writeFileSync(path.join(browser.folder, "user.js"), lines.join(""))
    const args = ["--headless", "--no-remote", "--profile", browser.folder]
    args.push("--remote-debugging-port", "0", "about:blank")
    browser.child = spawn(BROWSER, args, {
      stdio: ["ignore", "ignore", "pipe"],
      // With this home folder Firefox keeps its caches in the folder, too, which is deleted.
      env: { ...process.env, HOME: browser.folder, MOZ_CRASHREPORTER_DISABLE: "1" },
    })
    browser.exited = once(browser.child, "exit")
    browser.exited.catch(() => {})
    browser.number = 0
    browser.waiting = new Map()
    browser.errors = ""
    try {
      await within("Firefox's first line", browser.connect(), START_MS)
      const capabilities = { alwaysMatch: { acceptInsecureCerts: true } }
      await browser.command("session.new", { capabilities }, START_MS)
    } catch (error) {
      browser.kill()
      throw new Error(`${error.message}\n${browser.errors}`)
    }
    return browser
  }

  async connect() {
    const url = await new Promise((resolve, reject) => {
      this.child.on("error", reject)
      this.child.on("exit", (code) => reject(new Error(`Firefox ended with ${code}`)))
      this.child.stderr.on("data", (chunk) => {
        this.errors = (this.errors + chunk).slice(-20000)
        const found = LISTENS.exec(this.errors)
        if (found) resolve(found[1])
      })
    })
    this.socket = new WebSocket(`${url}/session`)
    this.socket.on("message", (data) => this.take(JSON.parse(data)))
    await once(this.socket, "open")
    this.socket.on("error", () => {})
  }

  take(message) {
    const answer = this.waiting.get(message.id)
    this.waiting.delete(message.id)
    // A message without a pending command is an event, and is ignored.
    answer?.(message)
  }

  async command(method, params = {}, ms = COMMAND_MS) {
    const id = ++this.number
    const gone = this.exited.then(() => ({ type: "error", message: "the browser has ended" }))
    const answer = new Promise((resolve) => this.waiting.set(id, resolve))
    this.socket.send(JSON.stringify({ id, method, params }))
    const reply = await within(method, Promise.race([answer, gone]), ms)
    if (reply.type !== "success") throw new Error(`${method}: ${reply.error} ${reply.message}`)
    return reply.result
  }

  /** Opens a new page and loads `url`. */
  async open(url) {
    const { context } = await this.command("browsingContext.create", { type: "tab" })
    await this.command("browsingContext.navigate", { context, url, wait: "complete" })
    return new Page(this, context)
  }

  async stop() {
    try {
      await this.command("browser.close").catch(() => {})
      await within("the browser's end", this.exited, STOP_MS)
    } finally {
      this.kill()
    }
  }

  kill() {
    this.child.kill("SIGKILL")
    this.socket?.terminate()
    fs.rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }
}

class Page {
  constructor(browser, context) {
    this.browser = browser
    this.context = context
  }

  /** Runs the function `body` in the page and returns its result; `args` are passed as JSON. */
  async run(body, ...args) {
    const call = `(${body})(...${JSON.stringify(args)})`
    const { result, exceptionDetails: thrown } = await this.browser.command("script.evaluate", {
      expression: `(async () => JSON.stringify(await ${call}))()`,
      target: { context: this.context },
      awaitPromise: true,
    })
    if (thrown) throw new Error(`in the page: ${thrown.text}`)
    return result.type === "string" ? JSON.parse(result.value) : undefined
  }

  async close() {
    await this.browser.command("browsingContext.close", { context: this.context })
  }
}

module.exports = { Browser }
