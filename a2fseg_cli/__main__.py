"""`python -m a2fseg_cli` is the command `a2fseg`."""

from a2fseg_cli.cli.main import main

if __name__ == "__main__":
    main()
