// Support for the console tests: starts the built server, and a headless Chromium with a new
// profile.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const { chromium } = require("playwright-core")

const TARGET = path.join(__dirname, "../../target")
const BINARY = process.env.POLYCAST || path.join(TARGET, "release/polycast")
const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium"
const SHOTS = process.env.SCREENSHOTS || path.join(TARGET, "console/pictures")
const EVENT_MS = 15000
const LISTENS = /^polycast listens on (http:\/\/\S+) and ws:\/\/\S+$/m
const FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
]

/** A running server. `config` is the text of a configuration; without it the server is the demo. */
class Server {
  static async start(config) {
    const server = new Server()
    const args = ["--listen", "127.0.0.1:0", "--threads", "2", "--no-pin"]
    if (config !== undefined) {
      server.folder = fs.mkdtempSync(path.join(os.tmpdir(), "polycast-console-"))
      const file = path.join(server.folder, "polycast.toml")
      fs.writeFileSync(file, config)
      args.push("--config", file)
    }
    server.child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "inherit"] })
    server.exited = once(server.child, "exit")
    let output = ""
    server.url = await new Promise((resolve, reject) => {
      server.child.stdout.on("data", (chunk) => {
        output += chunk
        const found = LISTENS.exec(output)
        if (found) resolve(found[1])
      })
      server.child.on("error", reject)
      server.child.on("exit", (code) => reject(new Error(`the server ended with ${code}`)))
    })
    return server
  }

  /** Sends SIGTERM; the server must drain and exit with 0. */
  async stop() {
    this.child.kill("SIGTERM")
    const [code] = await this.exited
    if (this.folder) fs.rmSync(this.folder, { recursive: true })
    assert.equal(code, 0)
  }
}

/** Starts a browser with a new profile, which is deleted after the browser has closed. */
async function openBrowser(options = {}) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "polycast-profile-"))
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    args: FLAGS,
    chromiumSandbox: false,
    viewport: { width: 1280, height: 800 },
    ...options,
  })
  browser.setDefaultTimeout(EVENT_MS)
  // The browser's processes may still write into the profile, so the deletion is retried. It is
  // asynchronous: while this process blocks, it could not end the browser's processes.
  const gone = { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }
  browser.on("close", () => fs.promises.rm(profile, gone).catch(() => {}))
  return browser
}

/**
 * Opens a page and loads `url`. Uncaught exceptions, console errors and requests to other origins
 * are collected in `page.wrong`.
 */
async function openPage(browser, url) {
  const page = await browser.newPage()
  page.wrong = []
  page.on("pageerror", (error) => page.wrong.push(String(error)))
  page.on("console", (message) => message.type() === "error" && page.wrong.push(message.text()))
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) page.wrong.push(request.url())
  })
  await page.goto(url)
  return page
}

/** Saves a screenshot of the page, for manual review. */
async function shot(page, name) {
  fs.mkdirSync(SHOTS, { recursive: true })
  await page.screenshot({ path: path.join(SHOTS, `${name}.png`), fullPage: true })
}

module.exports = { Server, openBrowser, openPage, shot }
