"""The systems of infra/parameters: which stacks they consist of, and with which parameters.

    systems.py SYSTEM     # one line per stack: its name in the file, and its template
"""

import sys
from pathlib import Path
from typing import NamedTuple

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib


class Stack(NamedTuple):
    """A stack of a system, from its parameter file."""

    system: str
    environment: str  # SAM's term for a table of the file; the system itself is `default`
    template: Path
    region: str
    parameters: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.system}.{self.environment}"


def systems(infra: Path) -> list[str]:
    """The names of all systems."""
    return sorted(file.stem for file in (infra / "parameters").glob("*.toml"))


def stacks(infra: Path, system: str) -> list[Stack]:
    """The stacks of a system, in the order of their deployment."""
    with open(infra / "parameters" / f"{system}.toml", "rb") as file:
        environments = tomllib.load(file)
    found = []
    for environment, commands in environments.items():
        if environment == "version":
            continue
        settings = commands["global"]["parameters"]
        template = infra.parent / settings["template_file"]
        parameters = {name: text(value) for name, value in settings["parameter_overrides"].items()}
        found.append(Stack(system, environment, template, settings["region"], parameters))
    return found


def text(value) -> str:
    """A value as CloudFormation receives it: lists are joined by commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    for stack in stacks(Path(__file__).parents[1], sys.argv[1]):
        print(stack.environment, stack.template.name)
