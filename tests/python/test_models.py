"""What a route's models accept, beside Python's validators and the official suite of JSON Schema."""

import asyncio
import io
import json
import os
import pathlib
import random
import tempfile
import unittest

import fastavro
import jsonschema
from support import EVENT_S, Server, run
from websockets.asyncio.client import connect

SUITE = pathlib.Path(os.environ.get("JSON_SCHEMA_SUITE", "no suite")) / "tests"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
# The suite's server of further schemas; ours refer to nothing outside.
REMOTE = ("localhost:1234", "draft2019-09/", "draft2020-12/", "draft7/", "draft6/")
SEED = 20


def groups():
    """Every group of the suite that needs no other schema: its place, schema and tests."""
    for draft, dialect in DRAFTS.items():
        for path in sorted((SUITE / draft).glob("*.json")):
            for number, group in enumerate(json.loads(path.read_text())):
                schema = group["schema"]
                if any(remote in json.dumps(schema) for remote in REMOTE):
                    continue
                if isinstance(schema, dict):
                    schema = {"$schema": dialect, **schema}
                elif draft != "draft7":
                    continue  # A bare boolean names no draft.
                yield f"{draft}/{path.stem}/{number}", schema, group["tests"]


def config(folder, schemas, model="json", more=""):
    """One route for each schema, which is a file."""
    catalog = '[[catalogs]]\nname = "files"\ntype = "filesystem"\n'
    routes = ""
    for number, schema in enumerate(schemas):
        path = pathlib.Path(folder) / f"{number}.schema"
        path.write_text(json.dumps(schema))
        catalog += f'[[catalogs.subjects]]\nname = "{number}"\npath = "{path}"\n'
        spec = f'model = "{model}", catalog = "files", subject = "{number}"{more}'
        kind = "text" if model == "json" else "binary"
        routes += f'[[routes]]\nwhen = [{{ path = "/{number}" }}]\nendpoint = "echo"\n'
        routes += f'[routes.model]\nreceived.{kind} = {{ {spec} }}\non_invalid = "reply"\n'
    return catalog + routes + '[[apps]]\nid = "1"\nkey = "k"\nsecret = "s"\n'


async def ask(server, number, messages):
    """The answers to messages on one route."""
    async with connect(server.url(f"/{number}"), max_size=None) as client:
        for message in messages:
            await client.send(message)
        return [await asyncio.wait_for(client.recv(), EVENT_S) for _ in messages]


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="polycast-models-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def serve(self, text):
        server = Server(text)
        self.addCleanup(server.stop)
        return server


class Suite(WithFolder):
    @unittest.skipUnless(SUITE.is_dir(), "JSON_SCHEMA_SUITE names no suite")
    def test_the_official_suite(self):
        every = list(groups())
        self.assertGreater(len(every), 1000)
        server = self.serve(config(self.folder, [schema for _, schema, _ in every]))
        wrong = []

        async def check():
            for number, (place, _, tests) in enumerate(every):
                messages = [json.dumps(test["data"]) for test in tests]
                answers = await ask(server, number, messages)
                for test, message, answer in zip(tests, messages, answers):
                    if (answer == message) != test["valid"]:
                        wrong.append(f"{place}: {test['description']}: {answer}")

        run(check())
        self.assertEqual(wrong, [])


class Differential(WithFolder):
    def test_json_schema(self):
        dice = random.Random(SEED)
        schemas = [random_schema(dice, 3) for _ in range(60)]
        server = self.serve(config(self.folder, schemas))

        async def check():
            accepted = 0
            for number, schema in enumerate(schemas):
                ours = [random_value(dice, 3) for _ in range(40)]
                judge = jsonschema.Draft7Validator(schema)
                messages = [json.dumps(value) for value in ours]
                answers = await ask(server, number, messages)
                for value, message, answer in zip(ours, messages, answers):
                    self.assertEqual(answer == message, judge.is_valid(value), (schema, message))
                    accepted += answer == message
            return accepted

        accepted = run(check())
        self.assertTrue(200 < accepted < 2200, accepted)

    def test_avro(self):
        dice = random.Random(SEED)
        schemas = [random_record(dice, f"R{number}") for number in range(40)]
        server = self.serve(config(self.folder, schemas, "avro", ', view = "json"'))

        async def check():
            refused = 0
            for number, schema in enumerate(schemas):
                parsed = fastavro.parse_schema(schema)
                messages, views = [], []
                for _ in range(20):
                    value = random_datum(dice, schema)
                    datum = io.BytesIO()
                    fastavro.schemaless_writer(datum, parsed, value)
                    view = io.StringIO()
                    fastavro.json_writer(view, parsed, [value])
                    messages.append(datum.getvalue())
                    views.append(json.loads(view.getvalue()))
                answers = await ask(server, number, messages)
                self.assertEqual([json.loads(answer) for answer in answers], views, schema)
                # Cut off, they are none.
                cut = [message[:-1] for message in messages]
                answers = await ask(server, number, cut)
                refused += sum(json.loads(it).get("code") == 1007 for it in answers)
            return refused

        self.assertEqual(run(check()), 40 * 20)


def random_schema(dice, depth):
    """A schema of draft 7 whose rules random values meet now and then."""
    schema = {}
    kinds = ["object", "array", "string", "number", "integer", "boolean", "null"]
    if dice.random() < 0.6:
        schema["type"] = dice.sample(kinds, dice.randint(1, 4))
    if dice.random() < 0.3:
        schema["maximum"] = dice.randint(-5, 5)
    if dice.random() < 0.3:
        schema["exclusiveMinimum"] = dice.randint(-5, 5)
    if dice.random() < 0.2:
        schema["multipleOf"] = dice.randint(1, 3)
    if dice.random() < 0.3:
        schema["maxLength"] = dice.randint(0, 3)
    if dice.random() < 0.2:
        schema["pattern"] = dice.choice(["^a", "b$", "[é0-9]", "^$"])
    if dice.random() < 0.2:
        schema["enum"] = [random_value(dice, 1) for _ in range(4)]
    if dice.random() < 0.3:
        schema["maxItems"] = dice.randint(0, 3)
    if dice.random() < 0.2:
        schema["uniqueItems"] = True
    if dice.random() < 0.3:
        schema["required"] = dice.sample("abc", dice.randint(0, 2))
    if depth and dice.random() < 0.5:
        names = dice.sample("abc", 2)
        schema["properties"] = {name: random_schema(dice, depth - 1) for name in names}
    if depth and dice.random() < 0.2:
        schema["additionalProperties"] = dice.choice([False, random_schema(dice, depth - 1)])
    if depth and dice.random() < 0.3:
        schema["items"] = random_schema(dice, depth - 1)
    if depth and dice.random() < 0.2:
        word = dice.choice(["allOf", "anyOf", "oneOf"])
        schema[word] = [random_schema(dice, depth - 1) for _ in range(2)]
    if depth and dice.random() < 0.1:
        schema["not"] = random_schema(dice, depth - 1)
    return schema


def random_value(dice, depth):
    kind = dice.randint(0, 6 if depth else 4)
    if kind == 0:
        return None
    if kind == 1:
        return dice.random() < 0.5
    if kind == 2:
        return dice.randint(-6, 6)
    if kind == 3:
        return dice.randint(-12, 12) / 2
    if kind == 4:
        return "".join(dice.choice("abé1") for _ in range(dice.randint(0, 4)))
    if kind == 5:
        return [random_value(dice, depth - 1) for _ in range(dice.randint(0, 4))]
    names = dice.sample("abcd", dice.randint(0, 4))
    return {name: random_value(dice, depth - 1) for name in names}


PLAIN = ["boolean", "int", "long", "double", "string", "bytes"]


def random_record(dice, name):
    fields = []
    for number in range(dice.randint(1, 6)):
        kind = dice.choice(PLAIN)
        shape = dice.randint(0, 5)
        if shape == 0:
            kind = ["null", kind]
        elif shape == 1:
            kind = {"type": "array", "items": kind}
        elif shape == 2:
            kind = {"type": "map", "values": kind}
        elif shape == 3:
            kind = {"type": "enum", "name": f"{name}E{number}", "symbols": ["A", "B"]}
        elif shape == 4:
            kind = {"type": "fixed", "name": f"{name}F{number}", "size": dice.randint(1, 4)}
        fields.append({"name": f"f{number}", "type": kind})
    fields.append({"name": "last", "type": "string"})
    return {"type": "record", "name": name, "namespace": "polycast", "fields": fields}


def random_datum(dice, schema):
    if isinstance(schema, list):
        return dice.choice([None, random_datum(dice, schema[1])])
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        return {field["name"]: random_datum(dice, field["type"]) for field in schema["fields"]}
    if kind == "array":
        return [random_datum(dice, schema["items"]) for _ in range(dice.randint(0, 3))]
    if kind == "map":
        return {key: random_datum(dice, schema["values"]) for key in dice.sample("xyz", 2)}
    if kind == "enum":
        return dice.choice(schema["symbols"])
    if kind == "fixed":
        return dice.randbytes(schema["size"])
    return {
        "boolean": lambda: dice.random() < 0.5,
        "int": lambda: dice.randint(-(2**31), 2**31 - 1),
        "long": lambda: dice.randint(-(2**53), 2**53),
        "double": lambda: dice.randint(-1000, 1000) / 8,
        "string": lambda: "".join(dice.choice("aé😀") for _ in range(dice.randint(1, 5))),
        "bytes": lambda: dice.randbytes(dice.randint(0, 5)),
    }[kind]()


if __name__ == "__main__":
    unittest.main()
