"""Drives python-tuf's ngclient: reads jobs as JSON lines from stdin, prints one JSON line for each.

A job is {"path": P, "want": {"length"?: N, "sha256"?: H} | null, "download": bool}; "want": null says that
the path must be absent. The answer is {"path", "ok", "found", "length"?, "sha256"?, "error"?, "ms"}.
With "repository": {"metadata", "targets", "root", "cache"} in a job it is about that repository, not the one of the
command line, and has a client of its own.
"ok" means that metadata says exactly what was wanted and, with "download", that the file that python-tuf
verified and stored has that length and hash when it is read again here. Exit code 1 if any job was not ok.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time

from tuf.ngclient import Updater


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metadata", help="base URL of the metadata, such as http://127.0.0.1:8080/metadata/")
    parser.add_argument("targets", help="base URL of the target files")
    parser.add_argument("root", help="the trusted root.json")
    parser.add_argument("cache", help="directory in which the client keeps its metadata; created if absent")
    parser.add_argument("--fresh-each", action="store_true", help="a new Updater for each job, so that it sees changes")
    args = parser.parse_args()
    own = {"metadata": args.metadata, "targets": args.targets, "root": args.root, "cache": args.cache}
    os.makedirs(args.cache, exist_ok=True)
    target_dir = tempfile.mkdtemp(prefix="targets-", dir=args.cache)

    all_ok, updater = True, None
    try:
        for number, line in enumerate(sys.stdin):
            if not line.strip():
                continue
            job = json.loads(line)
            started = time.perf_counter()
            answer = {"path": job["path"], "ok": False, "found": False}
            try:
                if updater is None or args.fresh_each or "repository" in job:
                    updater = client(job.get("repository", own), target_dir)
                run(updater, job, answer, os.path.join(target_dir, str(number)))
            except Exception as e:  # every failure of the client is a result
                answer["error"] = f"{type(e).__name__}: {e}"
                updater = None  # after a failure its state is not defined
            answer["ms"] = round((time.perf_counter() - started) * 1000, 3)
            all_ok = all_ok and answer["ok"]
            print(json.dumps(answer), flush=True)
    finally:
        shutil.rmtree(target_dir, ignore_errors=True)
    return 0 if all_ok else 1


def client(repository: dict, target_dir: str) -> Updater:
    """A client of a repository, with the cache that it keeps."""
    with open(repository["root"], "rb") as f:
        root = f.read()
    metadata_dir = os.path.join(repository["cache"], "metadata")
    os.makedirs(metadata_dir, exist_ok=True)
    return Updater(metadata_dir, repository["metadata"], target_dir, repository["targets"], bootstrap=root)


def run(updater: Updater, job: dict, answer: dict, file: str) -> None:
    """Does one job and fills in its answer; raises whatever the client raises."""
    want = job.get("want")
    info = updater.get_targetinfo(job["path"])
    if info is None:
        answer["ok"] = want is None
        if want is not None:
            answer["error"] = "not found"
        return
    answer.update(found=True, length=info.length, sha256=info.hashes.get("sha256"))
    if want is None:
        answer["error"] = "found, but it should be absent"
        return
    differing = differences(want, answer)
    if not differing and job.get("download"):
        updater.download_target(info, filepath=file)
        with open(file, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        differing = differences(want, {"length": os.path.getsize(file), "sha256": digest})
        os.remove(file)
    if differing:
        answer["error"] = differing
    answer["ok"] = not differing


def differences(want: dict, found: dict) -> str:
    """What is not as wanted, in words; empty if nothing."""
    return ", ".join(f"{k} is {found[k]}, wanted {want[k]}" for k in want if found[k] != want[k])


if __name__ == "__main__":
    sys.exit(main())
