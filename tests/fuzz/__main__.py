"""``python -m tests.fuzz TARGET SECONDS [FOLDER]``: a coverage-guided run; what it finds is kept in FOLDER/findings.

An exception does not end the run: the first input of each kind (type and place) is kept, and counted at the end.
What hangs for ten seconds or takes 2 GiB ends it, and counts too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path


def main(words: list[str]) -> int:
    """Run in a process of its own, since the fuzzer ends its process; print the summary."""
    target, seconds = words[0], int(words[1])
    folder = Path(words[2] if len(words) > 2 else tempfile.mkdtemp(prefix="bknb-fuzz-"))
    findings = folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inside", target, str(seconds), str(folder)],
        env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    runs = re.search(r"stat::number_of_executed_units: *(\d+)", done.stderr)
    last = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", done.stderr)
    found = sorted(findings.iterdir())
    if runs is None or not last:
        print(done.stderr[-3000:])
        print(f"fuzz {target}: the run broke off ({done.returncode}); kept in {folder}")
        return 2
    covered, features, corpus = last[-1]
    print(
        f"fuzz {target}: {int(runs[1]):,} executions in {seconds} s, {covered} edges and {features} features covered, "
        f"corpus of {corpus}, {len([f for f in found if f.suffix != '.txt'])} findings"
    )
    for file in found:
        if file.suffix == ".txt":
            print(f"\n{file.with_suffix('')}\n{file.read_text()}")
    return 1 if found or done.returncode else 0


def inside(target: str, seconds: int, folder: Path) -> None:
    """The fuzzer's process: instrument, seed, run."""
    import atheris

    with atheris.instrument_imports(include=["bknb.frontend", "bknb.llb"], enable_loader_override=False):
        from tests.fuzz import targets
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(dict.fromkeys(targets.seeds(target))):
        (corpus / f"seed-{number:04}").write_bytes(data)
    words = folder / "words.dict"
    words.write_text(
        "".join(
            '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n'
            for word in targets.WORDS
            if word
        )
    )
    run = targets.TARGETS[target]
    seen: set[str] = set()

    def one(data: bytes) -> None:
        try:
            run(data)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__}-{Path(frame.filename.strip('<>')).stem}-{frame.lineno}".replace(
                " ", "-"
            )
            if kind not in seen:
                seen.add(kind)
                (folder / "findings" / kind).write_bytes(data)
                (folder / "findings" / f"{kind}.txt").write_text(traceback.format_exc()[-3000:])

    options = [
        "-seed=1", f"-max_total_time={seconds}", "-max_len=6000", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
        f"-artifact_prefix={folder / 'findings'}/", f"-dict={words}",
    ]  # fmt: skip
    atheris.Setup(["fuzz", *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        sys.exit(main(sys.argv[1:]))
