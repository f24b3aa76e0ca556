"""Measures every claim anew: runs each script here whose `main` needs nothing; each writes docs/evidence/NAME.md.

`python evidence/run.py` runs all of them, `python evidence/run.py segmenters` those that are named.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent / "docs" / "evidence"


def runs_alone(script):
    """Whether it has a `main` that can be called without arguments: what needs a folder of weights is run by hand."""
    tree = ast.parse(script.read_text())
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    return any(len(main.args.args) == len(main.args.defaults) for main in mains)


def scripts():
    return {path.stem: path for path in sorted(HERE.glob("*.py")) if path.name != "run.py" and runs_alone(path)}


def run(script):
    """Whether it ended well; what it prints is shown as it comes."""
    print(f"== {script.stem}", flush=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, script], cwd=HERE.parent, check=False)
    page = PAGES / f"{script.stem}.md"
    written = f"wrote {page.relative_to(HERE.parent)}" if page.exists() else "wrote no page"
    said = "done" if done.returncode == 0 else f"failed ({done.returncode})"
    print(f"== {script.stem}: {said} in {time.perf_counter() - started:.0f} s, {written}", flush=True)
    return done.returncode == 0


def main():
    known = scripts()
    wanted = sys.argv[1:] or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no such evidence: {', '.join(unknown)}; there is: {', '.join(known)}", file=sys.stderr)
        return 2
    PAGES.mkdir(parents=True, exist_ok=True)
    failed = [name for name in wanted if not run(known[name])]
    print(f"{len(wanted) - len(failed)} of {len(wanted)} ran" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
