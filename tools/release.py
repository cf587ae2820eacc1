"""Build a release, try it on every Python of this machine, and say what it is made of.

Writes into a new folder: sdist, wheel, SBOM (CycloneDX) of the lock, and SHA256SUMS. twine,
cyclonedx-py and pip-audit are fetched by uv when they are called: nothing else needs them.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
TOOLS = {"twine": "twine>=6", "cyclonedx-py": "cyclonedx-bom>=7", "pip-audit": "pip-audit>=2.9"}
OLDEST = (3, 11)
TRIALS = (
    ["ramer", "--version"],
    ["ramer", "doctor"],
    ["ramer", "methods"],
    ["ramer", "run", "--dataset", "gaussian", "--method", "ramer", "--set", '{"epochs": 1}'],
)


def run(command, **given):
    "What a command printed. Raises SystemExit, with its last lines, if it fails."
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **given)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-20:]
        sys.exit("\n".join([f"failed: {' '.join(map(str, command))}", *said]))
    return done.stdout


def uv():
    return shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def tool(name, *arguments):
    return [uv(), "tool", "run", "-q", "--from", TOOLS[name], name, *arguments]


def problems(version):
    "What has to be mended before this version is released."
    found = []
    if run(["git", "status", "--porcelain"], cwd=ROOT).strip():
        found.append("files differ from the last commit; commit them")
    if run(["git", "tag", "--list", f"v{version}"], cwd=ROOT).strip():
        found.append(f"v{version} is tagged already; raise the version in settings.ini")
    if not re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M):
        found.append(f"CHANGELOG.md has no section {version}; name its Unreleased one so")
    return found


def minor_version(python):
    "(3, 11) of a Python; None of a program that does not start."
    asked = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def pythons():
    "{(3, 11): a Python} of those on the path and below ~/.pyenv that are new enough."
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    folders += sorted((Path.home() / ".pyenv" / "versions").glob("*/bin"))
    found = {OLDEST: Path(sys.executable)} if sys.version_info[:2] == OLDEST else {}
    for folder in folders:
        for path in sorted(folder.glob("python3.[0-9]*")):
            version = minor_version(path) if re.fullmatch(r"python3\.\d+", path.name) else None
            if version and version >= OLDEST:
                found.setdefault(version, path)
    return dict(sorted(found.items()))


def build(out):
    "sdist and wheel of what is committed; the wheel is built from the sdist."
    with tempfile.TemporaryDirectory() as home:
        archive = Path(home) / "tree.tar"
        run(["git", "archive", "-o", archive, "HEAD"], cwd=ROOT)
        run(["tar", "-xf", archive, "-C", home])
        archive.unlink()
        run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, home])
    run(tool("twine", "check", "--strict", *map(str, out.glob("ramer-*"))))
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def try_out(python, package, find_links):
    "Install a package into an empty environment, and use it there; what it said of itself."
    links = ["--find-links", find_links] if find_links else ["--torch-backend=cpu"]
    with tempfile.TemporaryDirectory() as home:
        there = Path(home) / "env" / "bin"
        run([uv(), "venv", "-q", "--python", python, there.parent])
        run([uv(), "pip", "install", "-q", "--python", there / "python", *links, package])
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        given = {"cwd": home, "env": clean | {"PATH": f"{there}{os.pathsep}{os.environ['PATH']}"}}
        return [run(command, **given) for command in TRIALS][0].strip()


def audited():
    "(packages of the lock that were looked up, sentences on those with a known vulnerability)."
    options = ["-r", LOCK, "--disable-pip", "--no-deps", "--progress-spinner", "off", "-f", "json"]
    done = subprocess.run(tool("pip-audit", *map(str, options)), capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return 0, []
    known = [package for package in packages if "vulns" in package]
    named = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {flaw['fix_versions']}"
        for package in known
        for flaw in package["vulns"]
    ]
    return len(known), named


def write_sums(out):
    files = sorted(path for path in out.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (out / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="a new folder")
    parser.add_argument("--trial", action="store_true", help="build what cannot be released yet")
    parser.add_argument("--find-links", help="a folder of wheels, such as torch's for processors")
    parser.add_argument("--python", type=Path, action="append", help="repeatable; default: all")
    return parser.parse_args(arguments)


def main(arguments=None):
    asked = parsed(arguments)
    version = re.search(r"^version = (.+)$", (ROOT / "settings.ini").read_text(), re.M)[1]
    wrong = problems(version)
    for sentence in wrong:
        print(f"not ready: {sentence}")
    if wrong and not asked.trial:
        sys.exit("nothing was built; --trial builds it nevertheless")
    if asked.out.exists():
        sys.exit(f"{asked.out} is there; remove it, or name a new folder by --out")
    asked.out.mkdir(parents=True)
    wheel, sdist = build(asked.out)
    run(tool("cyclonedx-py", "requirements", LOCK, "-o", asked.out / f"ramer-{version}.cdx.json"))
    write_sums(asked.out)
    for python in asked.python or pythons().values():
        for package in (wheel, sdist):
            print(f"{package.name} on {python}: {try_out(python, package, asked.find_links)}")
    looked_up, named = audited()
    none = " (is there a network?)" if not looked_up else ""
    print(f"{looked_up} packages of the lock were looked up for known vulnerabilities{none}")
    for sentence in named:
        print(sentence)
    return int(bool(named))


if __name__ == "__main__":
    sys.exit(main())
