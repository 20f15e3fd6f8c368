"""Lints the templates of infra/ as CloudFormation receives them, with the parameters of every system.

    lint.py [--system SYSTEM] [FOLDER …]     # FOLDER has the layout of infra/; default: infra/ itself

Prints one line per finding and exits with 1 if there are any. cfn-lint checks the translation, because it overlooks faults in what
SAM generates from a template; `rules` holds this project's own rules.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cfnlint.api
import rules
import systems
from cfnlint.config import ManualArgs
from cloudformation import Stack, write
from rules import Finding


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--system", help="lint only this system")
    arguments.add_argument("folders", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    asked = arguments.parse_args()
    seen: set[str] = set()
    findings = [(folder, finding) for folder in asked.folders for finding in lint(folder.resolve(), asked.system, seen)]
    for folder, (place, rule, message) in findings:
        print(f"{folder}: {place}: {rule}: {message}")
    return 1 if findings else 0


def lint(infra: Path, only: str | None, seen: set[str]) -> Iterator[Finding]:
    """What is wrong with the systems of a folder; cfn-lint skips texts that it has already checked."""
    for system in [only] if only else systems.systems(infra):
        stacks = [Stack(each.template, each.name, each.region, each.parameters) for each in systems.stacks(infra, system)]
        wrong = [finding for stack in stacks for finding in rules.of_stack(stack)]
        yield from wrong
        if not any(finding.rule == "parameter" for finding in wrong):
            yield from rules.of_system(stacks)
            for stack in stacks:
                yield from cfn_lint(stack, seen)


def cfn_lint(stack: Stack, seen: set[str]) -> Iterator[Finding]:
    """What cfn-lint finds in the translation, checking each text once."""
    with tempfile.TemporaryDirectory() as folder:
        write(stack, Path(folder))
        for path in sorted(Path(folder).iterdir()):
            text = path.read_text()
            if text in seen:
                continue
            seen.add(text)
            for match in cfnlint.api.lint_file(path, ManualArgs(regions=[stack.region])):
                place = ".".join(map(str, match.path or []))
                yield Finding(f"{stack.name}, {path.name}, {place}", match.rule.id, match.message)


if __name__ == "__main__":
    sys.exit(main())
