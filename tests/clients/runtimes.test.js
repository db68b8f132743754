// The WebSocket clients of undici, which is built into Node 22 and later, and of Deno.

const assert = require("node:assert/strict")
const { execFile } = require("node:child_process")
const path = require("node:path")
const { promisify } = require("node:util")
const undici = require("undici")
const { COMPRESSING, SECURE, withServer } = require("./support")

const RUN_MS = 60000

/** The path of the executable in the npm package of Deno; needs no install script. */
function deno() {
  const { platform, arch } = process
  const library = platform === "linux" ? "-glibc" : ""
  const manifest = require.resolve(`@deno/${platform}-${arch}${library}/package.json`)
  return path.join(path.dirname(manifest), "deno")
}

function check(result, extensions) {
  const { count, ...found } = result
  assert.ok(count > 60, `${count} messages`)
  assert.match(found.extensions, extensions)
  delete found.extensions
  const close = { code: 3001, wasClean: true }
  assert.deepEqual(found, { changed: [], ordered: true, close })
}

for (const compression of ["off", "shared", "dedicated"]) {
  withServer(`undici echoes, compression ${compression}`, { config: COMPRESSING }, async (server) => {
    const { echoes } = await import("./web_echo.mjs")
    const result = await echoes(undici.WebSocket, server.url(`/${compression}`))
    check(result, compression === "off" ? /^$/ : /^permessage-deflate/)
  })
}

/** Runs web_echo.mjs in Deno, whose WebSocket offers no extension; returns its result. */
async function inDeno(url) {
  const script = path.join(__dirname, "web_echo.mjs")
  const fixtures = path.join(__dirname, "fixtures")
  const host = new URL(url).host
  const args = ["run", "--no-config", "--no-prompt", `--allow-net=${host}`]
  const env = {
    ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1",
    DENO_DIR: path.join(__dirname, "deno"), DENO_CERT: path.join(fixtures, "ca.pem"),
  }
  const options = { env, timeout: RUN_MS, cwd: __dirname }
  const { stdout } = await promisify(execFile)(deno(), [...args, script, url], options)
  return JSON.parse(stdout)
}

for (const compression of ["off", "shared"]) {
  withServer(`Deno echoes, compression ${compression}`, { config: COMPRESSING }, async (server) => {
    check(await inDeno(server.url(`/${compression}`)), /^$/)
  })
}

withServer("Deno echoes through TLS", { config: SECURE }, async (server) => {
  check(await inDeno(server.secureUrl("/shared")), /^$/)
})
