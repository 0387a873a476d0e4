"""The measuring and checking half of `make demo` (tests/demo.sh): demo.py DEMO_DIR STEP [ARGUMENT...].

Everything here looks from outside: HTTP, a stock TUF client, and the indexes as apt's own tool reads them.
What one step learns the next finds in DEMO_DIR/facts.json. A step that finds something wrong says what and
exits with 1.
"""

import glob
import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import time
from urllib.parse import urlsplit

LISTS = "/var/lib/apt/lists/*_Packages*"
LOOKUPS, DOWNLOADS, POSTS = 200, 20, 200
HERE = os.path.dirname(os.path.abspath(__file__))


class Wrong(Exception):
    """Something is not as it should be."""


class Facts(dict):
    """What is known so far, kept in a file."""

    def __init__(self, demo: str):
        self.file = os.path.join(demo, "facts.json")
        if os.path.exists(self.file):
            with open(self.file) as f:
                self.update(json.load(f))

    def save(self) -> None:
        with open(self.file, "w") as f:
            json.dump(self, f, indent=1)


class Server:
    """One kept-alive connection to tuflog."""

    def __init__(self, url: str):
        self.url = url
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def call(self, method: str, path: str, body: dict | None = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, {"content-type": "application/json"} if data else {})
        response = self.connection.getresponse()
        return response.status, response.read()

    def get(self, path: str) -> dict:
        status, body = self.call("GET", path)
        if status != 200:
            raise Wrong(f"GET {path} answered {status}: {body[:300]!r}")
        return json.loads(body)

    def publish(self, *changes: dict) -> tuple[dict, float]:
        """Posts a batch and waits until it is visible: the receipt, and the milliseconds."""
        started = time.perf_counter()
        status, body = self.call("POST", "/v1/batches?wait=published", {"changes": changes})
        ms = (time.perf_counter() - started) * 1000
        receipt = json.loads(body) if body else {}
        if status != 200 or receipt.get("state") != "published":
            raise Wrong(f"a batch was not published: {status} {body[:500]!r}")
        return receipt, ms


class Client:
    """python-tuf in a process of its own, with a new Updater for every question."""

    def __init__(self, demo: str, url: str, *options: str):
        command = [sys.executable, os.path.join(HERE, "clients", "python_tuf.py"), f"{url}/metadata/", f"{url}/targets/"]
        command += [os.path.join(demo, "root.json"), os.path.join(demo, "client"), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, path: str, want: dict | None, download: bool = False) -> dict:
        self.process.stdin.write(json.dumps({"path": path, "want": want, "download": download}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Wrong("the client ended without an answer")
        answer = json.loads(line)
        if not answer["ok"]:
            raise Wrong(f"python-tuf on {path}: {answer.get('error')} ({answer})")
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        if self.process.wait() != 0:
            raise Wrong(f"the client ended with exit code {self.process.returncode}")


def describe(file: str) -> dict:
    with open(file, "rb") as f:
        data = f.read()
    return {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def add(path: str, want: dict) -> dict:
    return {"op": "add", "path": path, "length": want["length"], "hashes": {"sha256": want["sha256"]}}


def debian() -> dict[str, dict]:
    """Path → length and hash, as apt's own tool reads the indexes; the last occurrence counts."""
    found = {}
    for file in sorted(glob.glob(LISTS)):
        text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", file], check=True, capture_output=True).stdout
        for stanza in text.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.split("\n") if ": " in line and line[0] != " ")
            if "Filename" in fields:
                found[fields["Filename"].removeprefix("./")] = {"length": int(fields["Size"]), "sha256": fields["SHA256"]}
    return found


def changes(demo: str, facts: Facts, url: str) -> None:
    """Step 3: each change with the time until it is visible, and what a client then sees."""
    server, client = Server(url), Client(demo, url, "--fresh-each")
    index = debian()
    removed_path = random.Random(4).choice(sorted(index))
    folder = os.path.join(demo, "targets", "demo")
    os.makedirs(folder, exist_ok=True)

    def put(verb: str, name: str, text: str) -> None:
        file = os.path.join(folder, name)
        with open(file + ".new", "w") as f:
            f.write(text)
        os.replace(file + ".new", file)
        want = describe(file)
        receipt, ms = server.publish(add(f"demo/{name}", want))
        answer = client.ask(f"demo/{name}", want, download=True)
        report(verb, f"demo/{name}", receipt, ms, f"downloads {want['length']} bytes, verified, in {answer['ms']:.0f} ms")

    def remove(path: str) -> None:
        receipt, ms = server.publish({"op": "remove", "path": path})
        answer = client.ask(path, None)
        report("remove", path, receipt, ms, f"finds nothing, in {answer['ms']:.0f} ms")

    def report(verb: str, path: str, receipt: dict, ms: float, then: str) -> None:
        print(f"  {verb:8} {path:50.50} visible after {ms:6.1f} ms (checkpoint {receipt.get('checkpoint')}); client {then}")

    put("add", "one.txt", "the first\n")
    put("add", "two.txt", "the second\n")
    put("replace", "one.txt", "the first, in other words\n")
    remove("demo/two.txt")
    remove(removed_path)

    empty = {"length": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    times = sorted(server.publish(add(f"demo/posts/{n:04}", empty))[1] for n in range(POSTS))
    client.ask(f"demo/posts/{POSTS - 1:04}", empty)
    client.close()
    p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
    print(f"  {POSTS} single changes, one after another: POST to visible p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    facts.update(removed=[removed_path, "demo/two.txt"], p50=p50, p99=p99, posts=POSTS + 5, debian=len(index))
    facts["expected"] = len(index) - 1 + len(crates(demo)) + 1 + POSTS
    with open(os.path.join(demo, "example-path"), "w") as f:
        f.write("demo/one.txt")


def crates(demo: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(demo), "targets", "crates", "*.crate")))


def clients(demo: str, facts: Facts, url: str) -> None:
    """Step 4: lookups against the index, downloads against the files, and what must be gone."""
    index, files = debian(), crates(demo)
    if len(index) < LOOKUPS or len(files) < DOWNLOADS:
        raise Wrong(f"too little to check with: {len(index)} packages, {len(files)} crates in the cargo cache")
    chance = random.Random()
    client = Client(demo, url)
    gone = set(facts["removed"])
    started = time.perf_counter()
    for path in chance.sample(sorted(set(index) - gone), LOOKUPS):
        client.ask(path, index[path])
    print(f"  looked up {LOOKUPS} Debian paths: size and SHA-256 as in the index ({time.perf_counter() - started:.1f} s)")
    started, total = time.perf_counter(), 0
    for file in chance.sample(files, DOWNLOADS):
        want = describe(file)
        client.ask("crates/" + os.path.basename(file), want, download=True)
        total += want["length"]
    seconds = time.perf_counter() - started
    print(f"  downloaded {DOWNLOADS} crates, {total:,} bytes: length and SHA-256 verified ({seconds:.1f} s)")
    for path in sorted(gone):
        client.ask(path, None)
        print(f"  {path}: removed, and gone")
    client.close()


def collect(demo: str, facts: Facts, url: str, pid: str) -> None:
    """Figures that need the running server: what is published, counted from outside, and what was written."""
    server = Server(url)
    snapshot = server.get("/metadata/timestamp.json")["signed"]["meta"]["snapshot.json"]["version"]
    meta = server.get(f"/metadata/{snapshot}.snapshot.json")["signed"]["meta"]
    bins = [(name, entry["version"]) for name, entry in meta.items() if name != "targets.json"]
    published = sum(len(server.get(f"/metadata/{version}.{name}")["signed"]["targets"]) for name, version in bins)
    with open(f"/proc/{pid}/io") as f:
        io = dict(line.strip().split(": ") for line in f)
    facts.update(cuts=snapshot, bins=len(bins), targets=published, written=int(io["wchar"]))
    if published != facts["expected"]:
        raise Wrong(f"{published} targets are published, {facts['expected']} should be")
    print(f"  {published:,} targets in {len(bins)} bins are published: as many as went in, less what was removed")


def summary(demo: str, facts: Facts) -> None:
    marks = facts["marks"]
    with open(os.path.join(demo, "audit.json")) as f:
        audit = json.load(f)
    importing = marks["import-ended"] - marks["import-started"]
    imported = facts["debian"] + len(crates(demo))
    disk = subprocess.run(["du", "-sb", os.path.join(demo, "data")], check=True, capture_output=True, text=True).stdout
    rows = [
        ("targets published", f"{facts['targets']:,} in {facts['bins']} bins"),
        ("batches", f"{audit['batches_valid']:,}, of which {facts['posts']} single changes"),
        ("cuts", f"{facts['cuts']:,}"),
        ("import", f"{imported:,} changes in {importing:.1f} s: {imported / importing:,.0f} changes/s, published"),
        ("POST to visible", f"p50 {facts['p50']:.1f} ms, p99 {facts['p99']:.1f} ms ({POSTS} in sequence)"),
        ("bytes written", f"{facts['written']:,} by the server; {int(disk.split()[0]):,} on disk now"),
        ("audit", f"clean, {marks['audit-ended'] - marks['audit-started']:.1f} s"),
    ]
    for name, value in rows:
        print(f"  {name:18} {value}")


def mark(demo: str, facts: Facts, name: str) -> None:
    facts.setdefault("marks", {})[name] = time.time()


def main() -> int:
    demo, step, *arguments = sys.argv[1:]
    steps = {"mark": mark, "changes": changes, "clients": clients, "collect": collect, "summary": summary}
    facts = Facts(demo)
    try:
        steps[step](demo, facts, *arguments)
    except (Wrong, OSError, http.client.HTTPException, subprocess.CalledProcessError) as e:
        print(f"  WRONG: {e}", file=sys.stderr)
        return 1
    facts.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
