// Upgrades of the binary under unmodified versions of pusher-js with the shim
// examples/polycast-resume.js: clients that the old process closes lose no event.

const assert = require("node:assert/strict")
const fs = require("node:fs")
const os = require("node:os")
const path = require("node:path")
const { app, next, until, withServer } = require("./support")

const UPGRADES = 3
const CLIENTS = 4
const SHIM = [path.join(__dirname, "examples"), path.join(__dirname, "../../examples")]
  .map((folder) => path.join(folder, "polycast-resume.js")).find((file) => fs.existsSync(file))
const VERSIONS = { 7: "pusher-js-7", 8: "pusher-js" }

for (const name of Object.values(VERSIONS)) require(SHIM)(require(name))

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** The number of the process that serves, if it has written its file. */
function pidIn(file) {
  try {
    return Number(fs.readFileSync(file, "utf8")) || null
  } catch {
    return null
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return !/^\d+ \(.*\) Z/.test(fs.readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

/** Replaces the process that serves, and waits until the old one has ended. */
async function upgrade(file) {
  const old = pidIn(file)
  process.kill(old, "SIGUSR2")
  await until("the new process", () => ![null, old].includes(pidIn(file)))
  await until("the end of the old process", () => !isAlive(old))
}

/** Publishes numbers, one after the other, until `stop` is called, which returns the last one. */
function publishing(publisher, channel) {
  let published = 0
  let isRunning = true
  const done = (async () => {
    while (isRunning) {
      await publisher.trigger(channel, "number", published + 1)
      published += 1
      await pause(1)
    }
    return published
  })()
  done.catch(() => {}) // `stop` reports it
  return { stop: () => { isRunning = false; return done } }
}

for (const [version, library] of Object.entries(VERSIONS)) {
  const file = path.join(os.tmpdir(), `polycast-clients-${process.pid}-${version}.pid`)
  const config = `pid_file = "${file}"\ndrain_s = 10\n` + app(`
[[apps.history]]
channels = ["chat-*"]
events = 5000
bytes = "4MiB"
`)
  const title = `pusher-js ${version} loses nothing in ${UPGRADES} upgrades of the binary`
  withServer(title, { config, threads: 2, alone: true }, async (server) => {
    await until("the number of the process", () => pidIn(file) === server.child.pid)
    const Pusher = require(library)
    const clients = Array.from({ length: CLIENTS }, () => new Pusher("app-key", {
      wsHost: server.host, wsPort: server.port, forceTLS: false, enabledTransports: ["ws"],
      // As in resume.test.js: connections that live for less are not a reason to give up.
      enableStats: false, cluster: "", activityTimeout: 10,
    }))
    const received = clients.map(() => [])
    const counts = { recovered: 0, gap: 0 }
    const load = publishing(server.publisher(), "chat-1")
    try {
      await Promise.all(clients.map((client, n) => {
        const channel = client.subscribe("chat-1")
        channel.bind("number", (data) => received[n].push(data))
        channel.bind("polycast:recovered", () => (counts.recovered += 1))
        channel.bind("polycast:gap", () => (counts.gap += 1))
        return next(channel, "pusher:subscription_succeeded")
      }))
      for (let n = 0; n < UPGRADES; n++) {
        await pause(400)
        await upgrade(file)
      }
      await pause(400)
      const count = await load.stop()
      await until("all events", () => received.every((it) => it.at(-1) === count))
      for (const numbers of received) {
        assert.deepEqual(numbers, Array.from(numbers, (_, n) => numbers[0] + n))
        assert.ok(numbers.length > 10 * UPGRADES, `${numbers.length} events`)
      }
      assert.deepEqual(counts, { recovered: CLIENTS * UPGRADES, gap: 0 })
    } finally {
      await load.stop().catch(() => {})
      clients.forEach((client) => client.disconnect())
      const last = pidIn(file)
      if (last && last !== server.child.pid) {
        process.kill(last, "SIGTERM")
        await until("the end of the last process", () => !isAlive(last))
      }
    }
  })
}
