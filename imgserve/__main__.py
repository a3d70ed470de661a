"""``imgserve`` and ``python -m imgserve``."""

from imgserve.cli.app import group


def main() -> None:
    """Run the command line; exits with 0, 1 for a failed task, or 2 for wrong use."""
    group(prog_name="imgserve")


if __name__ == "__main__":
    main()
