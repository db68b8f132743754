"""Compares the models of routes with Python's validators, on random schemas and messages."""

import io
import json
import random
import unittest

import fastavro
import jsonschema
from models import WithFolder, ask, config
from support import run

VALIDATORS = {
    "http://json-schema.org/draft-04/schema#": jsonschema.Draft4Validator,
    "http://json-schema.org/draft-06/schema#": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
}
SEED = 20


class Differential(WithFolder):
    def test_json_schema(self):
        """The models accept what jsonschema accepts, with the keywords of each draft."""
        dice = random.Random(SEED)
        drafts = list(VALIDATORS)
        schemas = []
        for number in range(150):
            draft = number % len(drafts)
            schemas.append({"$schema": drafts[draft], **random_schema(dice, 3, draft)})
        server = self.serve(config(self.folder, schemas))

        async def check():
            accepted = 0
            for number, schema in enumerate(schemas):
                judge = VALIDATORS[schema["$schema"]](schema)
                judge.check_schema(schema)
                ours = [random_value(dice, 3) for _ in range(40)]
                messages = [json.dumps(value) for value in ours]
                answers = await ask(server, number, messages)
                for value, message, answer in zip(ours, messages, answers):
                    self.assertEqual(answer == message, judge.is_valid(value), (schema, message))
                    accepted += answer == message
            return accepted

        accepted = run(check())
        self.assertTrue(600 < accepted < 5400, accepted)

    def test_avro(self):
        dice = random.Random(SEED)
        schemas = [random_record(dice, f"R{number}", 2) for number in range(60)]
        server = self.serve(config(self.folder, schemas, "avro", ', view = "json"'))

        async def check():
            refused = 0
            for number, schema in enumerate(schemas):
                parsed = fastavro.parse_schema(schema)
                messages, views = [], []
                for _ in range(20):
                    value = random_datum(dice, schema)
                    messages.append(written(parsed, value))
                    view = io.StringIO()
                    fastavro.json_writer(view, parsed, [value])
                    views.append(json.loads(view.getvalue()))
                answers = await ask(server, number, messages)
                self.assertEqual([json.loads(answer) for answer in answers], views, schema)
                # A message without its last byte is invalid: the reply has the code 1007.
                cut = [message[:-1] for message in messages]
                answers = await ask(server, number, cut)
                refused += sum(json.loads(it).get("code") == 1007 for it in answers)
            return refused

        self.assertEqual(run(check()), 60 * 20)

    def test_avro_there_and_back(self):
        """A datum that is converted to the JSON view and back has the same value."""
        dice = random.Random(SEED + 1)
        schemas = [random_record(dice, f"R{number}", 2) for number in range(60)]
        server = self.serve(config(self.folder, schemas, "avro", ', view = "json"', sent=True))

        async def check():
            for number, schema in enumerate(schemas):
                parsed = fastavro.parse_schema(schema)
                messages = [written(parsed, random_datum(dice, schema)) for _ in range(20)]
                answers = await ask(server, number, messages)
                # The entries of a map have no order, so the decoded values are compared.
                for message, answer in zip(messages, answers):
                    self.assertEqual(read(parsed, answer), read(parsed, message), schema)

        run(check())

    def test_avro_that_somebody_has_changed(self):
        """A changed datum is refused if fastavro cannot read it, and accepted if fastavro writes
        its value as the same bytes. Other data are left out."""
        dice = random.Random(SEED + 2)
        schemas = [random_record(dice, f"R{number}", 1) for number in range(60)]
        server = self.serve(config(self.folder, schemas, "avro"))

        async def check():
            counts = {True: 0, False: 0}
            for number, schema in enumerate(schemas):
                parsed = fastavro.parse_schema(schema)
                messages, wants = [], []
                while len(messages) < 40:
                    message = changed(dice, written(parsed, random_datum(dice, schema)))
                    want = is_datum(parsed, message)
                    if want is not None:
                        messages.append(message)
                        wants.append(want)
                answers = await ask(server, number, messages)
                for message, want, answer in zip(messages, wants, answers):
                    self.assertEqual(answer == message, want, (schema, message, answer))
                    counts[want] += 1
            return counts

        counts = run(check())
        self.assertGreater(min(counts.values()), 200, counts)


def written(schema, value):
    datum = io.BytesIO()
    fastavro.schemaless_writer(datum, schema, value)
    return datum.getvalue()


def read(schema, message):
    return fastavro.schemaless_reader(io.BytesIO(message), schema)


def changed(dice, message):
    """The message with one byte replaced, removed or inserted."""
    at = dice.randrange(len(message))
    byte = bytes([dice.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFF, dice.randrange(256)])])
    return dice.choice([
        message[:at] + byte + message[at + 1 :],
        message[:at] + message[at + 1 :],
        message[:at] + byte + message[at:],
    ])


def is_datum(schema, message):
    """Whether the message is a datum of the schema. `None` if fastavro reads it, but writes its
    value as other bytes."""
    stream = io.BytesIO(message)
    try:
        value = fastavro.schemaless_reader(stream, schema)
    except (EOFError, IndexError, ValueError, OverflowError, MemoryError):
        return False
    if stream.tell() < len(message):
        return False
    # fastavro's reader does not check that an `int` fits into 32 bits.
    if not fastavro.validate(value, schema, raise_errors=False):
        return False
    return True if written(schema, value) == message else None


def random_schema(dice, depth, draft):
    """A random JSON schema that some random values satisfy. `draft` is the index of the draft in
    VALIDATORS, where 0 is draft 4."""
    schema = {}

    def inner():
        return random_schema(dice, depth - 1, draft)

    kinds = ["object", "array", "string", "number", "integer", "boolean", "null"]
    if dice.random() < 0.5:
        schema["type"] = dice.sample(kinds, dice.randint(2, 5))
    for word, least, most in [
        ("maximum", -5, 5),
        ("minimum", -5, 5),
        ("multipleOf", 1, 3),
        ("maxLength", 0, 3),
        ("minLength", 0, 3),
        ("maxItems", 0, 3),
        ("minItems", 0, 2),
        ("maxProperties", 0, 3),
        ("minProperties", 0, 2),
    ]:
        if dice.random() < 0.15:
            schema[word] = dice.randint(least, most)
    if draft == 0 and "maximum" in schema and dice.random() < 0.5:
        schema["exclusiveMaximum"] = dice.random() < 0.5
    if draft > 0 and dice.random() < 0.2:
        schema["exclusiveMinimum"] = dice.randint(-5, 5)
    if draft > 0 and dice.random() < 0.05:
        schema["const"] = random_value(dice, 1)
    if dice.random() < 0.2:
        schema["pattern"] = dice.choice(["^a", "b$", "[\u00e90-9]", "^$", "^.{2}$", "a|b1"])
    if dice.random() < 0.1:
        # JSON Schema treats 2 and 2.0 as equal, and the values of an enum must differ.
        values = [random_value(dice, 1) for _ in range(6)]
        schema["enum"] = list({json.dumps(it).replace(".0", ""): it for it in values}.values())
    if dice.random() < 0.2:
        schema["uniqueItems"] = dice.random() < 0.8
    if dice.random() < 0.2:
        schema["required"] = dice.sample("abc", dice.randint(1, 2))
    if not depth:
        return schema
    objects(dice, schema, inner, draft)
    arrays(dice, schema, inner, draft)
    if dice.random() < 0.25:
        word = dice.choice(["allOf", "anyOf", "oneOf"])
        schema[word] = [inner() for _ in range(2)]
    if dice.random() < 0.1:
        schema["not"] = inner()
    if draft > 1 and dice.random() < 0.2:
        schema["if"] = inner()
        for word in dice.sample(["then", "else"], dice.randint(1, 2)):
            schema[word] = inner()
    return schema


def objects(dice, schema, inner, draft):
    if dice.random() < 0.5:
        schema["properties"] = {name: inner() for name in dice.sample("abc", 2)}
    if dice.random() < 0.15:
        schema["patternProperties"] = {dice.choice(["^a", "[bc]", "d$"]): inner()}
    if dice.random() < 0.15:
        schema["additionalProperties"] = dice.choice([False, inner()])
    elif draft > 2 and dice.random() < 0.15:
        schema["unevaluatedProperties"] = dice.choice([False, inner()])
    if draft > 0 and dice.random() < 0.1:
        schema["propertyNames"] = {"pattern": dice.choice(["[ab]", "^[a-c]$"])}
    if dice.random() < 0.15:
        names = dice.sample("abcd", 2)
        if draft < 3:
            schema["dependencies"] = {names[0]: dice.choice([[names[1]], inner()])}
        elif dice.random() < 0.5:
            schema["dependentRequired"] = {names[0]: [names[1]]}
        else:
            schema["dependentSchemas"] = {names[0]: inner()}


def arrays(dice, schema, inner, draft):
    if dice.random() < 0.25:
        schema["items"] = inner()
    elif dice.random() < 0.25:
        first = [inner() for _ in range(dice.randint(1, 2))]
        rest = dice.choice([False, inner()]) if draft else dice.choice([inner(), inner()])
        schema["prefixItems" if draft > 3 else "items"] = first
        if dice.random() < 0.5:
            schema["items" if draft > 3 else "additionalItems"] = rest
    if draft > 0 and dice.random() < 0.15:
        schema["contains"] = inner()
        if draft > 2 and dice.random() < 0.5:
            schema["minContains"] = dice.randint(0, 2)
            schema["maxContains"] = dice.randint(1, 2)


def random_value(dice, depth):
    kind = dice.randint(0, 6 if depth else 4)
    if depth == 3 and dice.random() < 0.5:
        kind = 6
    if kind == 0:
        return None
    if kind == 1:
        return dice.random() < 0.5
    if kind == 2:
        return dice.randint(-6, 6)
    if kind == 3:
        return dice.randint(-12, 12) / 2
    if kind == 4:
        return "".join(dice.choice("ab\u00e91\U0001f600") for _ in range(dice.randint(0, 4)))
    if kind == 5:
        return [random_value(dice, depth - 1) for _ in range(dice.randint(0, 4))]
    names = dice.sample("abcd", dice.randint(0, 4))
    return {name: random_value(dice, depth - 1) for name in names}


PLAIN = ["null", "boolean", "int", "long", "float", "double", "string", "bytes"]


def random_record(dice, name, depth):
    fields = []
    for number in range(dice.randint(1, 6)):
        kind = random_kind(dice, f"{name}F{number}", depth)
        fields.append({"name": f"f{number}", "type": kind})
    fields.append({"name": "last", "type": "string"})
    return {"type": "record", "name": name, "namespace": "polycast", "fields": fields}


def random_kind(dice, name, depth):
    plain = dice.choice(PLAIN)
    if not depth:
        return plain
    shape = dice.randint(0, 8)
    if shape == 0:
        others = ["null", *dice.sample(PLAIN[1:], dice.randint(1, 3))]
        return others
    if shape == 1:
        # Items that take no bytes would make the length of an array unbounded.
        items = random_kind(dice, name + "A", depth - 1)
        return {"type": "array", "items": "int" if items == "null" else items}
    if shape == 2:
        return {"type": "map", "values": random_kind(dice, name + "M", depth - 1)}
    if shape == 3:
        return {"type": "enum", "name": f"{name}E", "symbols": ["A", "B", "C"]}
    if shape == 4:
        return {"type": "fixed", "name": f"{name}X", "size": dice.randint(1, 4)}
    if shape == 5:
        return random_record(dice, f"{name}R", depth - 1)
    return plain


def random_datum(dice, schema):
    if isinstance(schema, list):
        branch = dice.choice(schema)
        return None if branch == "null" else (branch, random_datum(dice, branch))
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        return {field["name"]: random_datum(dice, field["type"]) for field in schema["fields"]}
    if kind == "array":
        return [random_datum(dice, schema["items"]) for _ in range(dice.randint(0, 3))]
    if kind == "map":
        names = dice.sample("xyz\u00e9", dice.randint(0, 2))
        return {key: random_datum(dice, schema["values"]) for key in names}
    if kind == "enum":
        return dice.choice(schema["symbols"])
    if kind == "fixed":
        return dice.randbytes(schema["size"])
    return {
        "null": lambda: None,
        "boolean": lambda: dice.random() < 0.5,
        "int": lambda: dice.randint(-(2**31), 2**31 - 1),
        "long": lambda: dice.choice([dice.randint(-(2**63), 2**63 - 1), 2**63 - 1, -(2**63)]),
        "float": lambda: dice.randint(-1000, 1000) / 8,
        "double": lambda: dice.randint(-1000, 1000) / 8,
        "string": lambda: "".join(dice.choice("a\u00e9\U0001f600") for _ in range(dice.randint(1, 5))),
        "bytes": lambda: dice.randbytes(dice.randint(0, 5)),
    }[kind]()


if __name__ == "__main__":
    unittest.main()
