// Encoders and decoders of Zenith's three formats: JSON, BSON and MessagePack. Only types that all
// three have are supported: null, booleans, numbers, strings, arrays, and maps with string keys.

const utf8 = new TextEncoder()
const text = new TextDecoder("utf-8", { fatal: true })

const isMap = (value) => typeof value === "object" && value !== null && !Array.isArray(value)

/** Sets an own property of a map, even if its name is `__proto__`. */
function put(map, key, value) {
  Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true })
}

/** A growing byte buffer that is written in sequence; `isLittle` is little-endian numbers. */
class Writer {
  constructor(isLittle) {
    this.isLittle = isLittle
    this.view = new DataView(new ArrayBuffer(256))
    this.length = 0
  }

  /** Appends `count` bytes, which are zero at first; returns the offset of the first one. */
  grow(count) {
    const at = this.length
    this.length += count
    if (this.length > this.view.byteLength) {
      const wider = new Uint8Array(Math.max(this.length, 2 * this.view.byteLength))
      wider.set(new Uint8Array(this.view.buffer))
      this.view = new DataView(wider.buffer)
    }
    return at
  }

  number(type, size, value) {
    const at = this.grow(size)
    this.view[`set${type}`](at, value, this.isLittle)
  }

  byte(value) { this.number("Uint8", 1, value) }

  bytes(bytes) {
    const at = this.grow(bytes.length)
    new Uint8Array(this.view.buffer).set(bytes, at)
  }

  all() { return new Uint8Array(this.view.buffer, 0, this.length) }
}

/** Reads a byte buffer in sequence; reading beyond its end throws a RangeError. */
class Reader {
  constructor(buffer, isLittle) {
    this.view = new DataView(buffer)
    this.isLittle = isLittle
    this.at = 0
  }

  number(type, size) {
    const value = this.view[`get${type}`](this.at, this.isLittle)
    this.at += size
    return Number(value)
  }

  byte() { return this.number("Uint8", 1) }

  text(length) {
    const end = this.at + length
    if (length < 0 || end > this.view.byteLength) throw new RangeError("the message is truncated")
    const found = text.decode(new Uint8Array(this.view.buffer, this.at, length))
    this.at = end
    return found
  }

  atEnd() { return this.at === this.view.byteLength }
}

// --- BSON (bsonspec.org, version 1.1) ---

function writeDocument(out, members) {
  const start = out.grow(4)
  for (const [key, value] of members) {
    const type = out.grow(1)
    out.bytes(utf8.encode(key))
    out.byte(0)
    out.view.setUint8(type, writeBson(out, value))
  }
  out.byte(0)
  out.view.setInt32(start, out.length - start, true)
}

/** Writes a value; returns its BSON type byte. */
function writeBson(out, value) {
  if (value === null) return 0x0a
  if (Array.isArray(value)) {
    writeDocument(out, value.map((element, at) => [String(at), element]))
    return 0x04
  }
  switch (typeof value) {
    case "boolean":
      out.byte(value ? 1 : 0)
      return 0x08
    case "string": {
      const bytes = utf8.encode(value)
      out.number("Int32", 4, bytes.length + 1)
      out.bytes(bytes)
      out.byte(0)
      return 0x02
    }
    case "number":
      if (value === (value | 0) && !Object.is(value, -0)) {
        out.number("Int32", 4, value)
        return 0x10
      }
      if (Number.isSafeInteger(value) && value !== 0) {
        out.number("BigInt64", 8, BigInt(value))
        return 0x12
      }
      out.number("Float64", 8, value)
      return 0x01
    default:
      writeDocument(out, Object.entries(value))
      return 0x03
  }
}

function readDocument(input, each) {
  const end = input.at + input.number("Int32", 4)
  for (let type = input.byte(); type !== 0; type = input.byte()) {
    const start = input.at
    while (input.byte() !== 0);
    const length = input.at - start - 1
    input.at = start
    const key = input.text(length)
    input.at++
    each(key, readBson(input, type))
  }
  if (input.at !== end) throw new RangeError("the length of a document is wrong")
}

function readBson(input, type) {
  switch (type) {
    case 0x01: return input.number("Float64", 8)
    case 0x02: {
      const found = input.text(input.number("Int32", 4) - 1)
      if (input.byte() !== 0) throw new RangeError("a string is not terminated")
      return found
    }
    case 0x03: {
      const map = {}
      readDocument(input, (key, value) => put(map, key, value))
      return map
    }
    case 0x04: {
      const array = []
      readDocument(input, (_, value) => array.push(value))
      return array
    }
    case 0x08: return input.byte() === 1
    case 0x0a: return null
    case 0x10: return input.number("Int32", 4)
    case 0x12: return input.number("BigInt64", 8)
    default: throw new TypeError(`BSON type ${type} is not supported`)
  }
}

// --- MessagePack (msgpack.org) ---

/**
 * Writes a type with a length. A length below `few` is in the low bits of the first byte, `base`.
 * Otherwise `of8`, `of16` or `of32` is the first byte and the length follows with so many bits; an
 * `of8` of 0 means that the type has no length of 8 bits.
 */
function writeLength(out, length, [base, few], [of8, of16, of32]) {
  if (length < few) return out.byte(base | length)
  if (of8 && length < 0x100) {
    out.byte(of8)
    return out.byte(length)
  }
  out.byte(length < 0x10000 ? of16 : of32)
  if (length < 0x10000) out.number("Uint16", 2, length)
  else out.number("Uint32", 4, length)
}

function writeMsgPack(out, value) {
  if (value === null) return out.byte(0xc0)
  if (Array.isArray(value)) {
    writeLength(out, value.length, [0x90, 16], [0, 0xdc, 0xdd])
    return value.forEach((element) => writeMsgPack(out, element))
  }
  switch (typeof value) {
    case "boolean": return out.byte(value ? 0xc3 : 0xc2)
    case "string": {
      const bytes = utf8.encode(value)
      writeLength(out, bytes.length, [0xa0, 32], [0xd9, 0xda, 0xdb])
      return out.bytes(bytes)
    }
    case "number":
      if (Object.is(value, -0) || !Number.isSafeInteger(value)) {
        out.byte(0xcb)
        return out.number("Float64", 8, value)
      }
      if (value >= -32 && value < 128) return out.byte(value & 0xff)
      if (value === (value | 0)) {
        out.byte(0xd2)
        return out.number("Int32", 4, value)
      }
      out.byte(0xd3)
      return out.number("BigInt64", 8, BigInt(value))
    default: {
      const members = Object.entries(value)
      writeLength(out, members.length, [0x80, 16], [0, 0xde, 0xdf])
      for (const [key, member] of members) {
        writeMsgPack(out, key)
        writeMsgPack(out, member)
      }
    }
  }
}

const NUMBERS = {
  0xca: ["Float32", 4], 0xcb: ["Float64", 8],
  0xcc: ["Uint8", 1], 0xcd: ["Uint16", 2], 0xce: ["Uint32", 4], 0xcf: ["BigUint64", 8],
  0xd0: ["Int8", 1], 0xd1: ["Int16", 2], 0xd2: ["Int32", 4], 0xd3: ["BigInt64", 8],
}
const LENGTHS = { 8: ["Uint8", 1], 16: ["Uint16", 2], 32: ["Uint32", 4] }

function readArray(input, length) {
  const array = []
  for (let at = 0; at < length; at++) array.push(readMsgPack(input))
  return array
}

function readMap(input, length) {
  const map = {}
  for (let at = 0; at < length; at++) {
    const key = readMsgPack(input)
    if (typeof key !== "string") throw new TypeError("a map key is not a string")
    put(map, key, readMsgPack(input))
  }
  return map
}

function readMsgPack(input) {
  const first = input.byte()
  const length = (bits) => input.number(...LENGTHS[bits])
  if (first < 0x80) return first
  if (first < 0x90) return readMap(input, first & 0x0f)
  if (first < 0xa0) return readArray(input, first & 0x0f)
  if (first < 0xc0) return input.text(first & 0x1f)
  if (first >= 0xe0) return first - 0x100
  if (NUMBERS[first]) return input.number(...NUMBERS[first])
  switch (first) {
    case 0xc0: return null
    case 0xc2: return false
    case 0xc3: return true
    case 0xd9: return input.text(length(8))
    case 0xda: return input.text(length(16))
    case 0xdb: return input.text(length(32))
    case 0xdc: return readArray(input, length(16))
    case 0xdd: return readArray(input, length(32))
    case 0xde: return readMap(input, length(16))
    case 0xdf: return readMap(input, length(32))
    default: throw new TypeError(`MessagePack type ${first} is not supported`)
  }
}

// --- the table of formats ---

function binary(isLittle, write, read) {
  return {
    encode(value) {
      const out = new Writer(isLittle)
      write(out, value)
      return out.all()
    },
    decode(data) {
      const input = new Reader(data, isLittle)
      const value = read(input)
      if (!isMap(value) || !input.atEnd()) throw new TypeError("the message is not a single map")
      return value
    },
  }
}

/** By subprotocol: `encode` makes what `WebSocket.send` accepts, `decode` parses what arrives. */
export const FORMATS = {
  ZenithJson: { encode: (value) => JSON.stringify(value), decode: (data) => JSON.parse(data) },
  ZenithBson: binary(
    true,
    (out, value) => writeDocument(out, Object.entries(value)),
    (input) => readBson(input, 0x03),
  ),
  ZenithMsgPack: binary(false, writeMsgPack, readMsgPack),
}
