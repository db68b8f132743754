"""Runs the official JSON-Schema-Test-Suite (MIT licence) against the JSON models of routes."""

import collections
import json
import os
import pathlib
import subprocess
import unittest

from models import WithFolder, ask, config
from support import BINARY, run

SUITE = pathlib.Path(os.environ.get("JSON_SCHEMA_SUITE", "no suite")) / "tests"
DRAFTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
# The address of the suite's own server and the folders on it. A schema that contains one of these
# may refer to a schema on that server.
REMOTE = ("localhost:1234", "draft2019-09/", "draft2020-12/", "draft7/", "draft6/")

# Groups that are not served, because their schemas refer to a file on the suite's server, which the
# schemas of a `filesystem` catalog cannot do. ELSEWHERE has the names of the suite's files, of any
# draft, in which every group may be rejected; `vocabulary` refers to a metaschema on that server.
# ELSEWHERE_PLACES has the single groups that must also be rejected.
ELSEWHERE = {"refRemote", "optional/cross-draft", "vocabulary"}
ELSEWHERE_PLACES = {f"draft2020-12/dynamicRef/{number}" for number in range(13, 18)}

# Required and optional tests that are known to fail: "place: description", each with the reason.
# There are none.
KNOWN = {}


def groups():
    """Yields the place, the schema and the tests of each group of the suite. A place is
    `draft/file/number`."""
    for draft, dialect in DRAFTS.items():
        # The format tests are left out, because the models do not check formats.
        paths = [*(SUITE / draft).glob("*.json"), *(SUITE / draft / "optional").glob("*.json")]
        for path in sorted(paths):
            if path.stem.startswith("format") and path.parent.name == "optional":
                continue
            optional = "optional/" if path.parent.name == "optional" else ""
            for number, group in enumerate(json.loads(path.read_text())):
                schema = group["schema"]
                if not isinstance(schema, dict):
                    # A boolean schema is wrapped, because it cannot have `$schema` for the draft.
                    schema = {"allOf": [schema]}
                schema = {"$schema": dialect, **schema}
                yield f"{draft}/{optional}{path.stem}/{number}", schema, group["tests"]


def named(place):
    """The file name in a place, without the draft and the number."""
    return place.split("/", 1)[1].rsplit("/", 1)[0]


class Suite(WithFolder):
    def is_loaded(self, schema):
        """Whether `polycast check` accepts a configuration with this schema."""
        path = pathlib.Path(self.folder) / "one.toml"
        path.write_text(config(self.folder, [schema]))
        result = subprocess.run([BINARY, "check", path], capture_output=True, text=True)
        self.assertIn(result.returncode, (0, 2), result.stderr)
        return result.returncode == 0

    @unittest.skipUnless(SUITE.is_dir(), "JSON_SCHEMA_SUITE names no suite")
    def test_the_official_suite(self):
        every, elsewhere = [], []
        for group in groups():
            place, schema, _ = group
            doubtful = any(it in json.dumps(schema) for it in REMOTE) or "optional/" in place
            if doubtful and not self.is_loaded(schema):
                elsewhere.append(place)
            else:
                every.append(group)
        server = self.serve(config(self.folder, [schema for _, schema, _ in every]))
        wrong, counts = set(), collections.Counter()

        async def check():
            for number, (place, _, tests) in enumerate(every):
                messages = [json.dumps(test["data"]) for test in tests]
                answers = await ask(server, number, messages)
                for test, message, answer in zip(tests, messages, answers):
                    kind = "optional" if "optional/" in place else "required"
                    right = (answer == message) == test["valid"]
                    counts[place.split("/")[0], kind, right] += 1
                    if not right:
                        wrong.add(f"{place}: {test['description']}")

        run(check())
        for draft in DRAFTS:
            for kind in ("required", "optional"):
                passed, failed = counts[draft, kind, True], counts[draft, kind, False]
                print(f"{draft}: {kind}: {passed} passed, {failed} failed", flush=True)
        print(f"{len(elsewhere)} groups refer to schemas elsewhere", flush=True)
        self.assertEqual(wrong, set(KNOWN))
        self.assertGreater(sum(counts.values()), 5000)
        strange = {place for place in elsewhere if named(place) not in ELSEWHERE}
        self.assertEqual(strange, ELSEWHERE_PLACES)


if __name__ == "__main__":
    unittest.main()
