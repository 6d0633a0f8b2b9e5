"""`python -m evolion`, for where the package is importable and the command is not on the path."""

from evolion.cli import main

if __name__ == "__main__":
    main()
