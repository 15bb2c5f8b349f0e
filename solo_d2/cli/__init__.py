"""The command ``solo-d2``: one module per verb, which imports what it needs when it runs."""
