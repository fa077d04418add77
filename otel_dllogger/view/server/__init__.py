"""The live page: a server that shows a model of runs in a browser, and its access rules."""
