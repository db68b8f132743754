// A headless Chromium that is controlled by the DevTools protocol over a pipe. It needs no port,
// and it exits when the pipe is closed.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const fs = require("node:fs")
const http = require("node:http")
const os = require("node:os")
const path = require("node:path")
const { within } = require("../support")

const BROWSER = process.env.CHROMIUM || "chromium"
const START_MS = 60000
const COMMAND_MS = 30000
const STOP_MS = 10000

const FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--no-default-browser-check",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-default-apps",
  "--disable-domain-reliability",
  "--disable-sync",
  "--metrics-recording-only",
  "--password-store=basic",
  // No host name or address except 127.0.0.1 can be resolved.
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  // Accepts the key of tests/fixtures/localhost.pem, whose issuer the browser does not trust.
  "--ignore-certificate-errors-spki-list=lzRaUTiah39G9Q/oN1E9EeJMsrFsDRKBhJNCwcxj3gs=",
  "--remote-debugging-pipe",
]

class Browser {
  static async start() {
    const browser = new Browser()
    browser.folder = fs.mkdtempSync(path.join(os.tmpdir(), "polycast-browser-"))
    const args = [...FLAGS, `--user-data-dir=${browser.folder}`, "about:blank"]
    const stdio = ["ignore", "ignore", "pipe", "pipe", "pipe"]
    browser.child = spawn(BROWSER, args, { stdio })
    browser.exited = once(browser.child, "exit")
    browser.number = 0
    browser.waiting = new Map()
    browser.errors = ""
    browser.child.stderr.on("data", (chunk) => {
      browser.errors = (browser.errors + chunk).slice(-20000)
    })
    browser.child.stdio[3].on("error", () => {})
    browser.read(browser.child.stdio[4])
    try {
      await browser.command("Browser.getVersion", {}, undefined, START_MS)
    } catch (error) {
      browser.child.kill("SIGKILL")
      throw new Error(`${error.message}\n${browser.errors}`)
    }
    return browser
  }

  /** Reads messages from the browser: JSON texts, each terminated by a NUL byte. */
  read(pipe) {
    let chunks = []
    pipe.on("data", (chunk) => {
      let end
      while ((end = chunk.indexOf(0)) >= 0) {
        const whole = Buffer.concat([...chunks, chunk.subarray(0, end)])
        chunks = []
        chunk = chunk.subarray(end + 1)
        this.take(JSON.parse(whole))
      }
      chunks.push(chunk)
    })
  }

  take(message) {
    const answer = this.waiting.get(message.id)
    this.waiting.delete(message.id)
    // A message without a pending command is an event, and is ignored.
    answer?.(message)
  }

  async command(method, params = {}, sessionId = undefined, ms = COMMAND_MS) {
    const id = ++this.number
    const gone = this.exited.then(() => ({ error: { message: "the browser has ended" } }))
    const answer = new Promise((resolve) => this.waiting.set(id, resolve))
    this.child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0")
    const { result, error } = await within(method, Promise.race([answer, gone]), ms)
    if (error) throw new Error(`${method}: ${error.message}`)
    return result
  }

  /** Opens a new page and loads `url`. */
  async open(url) {
    const { targetId } = await this.command("Target.createTarget", { url: "about:blank" })
    const options = { targetId, flatten: true }
    const { sessionId } = await this.command("Target.attachToTarget", options)
    const page = new Page(this, targetId, sessionId)
    await page.command("Page.navigate", { url })
    const end = Date.now() + COMMAND_MS
    while (!(await page.run((url) => document.readyState === "complete" && location.href === url, url))) {
      assert.ok(Date.now() < end, `${url}: not loaded within ${COMMAND_MS} ms`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    return page
  }

  async stop() {
    try {
      await this.command("Browser.close").catch(() => {})
      await within("the browser's end", this.exited, STOP_MS)
    } finally {
      this.child.kill("SIGKILL")
      fs.rmSync(this.folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    }
  }
}

class Page {
  constructor(browser, target, session) {
    this.browser = browser
    this.target = target
    this.session = session
  }

  command(method, params, ms) {
    return this.browser.command(method, params, this.session, ms)
  }

  /** Runs the function `body` in the page and returns its result; `args` are passed as JSON. */
  async run(body, ...args) {
    const expression = `(${body})(...${JSON.stringify(args)})`
    const params = { expression, awaitPromise: true, returnByValue: true }
    const { result, exceptionDetails: thrown } = await this.command("Runtime.evaluate", params)
    if (thrown) throw new Error(`in the page: ${thrown.exception?.description ?? thrown.text}`)
    return result.value
  }

  async close() {
    await this.browser.command("Target.closeTarget", { targetId: this.target })
  }
}

/**
 * Starts a web server on a free port. `files` has the contents by path; if a content is a function,
 * it is called with the form of the request and returns the response body.
 */
async function serve(files) {
  const server = http.createServer(async (request, response) => {
    let found = files[request.url]
    if (typeof found === "function") {
      let body = ""
      for await (const chunk of request) body += chunk
      found = found(new URLSearchParams(body))
    }
    const type = request.url.endsWith(".js") ? "text/javascript" : "text/html; charset=utf-8"
    response.writeHead(found === undefined ? 404 : 200, { "content-type": type })
    response.end(found)
  })
  server.listen(0, "127.0.0.1")
  await within("the web server", once(server, "listening"))
  const origin = `http://127.0.0.1:${server.address().port}`
  const stop = () => {
    server.close()
    server.closeAllConnections()
  }
  return { origin, stop }
}

module.exports = { Browser, serve }
