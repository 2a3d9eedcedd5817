"""Build the site: python docs/site/build.py --out build/site --web build/web/node_modules

Nothing is executed: lessons are shown as they were executed when they were built. Every warning of Sphinx is an error. The site
is built anew beside the old one, and takes its place if all went well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from site_pages import HERE, ROOT, Site

MATHJAX = ("tex-chtml-full.js", "output/chtml/fonts")  # the parts of the npm package that pages load


def main() -> int:
    """Build; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the site of the course.")
    parser.add_argument("--out", type=Path, default=ROOT / "build/site", help="the folder of the site (it is replaced)")
    parser.add_argument("--web", type=Path, default=ROOT / "build/web/node_modules", help="the folder of the npm packages")
    parser.add_argument("--lessons", nargs="*", help="only these lessons, such as 04_lstm_forward")
    parser.add_argument("--modules", nargs="*", help="only these modules, such as cells")
    options = parser.parse_args()
    began = time.monotonic()
    site = Site(options.lessons, options.modules)
    if problem := trouble(options, site):
        print(f"error: {problem}", file=sys.stderr)
        return 2
    status = build(site, options.out.resolve(), options.web.resolve() / "mathjax/es5")
    if status == 0:
        print(f"{options.out}/index.html: {len(site.lessons)} lessons, {len(site.modules)} modules, "
              f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return status


def trouble(options: argparse.Namespace, site: Site) -> str:
    """What the user has to mend before anything can be built, or ""."""
    unknown = sorted({*(options.lessons or ())} - {*site.lessons} | {*(options.modules or ())} - {*site.modules})
    if unknown:
        return f"no lesson or module is called {unknown[0]}; name files of notebooks/ and course_lib/ without their ending"
    missing = [part for part in MATHJAX if not (options.web / "mathjax/es5" / part).exists()]
    if missing:
        return f"{options.web / 'mathjax/es5' / missing[0]} is not there; run `make site`, which installs it, or name --web"
    out = options.out
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / ".buildinfo").exists())):
        return f"{out} is there and is no built site; name another folder with --out"
    return ""


def build(site: Site, out: Path, mathjax: Path) -> int:
    """Write the sources, run Sphinx, and put the site in the place of the old one if all went well."""
    work = out.with_name(out.name + "-work")
    shutil.rmtree(work, ignore_errors=True)  # of a build that was killed
    sources, partial = work / "sources", work / "partial"
    try:
        site.write(sources)
        copy_mathjax(mathjax, work / "static/mathjax")
        lessons = {name[:2]: f"lessons/{name}" for name in site.lessons}
        course = {"equations": site.equations(), "lessons": lessons, "mathjax": str(work / "static")}
        course["modules"] = list(site.modules)
        (work / "course.json").write_text(json.dumps(course), encoding="utf-8")
        path = os.pathsep.join([str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"COURSE_SITE_SOURCES": str(sources), "PYTHONPATH": path}
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-j", "2"]
        command += ["-c", HERE, "-d", work / "doctrees", sources, partial]
        status = subprocess.run(command, env=environment, check=False).returncode
        if status == 0:
            shutil.rmtree(partial / "_sources", ignore_errors=True)  # a folder left empty
            if out.exists():
                out.rename(work / "old")
            partial.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if status else 0


def copy_mathjax(package: Path, folder: Path) -> None:
    """Copy what pages load of MathJax."""
    for part in MATHJAX:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (package / part).is_dir() else shutil.copy2)(package / part, folder / part)


if __name__ == "__main__":
    sys.exit(main())
