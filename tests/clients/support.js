// Support for the client tests: starts the built server, makes clients and publishers, and waits
// for events with a timeout.

const assert = require("node:assert/strict")
const { spawn } = require("node:child_process")
const { once } = require("node:events")
const fs = require("node:fs")
const http = require("node:http")
const https = require("node:https")
const net = require("node:net")
const os = require("node:os")
const path = require("node:path")
const { test } = require("node:test")
const Publisher = require("pusher")
const Subscriber = require("pusher-js")

const BINARY = process.env.POLYCAST || path.join(__dirname, "../../target/release/polycast")
// The driver that the server runs on: io_uring or epoll.
const DRIVER = process.env.POLYCAST_TEST_IO || "io_uring"
// How many nodes of a cluster serve each test; 1 is a server without a cluster.
const NODES = Number(process.env.POLYCAST_TEST_NODES || 1)
const NATS = process.env.NATS_SERVER || path.join(__dirname, "../../target/nats/bin/nats-server")
const START_MS = 15000
const STOP_MS = 15000
const EVENT_MS = 10000
const TEST_MS = 60000
const LISTENS = /^polycast listens on https?:\/\/(\S+):(\d+) and wss?:\/\/\S+$/m
const FIXTURES = path.join(__dirname, "fixtures")

/** The demo application, which a server without a configuration serves. */
const DEMO = { appId: "1", key: "app-key", secret: "app-secret" }

/** The configuration of the demo application, with the keys in `more` added to its table. */
function app(more = "") {
  return `
[[apps]]
id = "${DEMO.appId}"
key = "${DEMO.key}"
secret = "${DEMO.secret}"
${more}
`
}

/**
 * A configuration with an echo endpoint for each compression: /off, /shared (also /echo) and
 * /dedicated. All other paths lead to the demo application, with shared compression.
 */
const COMPRESSING = `
[[routes]]
when = [{ path = "/off" }]
endpoint = "echo"
[[routes]]
when = [{ path = "/shared" }, { path = "/echo" }]
endpoint = "echo"
compression = "shared"
[[routes]]
when = [{ path = "/dedicated" }]
endpoint = "echo"
compression = "dedicated"
[[routes]]
endpoint = "apps"
compression = "shared"
${app()}`

/** Awaits `promise`; throws an error that names `what` if it takes longer than `ms`. */
async function within(what, promise, ms = EVENT_MS) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** COMPRESSING with a TLS listener, whose certificate is for localhost and 127.0.0.1. */
const SECURE = `
[[listeners]]
address = "127.0.0.1:0"
tls.certificates = [{ cert = "${FIXTURES}/localhost.pem", key = "${FIXTURES}/localhost.key" }]
${COMPRESSING}`

class Server {
  /**
   * Starts a server on `port`, by default on a free one. `config` is the text of a configuration;
   * without it the server is the demo. With POLYCAST_TEST_NODES it is several nodes of a cluster,
   * unless the test is about a server `alone`.
   */
  static async start({ alone = false, ...options } = {}) {
    return NODES > 1 && !alone ? Cluster.start(options) : Server.startAlone(options)
  }

  static async startAlone({ config, threads = 1, port = 0 } = {}) {
    const server = new Server()
    const args = ["--threads", String(threads), "--no-pin", "--io", DRIVER]
    // The option --listen would replace the listeners of the configuration.
    if (!config?.includes("[[listeners]]")) args.push("--listen", `127.0.0.1:${port}`)
    if (config !== undefined) {
      server.folder = fs.mkdtempSync(path.join(os.tmpdir(), "polycast-clients-"))
      const file = path.join(server.folder, "polycast.toml")
      fs.writeFileSync(file, config)
      args.push("--config", file)
    }
    server.errors = ""
    server.child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"] })
    server.exited = once(server.child, "exit")
    server.child.stderr.on("data", (chunk) => (server.errors += chunk))
    try {
      await within("the server's first line", server.listening(), START_MS)
    } catch (error) {
      server.child.kill("SIGKILL")
      throw new Error(`${error.message}\n${server.errors}`)
    }
    return server
  }

  listening() {
    this.output = ""
    return new Promise((resolve, reject) => {
      this.child.stdout.on("data", (chunk) => {
        this.output += chunk
        const found = LISTENS.exec(this.output)
        if (found) {
          this.host = found[1]
          this.port = Number(found[2])
          resolve()
        }
      })
      this.child.on("error", reject)
      this.child.on("exit", (code) => reject(new Error(`the server ended with ${code}`)))
    })
  }

  /** Waits until a node has joined its cluster. */
  async joined() {
    const isSecure = /^polycast listens on https/m.test(this.output)
    const url = `${isSecure ? "https" : "http"}://${this.host}:${this.port}/ready`
    for (const end = Date.now() + START_MS; (await status(url)) !== 200;) {
      assert.ok(Date.now() < end, `the node does not join\n${this.errors}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  secureUrl(where) {
    return `wss://${this.host}:${this.port}${where}`
  }

  url(where) {
    return `ws://${this.host}:${this.port}${where}`
  }

  /** Sends SIGTERM; the server must drain and exit with 0. */
  async stop() {
    this.child.kill("SIGTERM")
    try {
      const [code, signal] = await within("the server's end", this.exited, STOP_MS)
      assert.equal(code, 0, `exit code ${code}, signal ${signal}\n${this.errors}`)
      assert.doesNotMatch(this.errors, /panicked/)
    } finally {
      this.child.kill("SIGKILL")
      if (this.folder) fs.rmSync(this.folder, { recursive: true })
    }
  }

  /** Makes a client of the vendor's library, which begins to connect. */
  client(options = {}, key = DEMO.key) {
    return new Subscriber(key, {
      wsHost: this.host,
      wsPort: this.port,
      forceTLS: false,
      enabledTransports: ["ws"],
      enableStats: false,
      cluster: "",
      ...options,
    })
  }

  /** Makes a client of the vendor's library and waits until it is connected. */
  async connect(options, key) {
    const client = this.client(options, key)
    await state(client, "connected")
    return client
  }

  /** Makes a publisher of the vendor's server library. */
  publisher(options = {}) {
    return new Publisher({
      ...DEMO,
      host: this.host,
      port: String(this.port),
      useTLS: false,
      timeout: EVENT_MS,
      ...options,
    })
  }
}

/** The status of the answer to a GET, whatever the certificate. */
function status(url) {
  return new Promise((resolve, reject) => {
    const { get } = url.startsWith("https") ? https : http
    get(url, { rejectUnauthorized: false, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode)
    }).on("error", reject)
  })
}

/** What runs a NATS server until its standard input ends, which is when the process of the tests does. */
const UNTIL_END = `"$0" "$@" & read -r _; kill -9 $!; wait; rm -rf "$FOLDER"`

/** Starts the NATS server for the clusters of this process, once. */
let engine
function startEngine() {
  engine ??= (async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "polycast-nats-"))
    const port = await freePort()
    const args = ["-c", UNTIL_END, NATS, "-a", "127.0.0.1", "-p", String(port), "-js", "-sd", folder]
    const env = { ...process.env, FOLDER: folder }
    const child = spawn("sh", args, { env, stdio: ["pipe", "ignore", "ignore"] })
    child.unref()
    child.stdin.unref()
    for (const end = Date.now() + START_MS; !(await accepts(port));) {
      assert.ok(Date.now() < end, `${NATS} does not listen`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    return `nats://127.0.0.1:${port}`
  })()
  return engine
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address()
  server.close()
  await once(server, "close")
  return port
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1")
    socket.on("connect", () => resolve(true))
    socket.on("error", () => resolve(false))
    socket.on("close", () => socket.destroy())
    socket.on("connect", () => socket.end())
  })
}

/**
 * Nodes of one cluster behind a balancer, which gives each new connection to the next node. For a
 * test it is as one server.
 */
class Cluster extends Server {
  static #count = 0

  static async start({ config = app("client_events = true"), threads = 1, port = 0, nodes = NODES } = {}) {
    const cluster = new Cluster()
    const name = `t${process.pid}-${(Cluster.#count += 1)}`
    const section = `[cluster]\nengine = ["${await startEngine()}"]\nname = "${name}"\n`
    cluster.nodes = []
    cluster.options = { config: `${config}\n${section}`, threads }
    cluster.sockets = new Set()
    cluster.passed = []
    try {
      for (let number = 0; number < nodes; number += 1) await cluster.add()
      cluster.balancer = net.createServer((client) => cluster.#pass(client))
      cluster.balancer.listen(port, "127.0.0.1")
      await once(cluster.balancer, "listening")
    } catch (error) {
      cluster.nodes.forEach((node) => node.child.kill("SIGKILL"))
      throw error
    }
    cluster.host = cluster.nodes[0].host
    cluster.port = cluster.balancer.address().port
    return cluster
  }

  /** Starts one more node, and waits until it has joined. */
  async add() {
    const node = await Server.startAlone(this.options)
    this.nodes.push(node)
    await node.joined()
    return node
  }

  /** Takes a node out of the cluster and its balancer, without an end of its own. */
  async kill(node) {
    this.nodes = this.nodes.filter((it) => it !== node)
    node.child.kill("SIGKILL")
    await node.exited
    if (node.folder) fs.rmSync(node.folder, { recursive: true })
  }

  /** The port of the node that has got the connection with this number, from 0 on. */
  nodeOf(number) {
    return this.passed[number]
  }

  #pass(client) {
    const node = this.nodes[this.passed.length % this.nodes.length]
    this.passed.push(node.port)
    const upstream = net.connect({ port: node.port, host: node.host, allowHalfOpen: true })
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      this.sockets.add(one)
      one.pipe(other)
      one.on("error", () => other.destroy())
      one.on("close", () => {
        this.sockets.delete(one)
        other.end()
      })
    }
  }

  get errors() {
    return this.nodes.map((node) => node.errors).join("")
  }

  async stop() {
    this.balancer.close()
    await Promise.all(this.nodes.map((node) => node.stop()))
    this.sockets.forEach((socket) => socket.destroy())
  }
}

/**
 * A channel authorizer for the client, in place of an application's back end: it signs with the
 * secret of `publisher`. `data` is the `channel_data` of presence channels.
 */
function authorizer(publisher, data) {
  return {
    customHandler: ({ socketId, channelName }, done) => {
      done(null, publisher.authorizeChannel(socketId, channelName, data))
    },
  }
}

/** A user authenticator for the client, in place of an application's back end. */
function authenticator(publisher, user) {
  return {
    customHandler: ({ socketId }, done) => done(null, publisher.authenticateUser(socketId, user)),
  }
}

/** Signs in, and waits until the server has confirmed it and the user's channel is subscribed. */
async function signIn(client) {
  client.signin()
  await within("a sign-in", client.user.signinDonePromise)
  assert.ok(client.user.user_data, "signed in")
  const channel = client.user.serverToUserChannel
  if (!channel.subscribed) await next(channel, "pusher:subscription_succeeded")
  return client.user
}

/** A webhook endpoint that records the requests it receives. */
class Endpoint {
  static async start() {
    const endpoint = new Endpoint()
    endpoint.requests = []
    endpoint.server = http.createServer((request, response) => {
      const chunks = []
      request.on("data", (chunk) => chunks.push(chunk))
      request.on("end", () => {
        const rawBody = Buffer.concat(chunks).toString()
        endpoint.requests.push({ method: request.method, headers: request.headers, rawBody })
        response.end()
      })
    })
    endpoint.server.listen(0, "127.0.0.1")
    await once(endpoint.server, "listening")
    endpoint.url = `http://127.0.0.1:${endpoint.server.address().port}/hook`
    return endpoint
  }

  /** The events of all recorded requests; fails if `publisher` finds a request invalid. */
  events(publisher) {
    return this.requests.flatMap((request) => {
      const hook = publisher.webhook(request)
      assert.ok(hook.isValid(), JSON.stringify(request))
      assert.equal(request.method, "POST")
      assert.ok(Math.abs(hook.getTime() - Date.now()) < TEST_MS)
      return hook.getEvents()
    })
  }

  stop() {
    this.server.closeAllConnections()
    this.server.close()
  }
}

/** Waits until `client` is in the state `wanted`. */
function state(client, wanted) {
  const reached = new Promise((resolve) => {
    const look = () => client.connection.state === wanted && resolve()
    client.connection.bind("state_change", look)
    look()
  })
  return within(`state ${wanted}`, reached)
}

/**
 * Waits for the next event `name` of a channel, a connection or any other emitter of the client,
 * and returns its data.
 */
function next(emitter, name) {
  const happened = new Promise((resolve) => {
    const take = (data) => {
      emitter.unbind(name, take)
      resolve(data)
    }
    emitter.bind(name, take)
  })
  return within(`event ${name}`, happened)
}

/** Subscribes and waits until the server has confirmed the subscription. */
async function subscribe(client, name) {
  const channel = client.subscribe(name)
  if (!channel.subscribed) await next(channel, "pusher:subscription_succeeded")
  return channel
}

/**
 * Sends a ping and waits for the pong. The pong arrives after the server has processed all earlier
 * messages of `client`, and after all messages that the server had queued for the client.
 */
async function settled(client) {
  const pong = new Promise((resolve) => {
    const take = (message) => {
      if (message.event !== "pusher:pong") return
      client.connection.unbind("message", take)
      resolve()
    }
    client.connection.bind("message", take)
  })
  client.connection.send_event("pusher:ping", {})
  await within("an answer to a ping", pong)
}

/** Returns a list to which the data of each further `event` of `channel` is appended. */
function collect(channel, event) {
  const seen = []
  channel.bind(event, (data) => seen.push(data))
  return seen
}

/** Waits until `condition` returns true; fails after `ms`. */
async function until(what, condition, ms = EVENT_MS) {
  const end = Date.now() + ms
  while (!condition()) {
    assert.ok(Date.now() < end, `${what}: not within ${ms} ms`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/**
 * Defines a test with a new server: `options` are those of `Server.start`. With `hooks`, the keys
 * of `[[apps.webhooks]]`, the application has a webhook that sends to `server.endpoint`.
 */
function withServer(name, { hooks, timeout = TEST_MS, ...options }, body) {
  test(name, { timeout }, async () => {
    const endpoint = hooks === undefined ? undefined : await Endpoint.start()
    if (endpoint) {
      const keys = `url = "${endpoint.url}"\nallow_private = true\n${hooks}\n`
      options.config = `${options.config ?? app()}[[apps.webhooks]]\n${keys}`
    }
    const server = await Server.start(options)
    server.endpoint = endpoint
    const clients = []
    const connect = server.client.bind(server)
    server.client = (...args) => {
      const client = connect(...args)
      clients.push(client)
      return client
    }
    try {
      await body(server)
    } finally {
      clients.forEach((client) => client.disconnect())
      try {
        await server.stop()
      } finally {
        endpoint?.stop()
      }
    }
  })
}

module.exports = {
  COMPRESSING,
  Cluster,
  DEMO,
  FIXTURES,
  NATS,
  NODES,
  SECURE,
  Server,
  app,
  authenticator,
  authorizer,
  collect,
  next,
  settled,
  signIn,
  state,
  subscribe,
  until,
  within,
  withServer,
}
