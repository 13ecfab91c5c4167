"""``python -m filesession``: the command, where its script is not on the path."""

from filesession.cli.command import main

if __name__ == "__main__":
    main()
