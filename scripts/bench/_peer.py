"""A peer of a benchmark: an environment made once, and a process in it that answers lines."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CACHE = Path.home() / ".cache" / "scaleinv_ray" / "bench"


def interpreter(requirement: str, *more: str) -> Path:
    """The peer's interpreter, in an environment that is made once.

    Args:
        requirement: the peer, pinned; names the environment.
        *more: what else is installed with it.

    Returns:
        Its path.
    """
    folder = CACHE / requirement.replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        wanted = [requirement, *more]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
        done.touch()
    return python


class Peer:
    """A process of another interpreter that answers each line of JSON with a line of JSON."""

    def __init__(self, python: Path, server: str, *arguments: str) -> None:
        """Starts it.

        Args:
            python: interpreter.
            server: program that reads lines and prints one for each.
            *arguments: of the program.
        """
        self.process = subprocess.Popen(
            [str(python), "-c", server, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: Any) -> Any:
        """The answer to a question.

        Args:
            question: JSON value.

        Returns:
            JSON value.

        Raises:
            RuntimeError: where the process has ended; its own words are on stderr.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
